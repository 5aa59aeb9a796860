"""Records which functions of a package run, from inside the process that runs them.

bench/stats.py copies this file as `sitecustomize.py` into a folder of PYTHONPATH, so that Python
imports it at the start of the traced command and of each process that the command starts. It reads
four environment variables: ENTERED_ROOT (the folder of the package), ENTERED_LOG (one line for the
first call of each function: its file and line), ENTERED_STOP (a path; recording ends when it
exists) and ENTERED_COUNTS (where set, a file for the number of calls; the process then ends there).

Calls while a module is imported are left out: decorators and class bodies are not the path.
"""

import json
import os
import sys
import threading
from types import CodeType, FrameType
from typing import Any

ROOT = os.environ.get("ENTERED_ROOT", "")
STOP = os.environ.get("ENTERED_STOP", "")
COUNTS = os.environ.get("ENTERED_COUNTS", "")

calls: dict[CodeType, int] = {}
others: set[CodeType] = set()


def profile(frame: FrameType, event: str, _argument: Any) -> None:
    code = frame.f_code
    if event != "call" or code in others:
        return
    if code in calls:
        calls[code] += 1
    elif not code.co_filename.startswith(ROOT) or code.co_name == "<module>":
        others.add(code)
    elif not while_importing(frame):
        first_call(code)


def while_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(ROOT):
            return frame.f_globals.get("__name__") != "__main__"
        frame = frame.f_back
    return False


def first_call(code: CodeType) -> None:
    if STOP and os.path.exists(STOP):
        end()
        return
    calls[code] = 1
    # appended in one write, because several processes share the file
    line = f"{code.co_filename}\t{code.co_firstlineno}\n".encode()
    log = os.open(os.environ["ENTERED_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, line)
    os.close(log)


def end() -> None:
    sys.setprofile(None)
    threading.setprofile(None)
    if COUNTS:
        rows = [[code.co_filename, code.co_firstlineno, n] for code, n in calls.items()]
        with open(COUNTS, "w", encoding="utf-8") as file:
            json.dump(rows, file)
        os._exit(0)


if ROOT:
    threading.setprofile(profile)
    sys.setprofile(profile)
