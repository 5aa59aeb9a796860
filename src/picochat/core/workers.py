"""Runs tasks in several processes and yields their results in the order of the tasks.

Processes are spawned, not forked: the caller may hold threads of torch or of a network client. Only
a few results wait at a time, so memory does not grow with the number of tasks.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sized
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from typing import Any, TypeVar

from picochat.core.errors import HostProblem

T = TypeVar("T")
R = TypeVar("R")
TASKS_PER_PROCESS = 2  # submitted at a time: one runs, and one is ready when it ends

# State of one worker process: the function from the caller that opens the worker, and the worker.
_open: list[Callable[[], Callable[[Any], Any]]] = []
_opened: list[Callable[[Any], Any]] = []

FEWER_PROCESSES = (
    "the same command goes on; with fewer processes it needs less memory: --set host.workers=1 of"
    " a run, --workers 1 of data honesty"
)


def in_order(
    open_worker: Callable[[], Callable[[T], R]], tasks: Iterable[T], processes: int
) -> Generator[R, None, None]:
    """Yield the result of each task, in the order of the tasks.

    `open_worker` is called once in each process. It loads what all tasks need and returns the
    function that does one task. With one process, or one task, everything happens in this process;
    otherwise `open_worker`, tasks and results must be picklable. Raises the error of a task, or
    HostProblem if a process was killed.
    """
    if isinstance(tasks, Sized):
        processes = min(processes, len(tasks))
    if processes < 2:
        work = open_worker()
        yield from (work(task) for task in tasks)
        return
    pool = ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_start, initargs=(open_worker,)
    )
    waiting: deque[Future[R]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(_do, task))
            if len(waiting) > TASKS_PER_PROCESS * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise HostProblem(
            "a worker process was killed, most often because memory ran out; what was finished is"
            " kept",
            fix=FEWER_PROCESSES,
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(open_worker: Callable[[], Callable[[Any], Any]]) -> None:
    # Ctrl-C and a closed terminal reach every process of the terminal. The caller reports them.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_caller, name="end with caller", daemon=True).start()
    _open.append(open_worker)


def _end_with_caller() -> None:
    """End this worker when its caller ends.

    A killed caller cannot stop its workers, and they would wait for the next task for ever.
    """
    caller = parent_process()
    if caller is not None:
        connection.wait([caller.sentinel])
        os._exit(1)


def _do(task: Any) -> Any:
    """Do a task; the first one opens the worker.

    An error of the initializer of a pool would become BrokenProcessPool. An error of a task keeps
    its type.
    """
    if not _opened:
        _opened.append(_open[0]())
    return _opened[0](task)
