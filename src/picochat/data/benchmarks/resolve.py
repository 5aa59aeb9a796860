"""Get external benchmarks from the Hub (`auto` and names) or from local files (`NAME=PATH`).

A benchmark of the Hub is fetched once. It stays in the cache as an artifact with revision, licence
and digests. One that cannot be fetched is reported as missing; the preflight judges that, and the
next run tries again. A local file that cannot be used raises BadInput.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from picochat.config import ExternalConfig
from picochat.core.errors import BadInput, HubProblem, Problem, WrongUsage
from picochat.core.machine import cache_folder
from picochat.core.progress import say
from picochat.core.publish import Artifact, artifact_key, exclusive, find_whole_artifact, publish
from picochat.core.records import Record, digest_bytes, digest_file, digest_json, parse_record
from picochat.data.benchmarks.layouts import LABELS, BenchmarkFile, read_benchmark
from picochat.data.importing.dataset_source import DatasetSource, open_hub_source
from picochat.data.importing.hub import Hub, RetryPolicy

AUTO = "auto"
# Fewer and shorter attempts than for an import, because a run can go on without a benchmark.
RETRY = RetryPolicy(timeout_s=15.0, first_attempts=2)


@dataclass(frozen=True)
class Known:
    """A benchmark of the Hub, with the split for which figures are published."""

    name: str
    dataset: str
    config: str | None
    split: str


KNOWN = {
    known.name: known
    for known in (
        Known("arc_easy", "allenai/ai2_arc", "ARC-Easy", "test"),
        Known("hellaswag", "Rowan/hellaswag", None, "validation"),
        Known("piqa", "ybisk/piqa", None, "validation"),
    )
}


class Fetched(Record):
    """The facts of a benchmark in the cache. `files`: names on the Hub, in the cache's order."""

    dataset: str
    config: str | None
    split: str
    revision: str
    licence: str | None
    files: list[str]


@dataclass(frozen=True)
class Resolved:
    """One benchmark whose files are on this machine. `fetched`: None for a local file."""

    name: str
    files: tuple[BenchmarkFile, ...]
    fetched: Fetched | None


@dataclass(frozen=True)
class Resolution:
    """The benchmarks that were found. `missing`: name -> why it could not be fetched."""

    found: tuple[Resolved, ...]
    missing: Mapping[str, str]

    def digest(self) -> str:
        """A digest of the files' bytes and of what is missing, without paths and reasons."""
        found = [(r.name, [(file.name, file.sha256) for file in r.files]) for r in self.found]
        return digest_json([found, sorted(self.missing)])


def resolve_benchmarks(external: ExternalConfig) -> Resolution:
    """Every benchmark that the configuration names, fetched if the cache lacks it.

    A file replaces a known benchmark of its name. Raises WrongUsage for an unknown name, BadInput
    for a local file that is absent or holds no item.
    """
    found: list[Resolved] = []
    missing: dict[str, str] = {}
    for name, path in wanted_benchmarks(external).items():
        if path is not None:
            found.append(local_benchmark(name, path))
            continue
        try:
            found.append(hub_benchmark(KNOWN[name]))
        except (HubProblem, BadInput) as error:
            missing[name] = error.in_one_line()
            say(f"external benchmark {name} is not here: {missing[name]}")
    return Resolution(tuple(found), missing)


def require_benchmarks(external: ExternalConfig) -> Resolution:
    """As `resolve_benchmarks`; raises HubProblem with each benchmark that cannot be fetched."""
    resolution = resolve_benchmarks(external)
    if resolution.missing:
        problems = [
            Problem(f"{name}: {reason}") for name, reason in sorted(resolution.missing.items())
        ]
        raise HubProblem(
            "external benchmarks could not be had",
            problems=problems,
            fix="the same command with a network, or --external-eval NAME=PATH of a file",
        )
    return resolution


def wanted_benchmarks(external: ExternalConfig) -> dict[str, Path | None]:
    """Name -> path of a local file, or None for the Hub, sorted by name.

    Raises WrongUsage for an unknown name.
    """
    wanted: dict[str, Path | None] = {}
    for text in external.benchmarks or ():
        name, given, path = text.partition("=")
        if name == AUTO and not given:
            wanted = {**dict.fromkeys(KNOWN), **wanted}
        elif given:
            wanted[name] = Path(path).expanduser()
        elif name in KNOWN:
            wanted.setdefault(name, None)
        else:
            raise WrongUsage(
                f"--external-eval {text}: no benchmark of that name",
                fix=f"auto, none, NAME=PATH, or one of: {', '.join(KNOWN)}",
            )
    return dict(sorted(wanted.items()))


def check_local(external: ExternalConfig) -> None:
    """Raise the errors of `resolve_benchmarks` about names and local files, without the Hub."""
    for name, path in wanted_benchmarks(external).items():
        if path is not None:
            local_benchmark(name, path)


# ---- local files ---------------------------------------------------------------------------------


def local_benchmark(name: str, path: Path) -> Resolved:
    """The file as a benchmark, with the file of labels beside it if there is one.

    Raises BadInput if the file is absent or holds no item.
    """
    if not path.is_file():
        raise BadInput(
            f"--external-eval {name}={path}: there is no such file",
            fix="NAME=PATH of a .jsonl or .parquet file",
        )
    # PIQA is published as `valid.jsonl` and `valid-labels.lst`.
    labels = path.with_name(path.name.partition(".")[0] + LABELS)
    paths = [path, labels] if labels.is_file() else [path]
    files = tuple(BenchmarkFile(each.name, each, digest_file(each)) for each in paths)
    read_benchmark(name, files)
    return Resolved(name, files, None)


# ---- the Hub -------------------------------------------------------------------------------------


def hub_benchmark(known: Known) -> Resolved:
    """The benchmark from the cache; fetched first if the cache lacks a complete one.

    Raises HubProblem or BadInput.
    """
    key = artifact_key(
        {"dataset": known.dataset, "config": known.config, "split": known.split}, {}, 1
    )
    place = cache_folder() / "benchmarks" / f"{known.name}-{key[:12]}"
    with exclusive(place.with_suffix(".lock"), f"the benchmark {known.name}", wait=True):
        standing = find_whole_artifact(place, "benchmark", key) or _fetch(known, place, key)
    fetched = parse_record(Fetched, standing.facts, f"facts of {standing.place}")
    files: list[BenchmarkFile] = []
    for number, name in enumerate(fetched.files):
        cached = _cached_name(number, name)
        sha256 = standing.manifest.files[cached].sha256
        files.append(BenchmarkFile(name, standing.path(cached), sha256))
    return Resolved(known.name, tuple(files), fetched)


def _cached_name(number: int, name: str) -> str:
    # Numbered, because a split may have files of the same name in two folders.
    return f"{number:03d}-{name.rpartition('/')[2]}"


def _fetch(known: Known, place: Path, key: str) -> Artifact:
    """Publish all files of the split, at the newest commit, as the artifact of the benchmark."""
    say(f"fetching external benchmark {known.name} ({known.dataset})")
    source = open_hub_source(Hub(RETRY), known.dataset, known.config, known.split, None)
    assert source.revision is not None, "a dataset of the Hub has a commit"
    files: list[BenchmarkFile] = []
    with publish(place, "benchmark", key, {}) as staging:
        for number, file in enumerate(source.files):
            path = staging.path(_cached_name(number, file.name))
            path.write_bytes(_bytes_of(source, number))
            files.append(BenchmarkFile(file.name, path, ""))
        # Raises before publishing, so a dataset that cannot be scored is not kept in the cache.
        read_benchmark(known.name, files)
        facts = Fetched(
            dataset=known.dataset,
            config=known.config,
            split=known.split,
            revision=source.revision,
            licence=source.licence,
            files=[file.name for file in source.files],
        )
        staging.facts = facts.model_dump(mode="json")
    assert staging.artifact is not None
    return staging.artifact


def _bytes_of(source: DatasetSource, number: int) -> bytes:
    with source.open_file(number) as stream:
        data = stream.read()
    stated = source.files[number].digest or ""
    if stated.startswith("sha256:") and stated != f"sha256:{digest_bytes(data)}":
        raise HubProblem(
            f"{source.files[number].name} of {source.dataset} came with other bytes than the Hub"
            " states"
        )
    return data
