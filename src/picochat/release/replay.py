"""Trains steps again from a saved state and compares each loss with the stated curve.

State and token shards are used only where every byte is the one that the run's manifests state. On
a CPU like the run's own (same processor, cores and torch) losses and final weights must be equal
bit for bit. Elsewhere they must lie within the bounds below, since other kernels round otherwise.

Covers the base stage: from the published state on, which is of the last evaluation before its end;
or from any other saved state that is here (`from_step`, see release/challenge.py) to the next one,
which must be the saved one; or from the first weights. Does not cover the SFT stage, whose evidence
is its replies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from picochat.config import ResolvedConfig, RunConfig, RuntimeConfig
from picochat.core.errors import BadInput, HostProblem, Problem
from picochat.core.journal import read_journal
from picochat.core.machine import MachineRecord, machine_record
from picochat.core.progress import Progress, say
from picochat.core.publish import Artifact
from picochat.core.records import read_record
from picochat.facts import REPLAY_FOLDER, HostFacts, ShardsFacts, StateRow, TrainFacts, facts_of
from picochat.model import weights
from picochat.model.counted_start import new_model
from picochat.model.gpt import GPT
from picochat.model.runtime import Runtime, apply_settings, open_runtime
from picochat.release.challenge import kept_state, stretch_from
from picochat.release.stated_files import opened_run, place_with, run_in
from picochat.release.verify import VerifyCheck, VerifyReport, inspect_bundle
from picochat.run.folder import RunDir
from picochat.tokens.shards import open_shards
from picochat.tokens.token_counts import spread_sample
from picochat.tokens.tokenizer import Tokenizer
from picochat.train.artifact import read_states
from picochat.train.checkpoint import (
    STATE_FILES,
    SavedState,
    blank_state,
    differing_files,
    load_state,
)
from picochat.train.count_teacher import teaching, text_rows_of
from picochat.train.loader import stream_loader
from picochat.train.schedule import lr_fraction
from picochat.train.step import Engine

LARGEST_LOSS_DIFFERENCE = {"float32": 1e-3, "bf16": 2e-2}
"""Nats per target that a loss may differ by on another machine.

docs/decisions/0020 has the measurements.
"""
LARGEST_WAY_APART = {"float32": 0.05, "bf16": 0.5}
"""How far apart the final weights may be, as a fraction of their movement since the state."""


@dataclass(frozen=True)
class Parts:
    """What a replay needs, found and checked.

    `published`: the final weights; None where nobody here has them. `states`: of all saved states.
    `end`: the state that the stretch leads to, `end_place` where it lies; None where none is
    compared, or it is not here.
    """

    config: RunConfig
    facts: TrainFacts
    info: weights.CheckpointInfo
    losses: Mapping[int, float]
    states: Sequence[StateRow]
    saved: SavedState
    end: StateRow | None
    end_place: Path | None
    shards: Artifact
    published: Path | None
    must_be_equal: bool


def inspect_with_replay(
    path: Path, steps: int, run_dir: Path | None, from_step: int | None = None
) -> VerifyReport:
    """The report on a bundle or run folder, with `steps` steps trained again.

    Where something differs already, nothing is trained.

    run_dir: the folder that holds token shards and states where `path` does not. from_step: the
    saved state to begin at, 0 for the first weights; None: the published one. Raises BadInput where
    a part is missing.
    """
    report = inspect_bundle(path)
    if report.problems:
        say("what is stated differs already, so nothing was trained again")
        return report
    return replace(report, checks=(*report.checks, replay(path, steps, run_dir, from_step)))


def replay(
    path: Path, steps: int, run_dir: Path | None, from_step: int | None = None
) -> VerifyCheck:
    """Train up to `steps` steps again, and what differs. Stops at the first loss that does."""
    with opened_run(path) as stated:
        roots = [stated, run_in(run_dir)] if run_dir else [stated]
        parts = find_parts(stated, path, roots, from_step)
        runtime, compute = _compute_here(parts)
        exact = parts.must_be_equal and runtime.device == "cpu"
        return _Comparison(
            parts, compute, 0.0 if exact else LARGEST_LOSS_DIFFERENCE[runtime.precision], exact
        ).over(steps)


# ---- what it needs -------------------------------------------------------------------------------


def find_parts(
    stated: RunDir, path: Path, roots: Sequence[RunDir], from_step: int | None = None
) -> Parts:
    """What `stated` claims, with the large parts that it states.

    The parts come from the first of `roots` that has them with the stated digests.

    path: what `stated` was read from. Raises BadInput that names every part that is missing or
    differs.
    """
    base, shards = stated.artifact("base"), stated.artifact("shards")
    config = read_record(ResolvedConfig, stated.config, "configuration").config
    info, states = weights.read_info(base.place), read_states(base.place)
    problems: list[Problem] = []
    stretch, state = None, None
    if from_step is None:
        state = _published_state(base, path, roots, problems)
    else:
        stretch = stretch_from(states, from_step)
        if stretch.start is not None:
            state = kept_state(stretch.start, roots, problems)
        elif config.counts.start and not _is_like_here(stated):
            raise BadInput(FIRST_WEIGHTS_DIFFER, fix=DRAW_AGAIN)
    tokens = place_with(
        shards,
        [name for name in shards.manifest.files if not name.endswith(".starts")],
        roots,
        problems,
        MISSING_FIX,
    )
    # Its problems are dropped: without the final weights the losses can still be compared.
    published = place_with(base, [weights.WEIGHTS], roots, [], MISSING_FIX)
    if tokens is None or (state is None and from_step != 0):
        raise BadInput(f"{path} cannot be replayed with what is here", problems=problems)
    shards = replace(shards, place=tokens)
    return Parts(
        config=config,
        facts=facts_of(base, TrainFacts),
        info=info,
        losses={
            row["step"]: row["loss"]
            for row in read_journal(base.path("curve.jsonl"))
            if row["loss"] is not None
        },
        states=states,
        saved=load_state(state) if state else _first_state(config, info, shards),
        end=stretch.end if stretch else None,
        end_place=kept_state(stretch.end, roots, []) if stretch else None,
        shards=shards,
        published=published / weights.WEIGHTS if published else None,
        must_be_equal=_is_like_here(stated),
    )


MISSING_FIX = (
    "--run-dir RUN names the run folder that has it, or one that was made again from the pinned"
    " sources; the maker can add it to the bundle with --include-replay and --include-token-shards"
)


FIRST_WEIGHTS_DIFFER = (
    "the first weights follow from counts by singular vectors, which only a machine with the"
    " processor, cores and torch of the run computes alike"
)
DRAW_AGAIN = "begin at a saved state; `picochat run challenge` draws another stretch"


def _published_state(
    base: Artifact, path: Path, roots: Sequence[RunDir], problems: list[Problem]
) -> Path | None:
    """The folder of the state that the run published; None, with the reason added, if it is not
    here. Raises BadInput where the run published none.
    """
    if f"{REPLAY_FOLDER}/{STATE_FILES[0]}" not in base.manifest.files:
        raise BadInput(
            f"the run of {path} kept no state to replay from",
            fix="train with a base.eval_every that is smaller than base.steps, which keeps one",
        )
    names = [f"{REPLAY_FOLDER}/{name}" for name in STATE_FILES]
    place = place_with(base, names, roots, problems, MISSING_FIX)
    return place / REPLAY_FOLDER if place else None


def _first_state(config: RunConfig, info: weights.CheckpointInfo, shards: Artifact) -> SavedState:
    """The weights that training begins with, as train/base.py makes them."""
    apply_settings(config.runtime)  # the number of threads decides the bits of singular vectors
    sample = partial(spread_sample, open_shards(shards).train, config.counts.tokens, Tokenizer.bos)
    counted = sample if config.counts.start else None
    model = new_model(info.model, info.vocab_size, config.training_seed, counted)
    return SavedState(blank_state(), dict(model.state_dict()), {})


def _is_like_here(stated: RunDir) -> bool:
    """Whether this machine must give the same bits as the run did.

    It must where it has the processor, the cores and the torch that the run states, and the run
    trained in one process.
    """
    if not stated.machine.exists():
        return False
    # Several processes add gradients in another order than the one process here (0019).
    if (
        stated.has("host")
        and read_record(HostFacts, stated.place("host") / "host.json", "host facts").devices > 1
    ):
        return False
    then, here = read_record(MachineRecord, stated.machine, "machine record"), machine_record()
    return _what_decides_bits(then) == _what_decides_bits(here)


def _what_decides_bits(machine: MachineRecord) -> tuple[str, int, str | None]:
    # Another processor, number of threads or version of torch sums in another order, which changes
    # the last bits of the weights (docs/decisions/0002).
    return machine.cpu, machine.cores, machine.versions.get("torch")


def _compute_here(parts: Parts) -> tuple[RuntimeConfig, Runtime]:
    """The run's own runtime, changed where this machine lacks its device or backend.

    The backend is that of attention. The change is printed.
    """
    runtime = parts.config.runtime
    if runtime.device == "cuda" and not torch.cuda.is_available():
        say(
            "the run was trained on a CUDA device and there is none here: training again on the"
            " CPU, which takes long"
        )
        runtime = runtime.model_copy(
            update={"device": "cpu", "attention_backend": "auto", "compile": False}
        )
    try:
        return runtime, open_runtime(runtime, parts.info.model)
    except HostProblem as error:
        if runtime.attention_backend == "auto":
            raise
        # Another kernel moved losses by 5e-7 nats (0020), far less than the bound.
        say(f"{error.what}; taking another")
        runtime = runtime.model_copy(update={"attention_backend": "auto"})
        return runtime, open_runtime(runtime, parts.info.model)


# ---- training again ------------------------------------------------------------------------------


def trained_again(parts: Parts, compute: Runtime) -> Iterator[tuple[int, float, Engine]]:
    """(step, loss, engine after it) for each step after the state, to the last of the run.

    Rows that the run skipped after a loss spike are skipped here too. No rollback led back to
    between two saved states, so the next state knows how many rows are skipped.
    """
    config, counts, state = parts.config.base, parts.config.counts, parts.saved.state
    model = GPT(parts.info.model, parts.info.vocab_size)
    model.load_state_dict(parts.saved.weights)
    model.recompute_blocks(parts.config.runtime.activation_checkpointing)
    model.to(compute.device)
    stream = open_shards(parts.shards).train
    loader = stream_loader(
        stream,
        parts.info.model.context,
        config.sequences_per_step,
        parts.config.training_seed,
        compute.device,
        teach=teaching(
            partial(spread_sample, stream, counts.tokens, Tokenizer.bos),
            parts.info.vocab_size,
            config.steps,
            counts,
            text_rows_of(facts_of(parts.shards, ShardsFacts), parts.info.model.context),
        ),
    )
    engine = Engine(
        model, config, compute, fixed_shape=loader.fixed_shape, micro_batch=state.micro_batch
    )
    # Copies: the optimizer takes the tensors over and changes them.
    if parts.saved.optimizer:
        engine.optimizer.load_state(
            {name: tensor.clone() for name, tensor in parts.saved.optimizer.items()}
        )
    try:
        for step in range(state.step, config.steps):
            rest = (row.skipped for row in parts.states if row.step > step)
            skipped = next(rest, parts.facts.skipped_steps)
            loss, _ = engine.step(loader.batch(step + skipped), lr_fraction(step, config))
            yield step + 1, float(loss), engine
    finally:
        loader.close()


@dataclass(frozen=True)
class _Comparison:
    """Losses and final weights of a replay against what the run states."""

    parts: Parts
    compute: Runtime
    largest_difference: float
    exact: bool

    def over(self, steps: int) -> VerifyCheck:
        first, last = (
            self.parts.saved.state.step,
            min(self.parts.config.base.steps, self.parts.saved.state.step + steps),
        )
        largest, problems, notes = 0.0, list[Problem](), list[str]()
        if self.parts.facts.scored_step < first:
            notes.append(
                f"the published weights are those of step {self.parts.facts.scored_step}, before"
                " the state"
            )
        elif self.parts.facts.scored_step == first:
            notes, problems = self._weights(self.parts.saved.weights)
        with Progress("training again", last - first, "steps") as progress:
            for step, loss, engine in trained_again(self.parts, self.compute):
                difference = abs(loss - self.parts.losses.get(step, math.nan))
                largest = max(largest, difference)
                progress.advance(1, note=f"step {step}, loss {loss:.4f}")
                # Not `>`: NaN, of a loss or of a step that the curve lacks, must count as a
                # difference.
                if not difference <= self.largest_difference:
                    problems.append(self._loss_problem(step, loss, last))
                    break
                for more, differing in self._published_at(step, engine):
                    notes, problems = [*notes, *more], [*problems, *differing]
                if step == last:
                    break
        said = self._said(first, last, largest)
        note = "; ".join([said, *notes, *self._not_reached(last)])
        return VerifyCheck("replay", step - first, tuple(problems), None if problems else note)

    def _said(self, first: int, last: int, largest: float) -> str:
        said = (
            "equal bit for bit"
            if largest == 0
            else f"equal within {self.largest_difference:g} nats"
        )
        said += f" (largest difference {largest:.2g})" if largest else ""
        return f"losses of steps {first + 1} to {last} {said}"

    def _not_reached(self, last: int) -> list[str]:
        end, steps = self.parts.end, self.parts.config.base.steps
        if end is not None:
            return [f"the state of step {end.step} was not reached"] if last < end.step else []
        rest = steps - last
        return [f"the last {rest} steps were not trained again"] if rest else []

    def _published_at(self, step: int, engine: Engine) -> Iterator[tuple[list[str], list[Problem]]]:
        """(notes, problems) of each state and of the weights that the run states of this step."""
        if self.parts.end is not None and step == self.parts.end.step:
            yield self._state(self.parts.end, engine)
        if step == self.parts.facts.scored_step:
            yield self._weights(_on_host(engine.model.state_dict()))

    def _loss_problem(self, step: int, loss: float, last: int) -> Problem:
        stated = self.parts.losses.get(step)
        claim = (
            f"the curve states a loss of {stated!r}"
            if stated is not None
            else "the curve states no loss"
        )
        here = (
            "on a machine like this one it must be equal"
            if self.exact
            else f"at most {self.largest_difference:g} different"
        )
        rest = f"; steps {step + 1} to {last} were not trained" if step < last else ""
        return Problem(f"step {step}: {claim}, training it again gives {loss!r} ({here}){rest}")

    def _weights(self, again: Mapping[str, Tensor]) -> tuple[list[str], list[Problem]]:
        """Compare the published weights with those that were trained again.

        Returns (notes, problems).
        """
        if self.parts.published is None:
            return ["the published weights are not here, so they were not compared"], []
        published = load_file(self.parts.published)
        return self._moved("published weights", self.parts.facts.scored_step, again, published)

    def _moved(
        self, what: str, step: int, again: Mapping[str, Tensor], stated: Mapping[str, Tensor]
    ) -> tuple[list[str], list[Problem]]:
        """(notes, problems) of weights that were trained again and those that are stated."""
        if all(torch.equal(again[name], stated[name]) for name in again):
            return [f"{what} equal bit for bit"], []
        distance = relative_distance(again, stated, self.parts.saved.weights)
        said = f"{what} differ by {distance:.2%} of the way that they moved"
        limit = 0.0 if self.exact else LARGEST_WAY_APART[self.parts.config.runtime.precision]
        if distance <= limit:
            return [said], []
        must = (
            "on a machine like this one they must be equal"
            if self.exact
            else f"at most {limit:.0%}"
        )
        return [], [Problem(f"step {step}: {said} ({must})")]

    def _state(self, end: StateRow, engine: Engine) -> tuple[list[str], list[Problem]]:
        """Compare the saved state at the end of the stretch with the one that was trained again.

        On a machine like the run's its digests decide, and its files need not be here. Elsewhere
        its weights must be close; its optimizer state is then not compared.
        """
        again = _on_host(engine.model.state_dict())
        if self.exact:
            saved = SavedState(blank_state(), again, _on_host(engine.optimizer.state()))
            if differing := ", ".join(differing_files(saved, end)):
                what = f"step {end.step}: trained again, other digests than stated: {differing}"
                return [], [Problem(what)]
            return [f"weights and optimizer state of step {end.step} have the stated digests"], []
        if self.parts.end_place is None:
            return [f"the saved state of step {end.step} is not here, so it was not compared"], []
        stated = load_state(self.parts.end_place).weights
        return self._moved(f"saved weights of step {end.step}", end.step, again, stated)


def _on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in tensors.items()}


def relative_distance(
    one: Mapping[str, Tensor], other: Mapping[str, Tensor], start: Mapping[str, Tensor]
) -> float:
    """Distance between two sets of weights over the distance from `start` to `other`.

    It is infinite where `other` did not move from `start`.
    """

    def distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
        return math.sqrt(
            sum(float((a[name].double() - b[name].double()).square().sum()) for name in other)
        )

    moved = distance(start, other)
    return distance(one, other) / moved if moved else math.inf
