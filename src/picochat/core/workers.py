"""Work over all cores: tasks done by several processes, their results in the order of the tasks.

Processes are spawned, not forked: the caller may hold threads of torch or of a network client. An
interrupt reaches the whole terminal group; the caller reports it, and the workers end without a
message. Few results wait at a time, so memory does not grow with the number of tasks.
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
AHEAD = 2  # tasks handed out for each process: enough to keep it busy

_opened: list[Callable[[Any], Any]] = []
_open: list[Callable[[], Callable[[Any], Any]]] = []


def in_order(
    open_worker: Callable[[], Callable[[T], R]], tasks: Iterable[T], processes: int
) -> Generator[R, None, None]:
    """What the function that `open_worker` gives makes of each task, in their order.

    `open_worker` is called once in each process, to load what all its tasks need; it, tasks and
    results must be picklable where there are several processes. With one process, or one task, all
    happens here. An error in a task is raised here; HostProblem where one of the processes was
    killed.
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
            if len(waiting) > AHEAD * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise HostProblem(
            "a worker process was killed, most often because memory ran out; what was finished is"
            " kept",
            fix="the same command goes on; fewer processes need less memory: --set host.workers=1",
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(open_worker: Callable[[], Callable[[Any], Any]]) -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_caller, name="end with caller", daemon=True).start()
    _open.append(open_worker)


def _end_with_caller() -> None:
    """End this worker when its caller ends.

    A caller that was killed cannot say so, and a worker would wait for its next task for ever.
    """
    caller = parent_process()
    if caller is not None:
        connection.wait([caller.sentinel])
        os._exit(1)


def _do(task: Any) -> Any:
    """Open what the worker needs at its first task, then do the task.

    An error on opening is then the error of a task and keeps its type.
    """
    if not _opened:
        _opened.append(_open[0]())
    return _opened[0](task)
