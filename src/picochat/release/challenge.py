"""Draws a stretch of base training that the publisher is asked for: `picochat run challenge`.

The evidence has the digests of every saved state. A stretch leads from one of them, or from the
first weights, to the next. The seed that draws it is the verifier's, so a publisher cannot know
which stretch will be trained again (release/replay.py trains it). Each step of the run is as likely
as any other to lie in it. Needs no torch. A publisher who kept no states has nothing to send.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from picochat.core.errors import BadInput, Problem
from picochat.core.records import digest_bytes, digest_file
from picochat.facts import REPLAY_FOLDER, STATES, StateRow, state_name
from picochat.present.values import byte_quantity
from picochat.release.archive import STORED_SUFFIXES
from picochat.release.stated_files import opened_run
from picochat.run.folder import RunDir
from picochat.train.artifact import STATES_FOLDER, read_states

SEEDS = 2**32


@dataclass(frozen=True)
class Stretch:
    """The steps from one saved state to the next. start: None for the first weights."""

    start: StateRow | None
    end: StateRow

    @property
    def first(self) -> int:
        return self.start.step if self.start else 0


def stretches(states: Sequence[StateRow]) -> list[Stretch]:
    return [Stretch(start, end) for start, end in zip((None, *states), states, strict=False)]


def stretch_from(states: Sequence[StateRow], step: int) -> Stretch:
    """The stretch that begins at a step. Raises BadInput where no state of it was saved."""
    for stretch in stretches(states):
        if stretch.first == step:
            return stretch
    raise BadInput(
        f"no stretch begins at step {step}", fix="take one that `picochat run challenge` names"
    )


def place_of(row: StateRow) -> str:
    """Where a kept state lies, from the folder of the base stage."""
    return f"{STATES_FOLDER}/{state_name(row.step)}"


def kept_state(row: StateRow, roots: Sequence[RunDir], problems: list[Problem]) -> Path | None:
    """The folder of a saved state with the stated digests, in the first run that has it.

    None where no run does; the reason is added to `problems`.
    """
    names = (place_of(row), f"checkpoint/{REPLAY_FOLDER}")
    for place in (root.place("base").parent / name for root in roots for name in names):
        if not all((place / name).is_file() for name in row.files):
            continue
        digests = {name: digest_file(place / name) for name in row.files}
        wrong = [name for name, stated in row.files.items() if stated.sha256 != digests[name]]
        if not wrong:
            return place
        if place.name != REPLAY_FOLDER:  # the published state is of one step, perhaps another one
            what = f"{place / wrong[0]} is not the file that {STATES} states"
            problems.append(Problem(what, fix=ANOTHER_STATE_FIX))
    if not problems:
        what = f"the state of step {row.step} is not here: base/{place_of(row)}"
        problems.append(Problem(what, fix=ASK_FIX))
    return None


FIRST_STRETCH = (
    "it begins with the first weights, which only a machine with the processor, cores and torch of"
    " the run makes again; elsewhere draw another stretch"
)
ASK_FIX = (
    "ask the publisher for it, and put it into base/states of the folder that --run-dir names; a"
    " run with --set host.keep_states=true keeps all"
)
ANOTHER_STATE_FIX = "ask the publisher for the state of this run"


def challenge(path: Path, seed: int | None) -> list[str]:
    """The lines that say which stretch is drawn, what to ask for, and how it is trained again.

    seed: None: drawn here. Raises BadInput for a run without saved states.
    """
    with opened_run(path, skip=(*STORED_SUFFIXES, ".npz")) as run:
        base = run.artifact("base")
        states = sorted(read_states(base.place), key=lambda row: row.step)
    if not states:
        raise BadInput(
            f"{path} states no saved state of its base stage",
            fix="ask for a run that this version of picochat trained",
        )
    seed = secrets.randbelow(SEEDS) if seed is None else seed
    draw = digest_bytes(f"challenge {seed} {base.digest}".encode())
    step = int(draw[:16], 16) % states[-1].step
    number, drawn = next(
        (number, each) for number, each in enumerate(stretches(states), 1) if each.end.step > step
    )
    steps = drawn.end.step - drawn.first
    again = ["picochat", "run", "challenge", str(path), "--seed", str(seed)]
    words = ["picochat", "run", "verify", str(path), "--replay", str(steps)]
    words += ["--from-step", str(drawn.first), "--run-dir", "FOLDER"]
    asked = [row for row in (drawn.start, drawn.end) if row is not None]
    return [
        f"stretch {number} of {len(states)}: steps {drawn.first + 1} to {drawn.end.step} of"
        f" {states[-1].step}; drawn with seed {seed}, the same again: {shlex.join(again)}",
        *([] if drawn.start else [FIRST_STRETCH]),
        "ask the publisher for these folders, and put them into FOLDER/base:",
        *(line for row in asked for line in _state_lines(row)),
        "FOLDER/base/token_shards is needed too: the publisher's, or made again from the sources",
        f"then: {shlex.join(words)}",
    ]


def _state_lines(row: StateRow) -> list[str]:
    size = sum(file.bytes for file in row.files.values())
    return [
        f"    {place_of(row)} ({byte_quantity(size)})",
        *(
            f"        {name}: {file.bytes} bytes, sha256 {file.sha256}"
            for name, file in sorted(row.files.items())
        ),
    ]
