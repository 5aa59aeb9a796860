import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from picochat.core.errors import BadInput, HostProblem, Problem
from picochat.core.workers import in_order


def _adder(number: int) -> Callable[[int], tuple[int, int]]:
    opened = os.getpid()
    return lambda task: (task + number, opened)


def _refuser() -> Callable[[int], int]:
    def work(task: int) -> int:
        if task == 3:
            raise BadInput("the third", problems=[Problem("is broken", "mend it")], fix="see above")
        return task

    return work


def _cannot_open() -> Callable[[int], int]:
    raise BadInput("no such tokenizer")


def _killed() -> Callable[[int], int]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_worker_that_the_system_kills_is_said_with_what_helps() -> None:
    with pytest.raises(HostProblem, match="a worker process was killed") as caught:
        list(in_order(_killed, range(4), 2))
    assert caught.value.fix is not None and "--set host.workers=1" in caught.value.fix


def test_results_come_in_the_order_of_the_tasks_from_several_processes() -> None:
    found = list(in_order(partial(_adder, 10), range(25), 2))
    assert [result for result, _ in found] == list(range(10, 35))
    assert os.getpid() not in {opened for _, opened in found}


def test_one_process_or_one_task_is_done_here() -> None:
    assert list(in_order(partial(_adder, 1), range(3), 1)) == [
        (n + 1, os.getpid()) for n in range(3)
    ]
    assert list(in_order(partial(_adder, 1), range(1), 8)) == [(1, os.getpid())]
    assert list(in_order(partial(_adder, 1), [], 8)) == []


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_keeps_its_type_its_problems_and_its_remedy(processes: int) -> None:
    with pytest.raises(BadInput) as caught:
        list(in_order(_refuser, range(9), processes))
    assert [problem.fix for problem in caught.value.problems] == ["mend it"]
    assert caught.value.fix == "see above"


def test_an_error_on_opening_is_raised_and_not_a_broken_pool() -> None:
    with pytest.raises(BadInput, match="no such tokenizer"):
        list(in_order(_cannot_open, range(4), 2))


def test_only_a_few_tasks_are_taken_ahead_so_that_memory_stays_flat() -> None:
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(60):
            taken.append(number)
            yield number

    found = in_order(partial(_adder, 0), tasks(), 2)
    assert next(found)[0] == 0
    assert len(taken) <= 6
    found.close()


ORPHANS = """
import sys, time
from functools import partial
from picochat.core.workers import in_order
from tests.core.test_workers import _adder
if __name__ == "__main__":
    found = in_order(partial(_adder, 0), range(1000), 2)
    print(next(found)[1], next(found)[1], flush=True)
    time.sleep(60)
"""


def test_workers_end_with_a_caller_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "caller.py"
    script.write_text(ORPHANS)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    ) as caller:
        assert caller.stdout is not None
        workers = {int(number) for number in caller.stdout.readline().split()}
        assert workers
        caller.kill()
    deadline = time.monotonic() + 20
    while workers and time.monotonic() < deadline:
        workers = {worker for worker in workers if _is_running(worker)}
        time.sleep(0.05)
    assert not workers


def _is_running(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
