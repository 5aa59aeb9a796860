"""Where external benchmarks come from: the Hub (`auto` and names), or a local file (`NAME=PATH`).

A benchmark of the Hub is fetched once and pinned: it stays in the cache, as an artifact with
revision, licence and digests. One that cannot be had is named with its reason and stops nothing
here: the preflight judges it, and the next run asks again. A local file that cannot be used is the
user's own, and BadInput. Files are read in layouts.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from picochat.config import ExternalConfig
from picochat.core.errors import BadInput, HubProblem, WrongUsage
from picochat.core.machine import cache_folder
from picochat.core.progress import say
from picochat.core.publish import Artifact, artifact_key, exclusive, find_whole_artifact, publish
from picochat.core.records import Record, digest_bytes, digest_file, digest_json, parse_record
from picochat.data.benchmarks.layouts import BenchmarkFile, read_benchmark
from picochat.data.importing.dataset_source import DatasetSource, open_hub_source
from picochat.data.importing.hub import Hub, RetryPolicy

AUTO = "auto"
# Less patient than an import: three benchmarks are asked for, and a run goes on without them.
RETRY = RetryPolicy(timeout_s=15.0, first_attempts=2)


@dataclass(frozen=True)
class Known:
    """A benchmark that is fetched by its name, from the split that figures are published of."""

    name: str
    dataset: str
    config: str | None
    split: str


KNOWN: tuple[Known, ...] = (
    Known("arc_easy", "allenai/ai2_arc", "ARC-Easy", "test"),
    Known("hellaswag", "Rowan/hellaswag", None, "validation"),
    Known("piqa", "ybisk/piqa", None, "validation"),
)


class Fetched(Record):
    """The facts of a benchmark in the cache.

    files: names on the Hub, in the order in which the cache numbers them.
    """

    dataset: str
    config: str | None
    split: str
    revision: str
    licence: str | None
    files: list[str]


@dataclass(frozen=True)
class Resolved:
    """One benchmark whose files are here. `fetched` is None for a local file."""

    name: str
    files: tuple[BenchmarkFile, ...]
    fetched: Fetched | None


@dataclass(frozen=True)
class Resolution:
    """The benchmarks that are here, and those that were asked for and are not: name -> reason."""

    found: tuple[Resolved, ...]
    missing: Mapping[str, str]

    def digest(self) -> str:
        """Changes with any file's bytes, and when a missing benchmark is found.

        Does not change with the reason or the path.
        """
        found = [(r.name, [(file.name, file.sha256) for file in r.files]) for r in self.found]
        return digest_json([found, sorted(self.missing)])


def resolve_benchmarks(external: ExternalConfig) -> Resolution:
    """Every benchmark that the configuration names, fetched where the cache lacks it.

    A file replaces a known benchmark of its name. Raises WrongUsage for a name that is not known,
    BadInput for a local file that is absent or holds no item. What the Hub does not give is in
    `missing`.
    """
    found: list[Resolved] = []
    missing: dict[str, str] = {}
    for name, path in wanted_benchmarks(external).items():
        if path is not None:
            found.append(local_benchmark(name, path))
            continue
        try:
            found.append(hub_benchmark(next(known for known in KNOWN if known.name == name)))
        except (HubProblem, BadInput) as error:
            missing[name] = "; fix: ".join(part for part in (error.what, error.fix) if part)
            say(f"external benchmark {name} is not here: {missing[name]}")
    return Resolution(tuple(found), missing)


def wanted_benchmarks(external: ExternalConfig) -> dict[str, Path | None]:
    """Name -> path of a local file, or None for one of the Hub, sorted by name.

    Raises WrongUsage for a name that is not known.
    """
    wanted: dict[str, Path | None] = {}
    for text in external.benchmarks or ():
        name, given, path = text.partition("=")
        if name == AUTO and not given:
            wanted = {**{known.name: None for known in KNOWN}, **wanted}
        elif given:
            wanted[name] = Path(path).expanduser()
        elif name in {known.name for known in KNOWN}:
            wanted.setdefault(name, None)
        else:
            names = ", ".join(known.name for known in KNOWN)
            raise WrongUsage(
                f"--external-eval {text}: no benchmark of that name",
                fix=f"auto, none, NAME=PATH, or one of: {names}",
            )
    return dict(sorted(wanted.items()))


def check_local(external: ExternalConfig) -> None:
    """Raise what `resolve_benchmarks` will raise about local files, without asking the Hub."""
    for name, path in wanted_benchmarks(external).items():
        if path is not None:
            local_benchmark(name, path)


# ---- local files ---------------------------------------------------------------------------------


def local_benchmark(name: str, path: Path) -> Resolved:
    """The file as a benchmark, with the file of labels beside it where there is one.

    Raises BadInput where it cannot be one.
    """
    if not path.is_file():
        raise BadInput(
            f"--external-eval {name}={path}: there is no such file",
            fix="NAME=PATH of a .jsonl or .parquet file",
        )
    labels = labels_beside(path)
    files = [
        BenchmarkFile(found.name, found, digest_file(found))
        for found in (path, *([labels] if labels else []))
    ]
    read_benchmark(name, files)
    return Resolved(name, tuple(files), None)


def labels_beside(path: Path) -> Path | None:
    """`valid-labels.lst` of `valid.jsonl`, as PIQA is published; None where there is none."""
    beside = path.with_name(f"{path.name.partition('.')[0]}-labels.lst")
    return beside if beside.is_file() else None


# ---- the Hub -------------------------------------------------------------------------------------


def hub_benchmark(known: Known) -> Resolved:
    """The benchmark from the cache, fetched now where it is not there whole.

    Raises HubProblem or BadInput.
    """
    key = artifact_key(
        {"dataset": known.dataset, "config": known.config, "split": known.split}, {}, 1
    )
    place = cache_folder() / "benchmarks" / f"{known.name}-{key[:12]}"
    with exclusive(place.with_suffix(".lock"), f"the benchmark {known.name}", wait=True):
        standing = find_whole_artifact(place, "benchmark", key) or _fetch(known, place, key)
    fetched = parse_record(Fetched, standing.facts, f"facts of {standing.place}")
    names = [cached_name(number, name) for number, name in enumerate(fetched.files)]
    digests = standing.manifest.files
    files = [
        BenchmarkFile(name, standing.path(cached), digests[cached].sha256)
        for name, cached in zip(fetched.files, names, strict=True)
    ]
    return Resolved(known.name, tuple(files), fetched)


def cached_name(number: int, name: str) -> str:
    """The file's name in the cache, numbered: a split may have one name in two folders."""
    return f"{number:03d}-{name.rpartition('/')[2]}"


def _fetch(known: Known, place: Path, key: str) -> Artifact:
    """All files of the split at the present commit, with the digests that the Hub states."""
    say(f"fetching external benchmark {known.name} ({known.dataset})")
    source = open_hub_source(Hub(RETRY), known.dataset, known.config, known.split, None)
    assert source.revision is not None, "a dataset of the Hub has a commit"
    files: list[BenchmarkFile] = []
    with publish(place, "benchmark", key, {}) as staging:
        for number, file in enumerate(source.files):
            path = staging.path(cached_name(number, file.name))
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
