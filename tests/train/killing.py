"""A base stage in a process of its own, stopped by signals at random moments until it is complete.

Processes are forked from a server that has imported everything once, so that a kill costs a second
and not ten.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from picochat.config import HostConfig, RunConfig
from picochat.core.errors import Interrupted
from picochat.run.folder import RunDir
from tests.train.builders import EVERY_STEP, small_config, train_base

LONGEST_END_S = 120.0


def busy_config(steps: int = 40) -> RunConfig:
    """Little training and much saving, so that most kills hit a write.

    Every step is saved and each fifth is evaluated.
    """
    return small_config(steps=steps, eval_every=5, publish="best")


def train_in_child(root: Path, place: Path, config: RunConfig) -> BaseProcess:
    """A child that trains the base stage of the run `root` into `place`, saving every step."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.train.killing", "torch._inductor.config"])
    child = context.Process(target=_train, args=(root, place, config))
    child.start()
    return child


def _train(root: Path, place: Path, config: RunConfig) -> None:
    os.dup2(
        os.open(place.with_name(f"{place.name}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2
    )
    try:
        train_base(RunDir(root), config, HostConfig(checkpoint_minutes=EVERY_STEP), place)
    except Interrupted as stopped:
        sys.exit(stopped.exit_code)


def train_calmly(root: Path, place: Path, config: RunConfig) -> float:
    """An undisturbed stage; returns the seconds it took, the start of its process included."""
    begun = time.monotonic()
    _end(train_in_child(root, place, config), place)
    return time.monotonic() - begun


def train_with_kills(
    root: Path,
    place: Path,
    config: RunConfig,
    kills: int,
    longest_s: float,
    choose: random.Random,
    signals: Sequence[signal.Signals] = (signal.SIGKILL,),
) -> int:
    """Start the stage and stop it by a signal at a random moment, again and again; return the hits.

    After at most `kills` times it may end.
    """
    for hit in range(kills):
        child = train_in_child(root, place, config)
        child.join(choose.uniform(0, longest_s))
        if not child.is_alive():
            _end(child, place)
            return hit
        number = choose.choice(signals)
        assert child.pid is not None
        os.kill(child.pid, number)
        if (
            choose.random() < 0.5 and number != signal.SIGKILL
        ):  # impatience: the second one acts at once
            child.join(choose.uniform(0, 0.1))
            if child.is_alive():
                os.kill(child.pid, number)
        child.join(LONGEST_END_S)
        # Before and after the loop nothing holds a signal back, so its own default ends the
        # process.
        assert child.exitcode in (
            -number,
            128 + number,
            0,
            1 if number == signal.SIGINT else None,
        ), child.exitcode
    _end(train_in_child(root, place, config), place)
    return kills


def _end(child: BaseProcess, place: Path) -> None:
    child.join(LONGEST_END_S)
    said = place.with_name(f"{place.name}.log").read_text()
    assert child.exitcode == 0, f"exit code {child.exitcode}: {said[-2000:]}"
