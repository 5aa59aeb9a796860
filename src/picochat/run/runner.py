"""Runs the graph: builds each artifact in order, reuses finished ones, resumes unfinished ones.

An artifact is reused if its key (settings, inputs and version) is the wanted one. Otherwise its
stage runs and continues its own unfinished work. An older artifact is set aside, never overwritten.
Artifacts marked `shared` are in the cache and are linked into each run, so preflight, dry run and
full run of one pack tokenize once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from picochat.config import ResolvedConfig, RunConfig, flatten
from picochat.core.errors import BadInput
from picochat.core.journal import Journal
from picochat.core.machine import cache_folder, machine_record, process_count
from picochat.core.progress import say
from picochat.core.publish import (
    MANIFEST,
    Artifact,
    adopt,
    artifact_key,
    changed_files,
    exclusive,
    find_artifact,
    find_whole_artifact,
    move_away,
    open_artifact,
    open_workspace,
    publish,
    set_aside,
    take_back,
    touched_files,
)
from picochat.core.records import read_record, write_json
from picochat.data.benchmarks.resolve import resolve_benchmarks
from picochat.data.pack import LoadedPack
from picochat.facts import GateReport, PreflightReport
from picochat.gate.remedies import with_pack
from picochat.gate.render import gate_lines, preflight_lines
from picochat.present.values import duration, short_digest
from picochat.run.folder import RunDir
from picochat.run.graph import ARTIFACTS, ArtifactSpec, read_facts, spec_of
from picochat.run.request import RunRequest, check_request, open_request
from picochat.run.workers import call_all, run_worker

MOST_REASONS = 4
MOST_NAMED = 3
OTHER_KEY = "other settings, the pack at another path, or built by another version"
SHOWN_PAGES = (("summary", "summary.md"), ("report", "report.html"), ("gate", "gate.md"))
NOTHING_TRAINED = (
    "nothing was trained. Fix what blocks, or pass --train-anyway to train without a chance of"
    " approval"
)

NO_EXERCISES = (
    "no skill exercises: the rows of the pack are not made by picochat data task-pack;"
    " --set exercises.fraction=0.3 trains on some all the same"
)


@dataclass(frozen=True)
class RunVerdict:
    """What to print, and the exit code: 3 if the preflight or the gate blocked, else 0."""

    lines: list[str]
    exit_code: int


def run_pack(request: RunRequest) -> RunVerdict:
    """Run a pack at a scale: the preflight, and all later stages unless it blocks."""
    return by_main_process(lambda: run_one(request))


def by_main_process(work: Callable[[], RunVerdict]) -> RunVerdict:
    """What `work` returns. Under torchrun only the first process does it.

    The others take part in the stages that all processes compute together (`run/workers.py`); they
    return no lines.
    """
    if process_count() == 1:
        return work()
    from picochat.train.distributed import join_group

    with join_group() as group:
        return work() if group.is_main else RunVerdict([], run_worker(group))


def run_one(request: RunRequest, like: RunDir | None = None) -> RunVerdict:
    """As `run_pack`, of the main process. like: see `run_stages`."""
    run, resolved, pack = open_request(request)
    check_request(request.scale, resolved.config)
    # Must come before `run_stages`, which overwrites run.json with the new settings.
    if resolved.origins["exercises.fraction"] == "pack":
        say(NO_EXERCISES)
    changes = changed_settings(run, resolved.config)
    built = run_stages(run, resolved, pack, last="preflight", changes=changes, like=like)
    preflight = read_record(PreflightReport, run.place("preflight") / "preflight.json")
    blocked, page = preflight.status == "blocked", run.root / "preflight.md"
    judged = with_pack(preflight_lines(preflight), pack.path)
    if request.preflight_only:
        lines = [*judged, f"preflight {preflight.status}: {page}"]
        return RunVerdict(lines, 3 if blocked else 0)
    if blocked and not request.train_anyway:
        return RunVerdict([*judged, f"preflight blocked: {NOTHING_TRAINED}"], 3)
    say(f"preflight {preflight.status}: {page}")
    run_stages(
        run, resolved, pack, last=ARTIFACTS[-1].kind, changes=changes, mentioned=built, like=like
    )
    gate = read_record(GateReport, run.place("gate") / "gate.json")
    where = [f"{name}: {run.root / file}" for name, file in SHOWN_PAGES]
    return RunVerdict(
        [*with_pack(gate_lines(gate), pack.path), *where, f"release gate: {gate.status}"],
        3 if gate.status == "blocked" else 0,
    )


def run_stages(
    run: RunDir,
    resolved: ResolvedConfig,
    pack: LoadedPack,
    *,
    last: str,
    changes: Mapping[str, str] | None = None,
    mentioned: Collection[str] = (),
    like: RunDir | None = None,
) -> dict[str, Artifact]:
    """Build or reuse every artifact up to the kind `last`; returns them by kind.

    Holds the lock of the run folder. changes: of `changed_settings`, to say why an artifact is
    built again. mentioned: kinds that were printed already; their reuse is not printed.
    like: another run, whose artifacts are taken over where they are the wanted ones.
    """
    run.require_own()
    run.root.mkdir(parents=True, exist_ok=True)
    built: dict[str, Artifact] = {}
    with exclusive(run.lock, f"run folder {run.root}"):
        write_json(run.config, resolved)
        write_json(run.machine, machine_record())
        timings = Journal(run.timings)
        for spec in ARTIFACTS:
            started = time.monotonic()
            artifact, reused = _build(spec, run, resolved.config, pack, built, changes or {}, like)
            built[spec.kind] = artifact
            seconds = time.monotonic() - started
            if not reused:
                say(f"built {spec.kind} {short_digest(artifact.digest)} in {duration(seconds)}")
                timings.append({"stage": spec.kind, "seconds": seconds, "time": time.time()})
            elif spec.kind not in mentioned:
                say(f"reused {spec.kind} {short_digest(artifact.digest)}")
            # After each stage, so that a stopped run has the pages of its finished stages.
            run.write_front_pages()
            if spec.kind == last:
                break
    return built


def _build(
    spec: ArtifactSpec,
    run: RunDir,
    config: RunConfig,
    pack: LoadedPack,
    built: Mapping[str, Artifact],
    changes: Mapping[str, str],
    like: RunDir | None,
) -> tuple[Artifact, bool]:
    """(artifact, whether it was reused). An older artifact with another key is set aside."""
    made_from = {kind: built[kind] for kind in spec.inputs}
    arguments = _arguments(spec, run, config, pack, made_from)
    inputs, key = _inputs_and_key(spec, config, pack, made_from, arguments)
    place = run.place(spec.kind)
    # Hashing every file at every command would read gigabytes, so only files that were touched are
    # hashed here. `run verify` hashes all.
    finished = find_artifact(place, spec.kind, key)
    reused = finished is not None and not _is_damaged(spec, finished)
    if spec.kind == "gate":
        # A gate that is decided now looks through its inputs: its rule `evidence_untouched`.
        _require_whole(built, () if reused else spec.inputs)
    if finished is not None and reused:
        return finished, True
    if (reason := why_again(spec, place, inputs, changes)) is not None:
        say(
            f"{place} was made from something else ({reason}): it is set aside as"
            f" {place.name}.superseded-N"
        )
    if (former := take_back(place, spec.kind, key)) is not None:
        say(f"taking back the {spec.kind} of before, which was set aside")
        return former, True
    if like is not None and (same := _finished_in(like, spec, key)) is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        return adopt(same, place), True
    if not spec.shared:
        return _publish(spec, place, key, inputs, arguments), False
    artifact, reused = _build_shared(spec, key, inputs, arguments)
    place.parent.mkdir(parents=True, exist_ok=True)
    return adopt(artifact, place), reused


def _finished_in(run: RunDir, spec: ArtifactSpec, key: str) -> Artifact | None:
    """The artifact of another run, if it has this key and every byte is as its manifest states."""
    artifact = find_artifact(run.place(spec.kind), spec.kind, key)
    whole = artifact is not None and not changed_files(artifact.place, artifact.manifest)
    return artifact if whole else None


def _is_damaged(spec: ArtifactSpec, artifact: Artifact) -> bool:
    """Whether files were changed since the artifact was published; it is then set aside.

    Raises BadInput for a trained checkpoint: training again may take hours, so a person decides.
    """
    touched = touched_files(artifact)
    if not touched:
        return False
    place = artifact.place
    if spec.kind not in ("base", "sft"):
        where = set_aside(place)
        say(f"{place} is damaged ({_named(touched)}): it is now {where.name}, and made again")
        return True
    extra = [name for name in touched if name not in {*artifact.manifest.listed(), MANIFEST}]
    if extra == touched:
        words = [*(place / name for name in extra), place.parent]
        raise BadInput(
            f"{place} holds files that do not belong to it: {_named(extra)}",
            fix=f"mv {' '.join(quote(str(word)) for word in words)}",
        )
    raise BadInput(
        f"{place} is damaged: {_named(touched)}: not as the manifest states",
        fix=f"restore the files, or {move_away(place)}: the same command trains again",
    )


def _require_whole(built: Mapping[str, Artifact], but: Collection[str]) -> None:
    """Raise BadInput where an artifact was changed; every byte is hashed. but: kinds left out."""
    for kind, artifact in built.items():
        if kind in but:
            continue
        if changed := changed_files(artifact.place, artifact.manifest):
            raise BadInput(
                f"{artifact.place} was changed since it was made: {_named(changed)}",
                fix=(
                    f"{move_away(artifact.place)}: the same command makes {kind} again, and what"
                    " was made from it"
                ),
            )


def _named(files: list[str]) -> str:
    more = f" and {len(files) - MOST_NAMED} more" if len(files) > MOST_NAMED else ""
    return f"{', '.join(files[:MOST_NAMED])}{more}"


def _publish(
    spec: ArtifactSpec, place: Path, key: str, inputs: dict[str, str], arguments: dict[str, Any]
) -> Artifact:
    say(f"building {spec.kind}")
    place.parent.mkdir(parents=True, exist_ok=True)
    with publish(place, spec.kind, key, inputs) as staging:
        if spec.by_all and process_count() > 1:
            call_all(spec.kind, arguments, staging)
        spec.make(**arguments, staging=staging)
    assert staging.artifact is not None
    return staging.artifact


# ---- what decides whether an artifact is reused --------------------------------------------------


def changed_settings(run: RunDir, config: RunConfig) -> dict[str, str]:
    """Settings that differ from those in run.json: key -> `key old -> new`.

    The section `host` is left out, because it changes no result.
    """
    try:
        former = flatten(read_record(ResolvedConfig, run.config).config)
    except BadInput:  # no run yet, or run.json of another version
        return {}
    return {
        key: f"{key} {former[key]} -> {value}"
        for key, value in flatten(config).items()
        if key in former and former[key] != value and not key.startswith("host.")
    }


def why_again(
    spec: ArtifactSpec, place: Path, inputs: Mapping[str, str], changes: Mapping[str, str]
) -> str | None:
    """Why the artifact at `place` has another key than the wanted one; None if there is none."""
    if not (place / MANIFEST).exists():
        return None
    former = open_artifact(place, spec.kind).manifest.inputs
    reasons = [f"another {name}" for name, digest in inputs.items() if former.get(name) != digest]
    read = set(spec.settings) - {"host"}
    reasons += [
        change
        for key, change in changes.items()
        if key.split(".")[0] in read or ("facts" in read and key != "scale")
    ]
    return ", ".join(reasons[:MOST_REASONS]) or OTHER_KEY


def _arguments(
    spec: ArtifactSpec,
    run: RunDir,
    config: RunConfig,
    pack: LoadedPack,
    made_from: Mapping[str, Artifact],
) -> dict[str, Any]:
    """The arguments of the stage's function without the staging folder: see ArtifactSpec."""
    given = {"pack": pack, "track": run.track, "timings": run.timings, "machine": run.machine}
    arguments: dict[str, Any] = {} if "facts" in spec.settings else dict(made_from)
    for name in spec.settings:
        if name == "facts":
            arguments[name] = read_facts(config, made_from)
        elif name == "gpu_hour_usd":
            arguments[name] = config.gate.gpu_hour_usd
        elif name == "benchmark_files":
            arguments[name] = resolve_benchmarks(config.external)
        else:
            arguments[name] = given[name] if name in given else getattr(config, name)
    return arguments


def _inputs_and_key(
    spec: ArtifactSpec,
    config: RunConfig,
    pack: LoadedPack,
    made_from: Mapping[str, Artifact],
    arguments: Mapping[str, Any],
) -> tuple[dict[str, str], str]:
    """(digests of what the artifact is made from, the key that decides whether it is reused).

    The key leaves out what changes no result: the number of processes, how often to save, the price
    of an hour, and where files are.
    """
    inputs = {kind: artifact.digest for kind, artifact in made_from.items()}
    keyed: dict[str, object] = {}
    for name in spec.settings:
        if name == "facts":
            # A verdict may read any setting, but nothing in `host` changes a result.
            keyed["config"] = config.model_dump(mode="json", exclude={"host"})
        elif name == "pack":
            # Two stages read a pack: `rows` its rows and `corpus` its text. New rows must not
            # rebuild the corpus, and new text must not rebuild the rows.
            inputs[name] = pack.rows_digest() if spec.kind == "rows" else pack.content_digest()
            # The corpus does not copy text, it states where its sources are (docs/decisions/0004).
            # So the same pack in another folder needs its own corpus.
            keyed[name] = str(pack.path.resolve()) if spec.kind == "corpus" else None
        elif name == "benchmark_files":
            # A file with other bytes, or one that was unavailable before, is another benchmark.
            if name in arguments:
                keyed[name] = arguments[name].digest()
        elif name not in ("host", "gpu_hour_usd", "track", "timings", "machine"):
            value = getattr(config, name)
            keyed[name] = value if isinstance(value, int) else value.model_dump(mode="json")
    return inputs, artifact_key(keyed, inputs, spec.version)


# ---- the cache -----------------------------------------------------------------------------------


def shared_corpus(config: RunConfig, pack: LoadedPack) -> Artifact:
    """The corpus of a pack in the cache, built if it is not there. A run reuses it."""
    spec = spec_of("corpus")
    inputs, key = _inputs_and_key(spec, config, pack, {}, {})
    arguments = {"pack": pack, "data": config.data, "host": config.host}
    return _build_shared(spec, key, inputs, arguments)[0]


def shared_workspace(request: RunRequest, kind: str) -> Path:
    """The folder where the shared stage `kind` of this run looks for work of other machines.

    Raises BadInput that names the first input of the stage that the run folder does not have.
    """
    run, resolved, pack = open_request(request)
    spec = spec_of(kind)
    assert spec.shared, f"{kind} is not in the cache"
    made_from = {name: run.artifact(name) for name in spec.inputs}
    _, key = _inputs_and_key(spec, resolved.config, pack, made_from, {})
    return open_workspace(shared_place(kind, key), key)


def _build_shared(
    spec: ArtifactSpec, key: str, inputs: dict[str, str], arguments: dict[str, Any]
) -> tuple[Artifact, bool]:
    """(the artifact in the cache, whether it was reused)."""
    shared = shared_place(spec.kind, key)
    # If two runs of one pack start together, the second waits and then reuses the artifact.
    with exclusive(shared.with_suffix(".lock"), f"the shared {spec.kind}", wait=True):
        # Every file is hashed here. Run folders hold hard links to these files, so an edit in one
        # run folder changes them for all.
        finished = find_whole_artifact(shared, spec.kind, key)
        if finished is not None:
            return finished, True
        return _publish(spec, shared, key, inputs, arguments), False


def shared_place(kind: str, key: str) -> Path:
    return cache_folder() / kind / key[:32]
