"""The run as one table: which artifact each stage makes, by which function, from what.

A stage whose artifact already stands and was made from the same things is kept; otherwise it runs,
resumes its own half-done work, and sets an older artifact aside. Stages are named by import string,
so that reading the table needs no torch. Stages marked `shared` live in the cache and are linked
into each run: preflight, dry run and full run of one pack tokenize once.
"""

from __future__ import annotations

import importlib
import platform
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from picochat.config import ResolvedConfig, RunConfig, flatten, resolve
from picochat.core.errors import BadInput, HonestNo, Interrupted, PicochatError, Problem, WrongUsage
from picochat.core.journal import Journal, read_journal
from picochat.core.machine import machine_record, process_count
from picochat.core.progress import duration, say
from picochat.core.publish import (
    MANIFEST,
    Artifact,
    Draft,
    adopt,
    artifact_key,
    exclusive,
    find_artifact,
    find_whole_artifact,
    open_artifact,
    open_workspace,
    publish,
    take_back,
)
from picochat.core.records import read_record, write_json
from picochat.data.benchmarks.resolve import check_local, resolve_benchmarks
from picochat.data.pack import LoadedPack, load_pack
from picochat.gate.evidence import GateReport, PreflightReport
from picochat.gate.render import gate_lines, preflight_lines
from picochat.rundir import RunDir, cache_folder
from picochat.scales import Scale, find_scale
from picochat.train.metrics import standing_words
from picochat.train.trackers import check_trackers

if TYPE_CHECKING:
    from picochat.train.distributed import ProcessGroup


MOST_REASONS = 4


@dataclass(frozen=True)
class Stage:
    """One row: the artifact's kind, the function that makes it, and what the function is given by
    these names.

    `needs`: artifacts. `settings`: sections of the config; also `seed`, `config` (all of it),
    `pack`, `benchmark_files` (where benchmarks were found just now), `run` and `track` (the folder
    of trackers). A function that is given `run` reads its artifacts there, and is not given them
    one by one. `version`: raise it when the function makes something else from the same input.
    `by_all`: where torchrun started several processes, all of them call the function together; the
    first one publishes.
    """

    kind: str
    by: str
    needs: tuple[str, ...]
    settings: tuple[str, ...]
    version: int
    shared: bool = False
    by_all: bool = False


STAGES: tuple[Stage, ...] = (
    #     kind             by                                             needs                                                        settings
    Stage("corpus",        "picochat.data.corpus.build:build_corpus",           (),                                                          ("pack", "data", "host"), 2, shared=True),
    Stage("practice",      "picochat.skills.practice:write_practice",     ("corpus",),                                                 ("practice", "host", "seed"), 2, shared=True),
    Stage("rows",          "picochat.skills.prepare:prepare_rows",        (),                                                          ("pack", "seed"), 1),
    Stage("benchmarks",    "picochat.data.benchmarks.stage:publish_benchmarks", (),                                                    ("external", "benchmark_files"), 1),
    Stage("tokenizer",     "picochat.tokens.tokenizer:train_tokenizer",   ("corpus",),                                                 ("tokenizer", "seed"), 2, shared=True),
    Stage("shards",        "picochat.tokens.shards:write_shards",         ("corpus", "practice", "tokenizer"),                         ("shards", "host", "seed"), 2, shared=True),
    Stage("conversations", "picochat.tokens.chat_format:encode_conversations", ("rows", "tokenizer"),                                  ("model",), 1),
    Stage("honesty",       "picochat.honesty.scan:scan_run",              ("corpus", "practice", "rows", "benchmarks"),                ("honesty", "host"), 4, shared=True),
    Stage("host",          "picochat.sanity.host:measure_host",           ("shards", "tokenizer"),                                     ("model", "base", "runtime"), 2),
    Stage("preflight",     "picochat.gate.preflight:run_preflight",       ("corpus", "practice", "rows", "benchmarks", "tokenizer", "shards", "conversations", "honesty", "host"), ("config",), 2),
    Stage("base",          "picochat.train.base:pretrain",                ("shards", "tokenizer"),                                     ("model", "base", "runtime", "host", "seed", "gpu_hour_usd", "track"), 6, by_all=True),
    Stage("sft",           "picochat.train.sft:finetune",                 ("base", "conversations", "tokenizer"),                      ("sft", "runtime", "host", "seed", "gpu_hour_usd", "track"), 6, by_all=True),
    Stage("scores",        "picochat.evals.report:score_run",             ("base", "sft", "rows", "benchmarks", "shards", "tokenizer", "honesty"), ("evals", "runtime", "seed"), 4),
    Stage("parity",        "picochat.release.parity:measure_parity",      ("sft", "tokenizer", "shards"),                              (), 1),
    Stage("gate",          "picochat.gate.release:run_gate",              ("preflight", "honesty", "base", "sft", "scores", "parity", "rows", "benchmarks"), ("config",), 6),
    Stage("summary",       "picochat.release.summary:write_summary",      ("corpus", "practice", "rows", "tokenizer", "shards", "honesty", "preflight", "base", "sft", "scores", "parity", "gate"), ("run", "config"), 2),
)  # fmt: skip


def stage_function(stage: Stage) -> Callable[..., None]:
    module, _, name = stage.by.partition(":")
    return getattr(importlib.import_module(module), name)


# ---- a run, as it is asked for -------------------------------------------------------------------


@dataclass(frozen=True)
class RunRequest:
    """What the user asked for.

    `flags`: setting -> value or None; `settings`: texts of the form section.key=value.
    """

    out_dir: Path
    dataset_pack: Path
    scale: str
    flags: dict[str, object] = field(default_factory=dict[str, object])
    settings: list[str] = field(default_factory=list[str])
    preflight_only: bool = False
    train_anyway: bool = False


@dataclass(frozen=True)
class RunVerdict:
    """What to print, and the exit code: 3 where the preflight or the gate blocked."""

    lines: list[str]
    exit_code: int


def run_pack(request: RunRequest) -> RunVerdict:
    """Run a pack at a scale: the preflight, and unless it blocks or is all that was asked,
    everything after it.

    Of several processes the first one does; the others take part in the stages that all share, and
    say nothing.
    """
    if process_count() == 1:
        return _run_pack(request)
    from picochat.train.distributed import join_group

    with join_group() as group:
        return _run_pack(request) if group.is_main else run_worker(group)


def _run_pack(request: RunRequest) -> RunVerdict:
    run, resolved, pack = open_request(request)
    check_processes(find_scale(request.scale), resolved.config, process_count())
    check_trackers(resolved.config.host.track)
    check_local(resolved.config.external)
    check_device(resolved.config)
    changes = changed_settings(run, resolved.config)
    made = run_stages(run, resolved, pack, last="preflight", changes=changes)
    preflight = read_record(PreflightReport, run.place("preflight") / "preflight.json")
    status, lines = preflight.status, preflight_lines(preflight)
    if request.preflight_only:
        return RunVerdict(
            [*lines, f"preflight {status}: {run.root / 'preflight.md'}"],
            3 if status == "blocked" else 0,
        )
    if status == "blocked" and not request.train_anyway:
        hint = (
            "nothing was trained. Mend what blocks, or pass --train-anyway to train without hope of"
            " approval"
        )
        return RunVerdict([*lines, f"preflight blocked: {hint}"], 3)
    say(f"preflight {status}: {run.root / 'preflight.md'}")
    run_stages(run, resolved, pack, last=STAGES[-1].kind, changes=changes, told=made)
    gate = read_record(GateReport, run.place("gate") / "gate.json")
    where = [
        f"{name}: {run.root / file}"
        for name, file in (
            ("summary", "summary.md"),
            ("report", "report.html"),
            ("gate", "gate.md"),
        )
    ]
    return RunVerdict(
        [*gate_lines(gate), *where, f"release gate: {gate.status}"],
        3 if gate.status == "blocked" else 0,
    )


def open_request(request: RunRequest) -> tuple[RunDir, ResolvedConfig, LoadedPack]:
    """The run folder, the settings with their origins, and the pack.

    Raises WrongUsage or BadInput; writes nothing.
    """
    resolved = resolve(
        find_scale(request.scale).config, request.flags, parse_settings(request.settings)
    )
    return RunDir(request.out_dir), resolved, load_pack(request.dataset_pack)


def parse_settings(texts: list[str]) -> dict[str, str]:
    """`section.key=value` texts as a mapping.

    Raises WrongUsage for a text without `=` and for a key given twice.
    """
    settings: dict[str, str] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise WrongUsage(
                f"--set {text}: no setting and value",
                fix="--set section.key=value, such as --set base.muon_lr=0.01",
            )
        if key.strip() in settings:
            raise WrongUsage(f"--set {key.strip()} is given twice")
        settings[key.strip()] = value.strip()
    return settings


def check_processes(scale: Scale, config: RunConfig, processes: int) -> None:
    """Raises WrongUsage where one process would train a scale made for several GPUs, or the rows of
    a step do not share out.
    """
    if scale.gpus > 1 and processes == 1:
        raise WrongUsage(
            f"scale {scale.name} is made for {scale.gpus} GPUs, and this is one process",
            fix=(
                f"torchrun --standalone --nproc-per-node {scale.gpus} --no-python picochat run tiny"
                f" --scale {scale.name} ..."
            ),
        )
    uneven = [
        Problem(f"{stage}.sequences_per_step is {train.sequences_per_step}")
        for stage, train in (("base", config.base), ("sft", config.sft))
        if train.sequences_per_step % processes
    ]
    if uneven:
        raise WrongUsage(
            f"{processes} processes cannot share out the rows of a step",
            problems=uneven,
            fix=(
                "a number of processes that divides them, or --set base.sequences_per_step=..."
                " sft.sequences_per_step=..."
            ),
        )


def check_device(config: RunConfig) -> None:
    """Refuse a device that is not here before any data is read."""
    from picochat.model.runtime import find_device
    from picochat.train.distributed import current_group, require_devices

    find_device(config.runtime)
    require_devices(config.runtime, current_group())


def status_lines(run: RunDir) -> list[str]:
    """One line an artifact: made with its digest, stale where what it was made from is no longer
    there, begun, or missing.

    Then what to do next.
    """
    lines: list[str] = []
    standing: dict[str, str] = {}
    for stage in STAGES:
        place = run.place(stage.kind)
        if run.has(stage.kind):
            artifact = run.artifact(stage.kind)
            others = [
                need
                for need in stage.needs
                if artifact.manifest.inputs.get(need) != standing.get(need)
            ]
            state = (
                f"stale    {artifact.digest[:12]}  {place} (made from another {', '.join(others)})"
            )
            lines.append(
                f"{stage.kind:14}"
                f" {state if others else f'made     {artifact.digest[:12]}  {place}'}"
            )
            standing[stage.kind] = "" if others else artifact.digest
        elif place.with_name(f"{place.name}.work").exists():
            rows = read_journal(run.metrics(stage.kind)) if stage.kind in ("base", "sft") else []
            lines.append(f"{stage.kind:14} begun    {standing_words(rows, time.time())}".rstrip())
        else:
            lines.append(f"{stage.kind:14} missing")
    if all(standing.get(stage.kind) for stage in STAGES):
        return [*lines, f"next: picochat run show --run-dir {quote(str(run.root))}"]
    return [
        *lines,
        f"next: the same `picochat run tiny --out-dir {quote(str(run.root))} ...` goes on",
    ]


def run_stages(
    run: RunDir,
    resolved: ResolvedConfig,
    pack: LoadedPack,
    *,
    last: str,
    changes: Mapping[str, str] | None = None,
    told: Collection[str] = (),
) -> dict[str, Artifact]:
    """Make every artifact up to `last`, in the order of the table. Returns them by kind. Holds the
    run folder meanwhile.

    changes: of the settings, as `changed_settings` gives them, to say why an artifact is made
    again. told: kinds that were spoken of already, and are not again where they are kept.
    """
    run.require_own()
    run.root.mkdir(parents=True, exist_ok=True)
    made: dict[str, Artifact] = {}
    with exclusive(run.lock, f"run folder {run.root}"):
        write_json(run.config, resolved)
        write_json(run.machine, machine_record())
        timings = Journal(run.timings)
        for stage in STAGES:
            started = time.monotonic()
            artifact, kept = _make(stage, run, resolved.config, pack, made, changes or {})
            made[stage.kind] = artifact
            seconds = time.monotonic() - started
            if not kept:
                say(f"made {stage.kind} {artifact.digest[:12]} in {duration(seconds)}")
            elif stage.kind not in told:
                say(f"kept {stage.kind} {artifact.digest[:12]}")
            if not kept:
                timings.append({"stage": stage.kind, "seconds": seconds, "time": time.time()})
            run.write_front_pages()
            if stage.kind == last:
                break
    return made


def changed_settings(run: RunDir, config: RunConfig) -> dict[str, str]:
    """Settings that differ from those of the last command in this folder: key -> `old -> new`.

    Empty where none is on record.
    """
    try:
        former = flatten(read_record(ResolvedConfig, run.config).config)
    except BadInput:  # no run yet, or one of another version
        return {}
    now = flatten(config)
    differ = {
        key: value
        for key, value in now.items()
        if key in former and former[key] != value and key[:5] != "host."
    }
    return {key: f"{key} {former[key]} -> {value}" for key, value in differ.items()}


def why_again(
    stage: Stage, place: Path, inputs: Mapping[str, str], changes: Mapping[str, str]
) -> str | None:
    """Why the artifact that stands at `place` is not the one that is wanted, in words; None where
    none stands.
    """
    if not (place / MANIFEST).exists():
        return None
    former = open_artifact(place, stage.kind).manifest.inputs
    reasons = [f"another {name}" for name, digest in inputs.items() if former.get(name) != digest]
    read = set(stage.settings) - {"host"}
    reasons += [
        change
        for key, change in changes.items()
        if key.split(".")[0] in read or ("config" in read and key != "scale")
    ]
    return ", ".join(reasons[:MOST_REASONS]) or "other settings, or made by another version"


def _make(
    stage: Stage,
    run: RunDir,
    config: RunConfig,
    pack: LoadedPack,
    made: dict[str, Artifact],
    changes: Mapping[str, str],
) -> tuple[Artifact, bool]:
    """(artifact, whether it already stood).

    What stands there and was made from something else is set aside, which is said.
    """
    given = {name: _setting(name, run, config, pack) for name in stage.settings}
    inputs, key = _inputs_and_key(stage, config, pack, made, given)
    place = run.place(stage.kind)
    standing = find_artifact(place, stage.kind, key)
    if standing is not None:
        return standing, True
    if (reason := why_again(stage, place, inputs, changes)) is not None:
        say(
            f"{place} was made from something else ({reason}): it is set aside as"
            f" {place.name}.superseded-N"
        )
    if (former := take_back(place, stage.kind, key)) is not None:
        say(f"taking back the {stage.kind} of before, which was set aside")
        return former, True
    arguments = (
        given
        if "run" in stage.settings
        else {**{need: made[need] for need in stage.needs}, **given}
    )
    if not stage.shared:
        return _publish(stage, place, key, inputs, arguments), False
    artifact, kept = _make_shared(stage, key, inputs, arguments)
    place.parent.mkdir(parents=True, exist_ok=True)
    return adopt(artifact, place), kept


# ---- what is shared, and what decides whether an artifact still stands ---------------------------


def shared_corpus(config: RunConfig, pack: LoadedPack) -> Artifact:
    """The corpus of a pack in the cache, made now where it is not there: a run with these settings
    finds it made.
    """
    stage = _shared_stage("corpus")
    inputs, key = _inputs_and_key(stage, config, pack, {})
    return _make_shared(
        stage, key, inputs, {"pack": pack, "data": config.data, "host": config.host}
    )[0]


def shared_workspace(request: RunRequest, kind: str) -> Path:
    """Where the shared stage `kind` of this run looks for work that is done already, such as other
    machines may leave.

    The artifacts that the stage needs must stand in the run folder; BadInput names the one that is
    missing.
    """
    run, resolved, pack = open_request(request)
    stage = _shared_stage(kind)
    _, key = _inputs_and_key(
        stage, resolved.config, pack, {need: run.artifact(need) for need in stage.needs}
    )
    return open_workspace(shared_place(stage, key), key)


def _shared_stage(kind: str) -> Stage:
    return next(stage for stage in STAGES if stage.kind == kind and stage.shared)


def _make_shared(
    stage: Stage, key: str, inputs: dict[str, str], arguments: dict[str, Any]
) -> tuple[Artifact, bool]:
    """(the artifact in the cache, whether it already stood)."""
    shared = shared_place(stage, key)
    with exclusive(shared.with_suffix(".lock"), f"the shared {stage.kind}", wait=True):
        standing = find_whole_artifact(shared, stage.kind, key)
        return (
            (standing, True)
            if standing
            else (_publish(stage, shared, key, inputs, arguments), False)
        )


def shared_place(stage: Stage, key: str) -> Path:
    """Where the cache keeps a shared artifact."""
    return cache_folder() / stage.kind / key[:32]


def _inputs_and_key(
    stage: Stage,
    config: RunConfig,
    pack: LoadedPack,
    made: Mapping[str, Artifact],
    given: Mapping[str, Any] | None = None,
) -> tuple[dict[str, str], str]:
    """(digests of what the artifact is made from, the key that decides whether one still stands)."""
    inputs = {need: made[need].digest for need in stage.needs}
    if "pack" in stage.settings:
        # Two stages read a pack: one its rows, the other its text. New rows must not remake the
        # corpus, nor new text the rows.
        inputs["pack"] = pack.rows_digest() if stage.kind == "rows" else pack.content_digest()
    keyed = _keyed(stage, config, pack)
    if given and "benchmark_files" in given:
        keyed["benchmark_files"] = given[
            "benchmark_files"
        ].digest()  # other bytes in a file, or found where none was before
    return inputs, artifact_key(keyed, inputs, stage.version)


def _setting(name: str, run: RunDir, config: RunConfig, pack: LoadedPack) -> Any:
    if name == "gpu_hour_usd":
        return config.gate.gpu_hour_usd
    if name == "benchmark_files":
        return resolve_benchmarks(config.external)
    return {"pack": pack, "run": run, "config": config, "track": run.track}.get(name) or getattr(
        config, name
    )


def _keyed(stage: Stage, config: RunConfig, pack: LoadedPack) -> dict[str, object]:
    """The values that decide whether an artifact still stands.

    Processes, how often to save, what an hour costs: those do not.
    """
    keyed: dict[str, object] = {}
    for name in stage.settings:
        if name == "config":
            keyed[name] = config.model_dump(mode="json", exclude={"host"})
        elif name == "pack":
            keyed[name] = str(pack.path.resolve()) if stage.kind == "corpus" else None
        elif name not in ("host", "run", "gpu_hour_usd", "track", "benchmark_files"):
            value = getattr(config, name)
            keyed[name] = value if isinstance(value, int) else value.model_dump(mode="json")
    return keyed


def _publish(
    stage: Stage, place: Path, key: str, inputs: dict[str, str], arguments: dict[str, Any]
) -> Artifact:
    say(f"making {stage.kind}")
    place.parent.mkdir(parents=True, exist_ok=True)
    with publish(place, stage.kind, key, inputs) as draft:
        if stage.by_all and process_count() > 1:
            _call_all(stage, arguments, draft)
        stage_function(stage)(**arguments, draft=draft)
    assert draft.artifact is not None
    return draft.artifact


# ---- several processes ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """What the first process tells the others to take part in: a stage, what its function is given,
    and its workspace.
    """

    kind: str
    arguments: dict[str, Any]
    workspace: Path


def _call_all(stage: Stage, arguments: dict[str, Any], draft: Draft) -> None:
    """Let the other processes begin this stage as well.

    Raises BadInput that names what one of them does not see.
    """
    from picochat.train.distributed import current_group

    group = current_group()
    seen = {
        name: replace(value, place=value.place.resolve()) if isinstance(value, Artifact) else value
        for name, value in arguments.items()
    }
    with group.watched():
        group.call_workers(Call(stage.kind, seen, draft.workspace.resolve()))
        problems = [problem for problem in group.all_gather(None) if problem is not None]
    if problems:
        raise BadInput(
            f"not every process sees what the stage {stage.kind} needs",
            problems=problems,
            fix="put --out-dir on a disk that all machines see under the same path",
        )


def run_worker(group: ProcessGroup) -> RunVerdict:
    """What a process does that is not the first: it takes part in each stage that it is called to,
    until that one ends.
    """
    from picochat.train.distributed import LostProcess
    from picochat.train.signals import signals_ignored

    try:
        with signals_ignored(), group.watched():
            while (call := group.next_call()) is not None:
                assert isinstance(call, Call)
                _take_part(call, group)
    except LostProcess:
        return RunVerdict([], 1)  # the first process, or torchrun in its place, says which one
    return RunVerdict([], 0)


def _take_part(call: Call, group: ProcessGroup) -> None:
    from picochat.train.distributed import LostProcess

    problem = unseen(call, group)
    if any(found is not None for found in group.all_gather(problem)):
        return
    stage = next(stage for stage in STAGES if stage.kind == call.kind)
    with tempfile.TemporaryDirectory() as own:
        try:
            stage_function(stage)(**call.arguments, draft=Draft(Path(own), call.workspace))
        except (Interrupted, HonestNo):
            pass  # all processes stop for it at the same step, and the first one says so
        except PicochatError as error:
            if not isinstance(error, LostProcess):
                say(f"process {group.rank} on {platform.node()}:")
            raise


def unseen(call: Call, group: ProcessGroup) -> Problem | None:
    """Why this process cannot take part: an artifact or the workspace that is not there, or is
    another one.
    """
    artifacts = [value for value in call.arguments.values() if isinstance(value, Artifact)]
    try:
        for artifact in artifacts:
            if open_artifact(artifact.place, artifact.kind).digest != artifact.digest:
                return Problem(
                    f"process {group.rank} on {platform.node()}: {artifact.place} is another"
                    f" {artifact.kind}"
                )
    except PicochatError as error:
        return Problem(f"process {group.rank} on {platform.node()}: {error.what}")
    if not (call.workspace / "key").exists():
        return Problem(f"process {group.rank} on {platform.node()}: {call.workspace} is missing")
    return None
