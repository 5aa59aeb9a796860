"""Writes the evidence bundle: one .tgz of a run that anyone can check offline.

It is checked with `sha256sum -c SHA256SUMS` or `run verify`.

It holds the configuration with origins, the machine record, every artifact with its manifest, the
front pages and the logs. Token shards and the state to replay from stay out unless asked for: their
sidecars and digests are in. The same run folder gives the same bytes. A run with a blocked verdict
is bundled like any other. Does not sign, and does not upload.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

from picochat.core.errors import BadInput, HostProblem, Problem, WrongUsage
from picochat.core.progress import Progress
from picochat.core.publish import MANIFEST, Artifact, FileDigest, is_junk
from picochat.core.records import Record, pretty_json
from picochat.facts import REPLAY_FOLDER, CorpusFacts, GateFacts, PreflightFacts, facts_of
from picochat.present.printable import printable_line
from picochat.present.values import byte_quantity, short_digest
from picochat.release.archive import Member, is_plain_name, write_archive
from picochat.release.integrity import (
    artifacts_of,
    chain_problems,
    digest_of,
    digest_tree,
    evidence_digest,
    front_page_problems,
    manifest_problems,
)
from picochat.release.leaks import is_packed, leaks_in_file
from picochat.run.folder import RunDir
from picochat.run.graph import ARTIFACTS, ArtifactSpec

BUNDLE_SCHEMA_VERSION = 1
SUMS, CONTENTS, LOGS = "SHA256SUMS", "bundle.json", "logs/"
PLACEHOLDER = re.compile(f"NNNNN|LABEL|^{REPLAY_FOLDER}/")
"""A placeholder in the list of files of an artifact's spec.

It stands for as many files as there are shards, sources or states to replay from, which may be 0.
"""
NAMED_IN_A_LOG = re.compile(rb"\b(?:built|reused) (\w+) ([0-9a-f]{12})\b")
"""What a run prints of each artifact (run/runner.py)."""


class ArtifactEntry(Record):
    folder: str
    digest: str


class LeftOut(Record):
    """A file that a manifest lists and the bundle does not hold, and why."""

    sha256: str
    reason: str


class BundleContents(Record):
    """bundle.json: what the bundle holds, what it leaves out, and what the run lacked.

    What is left out is left out on purpose.
    """

    schema_version: int
    evidence_digest: str
    verdict: str
    strict: bool
    artifacts: dict[str, ArtifactEntry]
    volatile_files: list[str]
    left_out: dict[str, LeftOut]
    missing: list[str]


@dataclass(frozen=True)
class BundleReport:
    path: Path
    size_bytes: int
    sha256: str
    files: int
    contents: BundleContents
    problems: tuple[Problem, ...] = field(default=())

    def lines(self) -> list[str]:
        """What was written, for the terminal."""
        lines = [
            (
                f"bundle {self.path}: {self.files} files, {byte_quantity(self.size_bytes)}, verdict"
                f" {self.contents.verdict}"
            ),
            f"sha256 {self.sha256}",
            f"evidence digest {self.contents.evidence_digest}",
        ]
        lines += [
            f"left out: {name} ({entry.reason})" for name, entry in self.contents.left_out.items()
        ]
        for problem in self.problems:
            lines.append(f"missing: {problem.what}")
            lines += [f"    fix: {problem.fix}"] if problem.fix else []
        return lines


def make_bundle(
    run: RunDir,
    out: Path,
    logs_dir: Path | None,
    strict: bool,
    *,
    include_weights: bool = True,
    include_token_shards: bool = False,
    include_replay: bool = False,
) -> BundleReport:
    """Write the bundle of a run to `out`, whole or not at all.

    strict: refuse a run that lacks something or whose files changed, naming every such thing
    (BadInput). Without it the bundle holds what is there and states what is missing. Raises
    BadInput for a link, and for a token, key or password in any file, always.
    """
    _check_places(run, out, logs_dir)
    artifacts, problems = artifacts_of(run)
    left_out = _left_out(artifacts, include_weights, include_token_shards, include_replay)
    found = digest_tree(run.root)
    problems += missing_evidence(run, artifacts, logs_dir, out)
    problems += [
        p
        for spec in ARTIFACTS
        if spec.kind in artifacts
        for p in manifest_problems(spec, artifacts[spec.kind], found, {})
    ]
    problems += [*chain_problems(artifacts), *front_page_problems(found)]
    if strict and problems:
        raise BadInput(
            f"{run.root} is no complete evidence for a strict bundle",
            problems=problems,
            fix=STRICT_FIX,
        )
    contents = _contents(run, artifacts, left_out, strict, problems)
    members = _members(run, found, artifacts, left_out, logs_dir, out)
    _refuse_names(members)
    _refuse_links(run, members, logs_dir)
    _refuse_secrets(members)
    members = _with_contents(members, contents)
    try:
        sha256 = write_archive(out, run.root.resolve().name, members)
    except OSError as error:
        raise HostProblem(
            f"cannot write {out}: {error.strerror or error}",
            fix="free some space or choose another --out",
        ) from None
    return BundleReport(out, out.stat().st_size, sha256, len(members), contents, tuple(problems))


STRICT_FIX = (
    "fix what is named, or bundle what is there without --strict: the bundle then states what is"
    " missing"
)


def missing_evidence(
    run: RunDir, artifacts: dict[str, Artifact], logs_dir: Path | None, out: Path
) -> list[Problem]:
    """The evidence that a strict bundle needs and this run lacks.

    Each problem names what makes the missing piece.
    """
    problems: list[Problem] = []
    for spec in ARTIFACTS:
        if spec.kind not in artifacts:
            problems.append(
                Problem(f"{spec.folder}/: the {spec.kind} artifact is missing", fix=run.again)
            )
        else:
            problems += [
                Problem(f"{spec.folder}/{name}: is missing", fix=run.again)
                for name in _unlisted(spec, artifacts[spec.kind])
            ]
    problems += _missing_import_reports(artifacts.get("corpus"))
    problems += _machine_gaps(run)
    logs = [] if logs_dir is None else [path for _, path in _log_files(logs_dir, out)]
    problems += _logs_of_another_run(run, logs, artifacts)
    if not logs:
        problems.append(
            Problem(
                "logs/: no log was given",
                fix=(
                    "give a folder of logs with --logs-dir; the command of the run says again what"
                    " it did: 2>&1 | tee logs/run.log"
                ),
            )
        )
    return problems


def _unlisted(spec: ArtifactSpec, artifact: Artifact) -> list[str]:
    """Files that the spec names in full and the manifest does not list.

    Names with NNNNN or LABEL stand for many files and are not looked for.
    """
    listed = {*artifact.manifest.files, *artifact.manifest.volatile_files}
    promised = [name.rstrip(",") for name in spec.files.split()]
    return [
        name
        for name in promised
        if "." in name[1:] and not PLACEHOLDER.search(name) and name not in listed
    ]


def _missing_import_reports(corpus: Artifact | None) -> list[Problem]:
    if corpus is None:
        return []
    hub = [source.label for source in facts_of(corpus, CorpusFacts).sources if source.kind == "hub"]
    lacking = [
        label for label in hub if f"import_reports/{label}.json" not in corpus.manifest.files
    ]
    return [
        Problem(
            f"import report of {label}: is missing",
            fix="import the source again with --force, then repeat the command of the run",
        )
        for label in lacking
    ]


def _logs_of_another_run(
    run: RunDir, logs: list[Path], artifacts: dict[str, Artifact]
) -> list[Problem]:
    """Kinds of artifacts that the logs name and of which none that they name is this run's.

    The logs of one run can name several of a kind: a dry run's, or those of earlier settings.
    """
    named: dict[str, set[str]] = defaultdict(set)
    for path in logs:
        for kind, digest in NAMED_IN_A_LOG.findall(path.read_bytes()):
            named[kind.decode()].add(digest.decode())
    others = [
        f"{kind} {', '.join(sorted(digests)[:3])} and not {short_digest(artifacts[kind].digest)}"
        for kind, digests in named.items()
        if kind in artifacts and short_digest(artifacts[kind].digest) not in digests
    ]
    return (
        [
            Problem(
                f"logs/: are of another run: they name {'; '.join(others[:3])}",
                fix=(
                    "give a folder with the logs of this run; its command says again what it did:"
                    f" {run.command}"
                ),
            )
        ]
        if others
        else []
    )


def _machine_gaps(run: RunDir) -> list[Problem]:
    machine = run.machine_record()
    if machine is None:
        return [Problem("machine.json: is missing", fix=run.again)]
    if not machine.commit and not machine.versions.get("picochat"):
        return [
            Problem(
                "machine.json: states neither commit nor version of the code",
                fix="install picochat, then repeat the command of the run",
            )
        ]
    return []


def _check_places(run: RunDir, out: Path, logs_dir: Path | None) -> None:
    if not run.config.exists():
        raise BadInput(
            f"{run.root} is not a run folder: it has no run.json",
            fix="name the --out-dir of a `picochat run tiny`",
        )
    if out.is_dir():
        raise WrongUsage(
            f"--out {out} is a folder", fix=f"--out {quote(str(out / 'evidence.tgz'))}"
        )
    if inside := run.place_around(out):
        raise WrongUsage(
            f"--out {out} lies inside the artifact {inside}/",
            fix=f"--out {quote(f'{run.root.name}.tgz')}",
        )
    if logs_dir is not None and not logs_dir.is_dir():
        state = "is a file" if logs_dir.exists() else "does not exist"
        raise BadInput(
            f"logs folder {logs_dir} {state}",
            fix="name the folder of the logs, or leave --logs-dir out",
        )


def _left_out(
    artifacts: dict[str, Artifact],
    include_weights: bool,
    include_token_shards: bool,
    include_replay: bool,
) -> dict[str, LeftOut]:
    """Listed files that stay out, by their path, with digest and reason.

    With the digest the manifest can still be checked.
    """
    folders = {spec.kind: spec.folder for spec in ARTIFACTS}
    chosen: dict[str, LeftOut] = {}
    for kind, artifact in artifacts.items():
        for name, digest in {**artifact.manifest.files, **artifact.manifest.volatile_files}.items():
            reason = reason_to_leave_out(
                kind, name, include_weights, include_token_shards, include_replay
            )
            if reason:
                chosen[f"{folders[kind]}/{name}"] = LeftOut(sha256=digest.sha256, reason=reason)
    return dict(sorted(chosen.items()))


def reason_to_leave_out(
    kind: str, name: str, include_weights: bool, include_token_shards: bool, include_replay: bool
) -> str | None:
    """Why a listed file may stay out; None for everything else, which verification insists on."""
    if kind == "shards" and name.endswith(".bin") and not include_token_shards:
        return (
            "token shards are large and follow from corpus and tokenizer; --include-token-shards"
            " adds them"
        )
    if kind == "exercises" and name.endswith(".zst") and not include_token_shards:
        return (
            "exercises follow from corpus and seed, and sample.txt shows it; --include-token-shards"
            " adds them"
        )
    if name.startswith(f"{REPLAY_FOLDER}/"):
        large = name.endswith(".safetensors") and not include_replay
        return (
            "the state that `run verify --replay` starts from is large; --include-replay adds it"
            if large
            else None
        )
    if name.endswith(".safetensors") and not include_weights:
        return "weights were left out with --no-include-weights"
    if kind == "benchmarks" and name.startswith("rows/"):
        return "the texts of a benchmark are other people's; items.jsonl has the digest of each"
    if kind == "corpus" and name == "location.json":
        return "it names folders of the machine that made the run"
    return None


def _contents(
    run: RunDir,
    artifacts: dict[str, Artifact],
    left_out: dict[str, LeftOut],
    strict: bool,
    problems: list[Problem],
) -> BundleContents:
    folders = {spec.kind: spec.folder for spec in ARTIFACTS}
    volatile_files = [
        f"{folders[kind]}/{name}"
        for kind, found in artifacts.items()
        for name in found.manifest.volatile_files
    ]
    return BundleContents(
        schema_version=BUNDLE_SCHEMA_VERSION,
        evidence_digest=evidence_digest(run, artifacts),
        verdict=verdict_of(artifacts),
        strict=strict,
        artifacts={
            kind: ArtifactEntry(folder=folders[kind], digest=found.digest)
            for kind, found in artifacts.items()
        },
        volatile_files=sorted(volatile_files),
        left_out=left_out,
        missing=[problem.what.replace(f"{run.root}/", "") for problem in problems],
    )


def verdict_of(artifacts: dict[str, Artifact]) -> str:
    """The gate's status; for a run that stopped before, what its preflight said."""
    if "gate" in artifacts:
        return facts_of(artifacts["gate"], GateFacts).status
    if (
        "preflight" in artifacts
        and facts_of(artifacts["preflight"], PreflightFacts).status == "blocked"
    ):
        return "blocked by the preflight"
    return "unfinished"


def _members(
    run: RunDir,
    found: dict[str, FileDigest],
    artifacts: dict[str, Artifact],
    left_out: dict[str, LeftOut],
    logs_dir: Path | None,
    out: Path,
) -> list[Member]:
    """The files of the bundle: what manifests list, the manifests, the front pages and the logs."""
    listed = {
        f"{spec.folder}/{name}"
        for spec in ARTIFACTS
        if spec.kind in artifacts
        for name in _listed(artifacts[spec.kind])
    }
    folders = tuple(f"{spec.folder}/" for spec in ARTIFACTS)
    chosen = [name for name in found if name in listed or not name.startswith(folders)]
    members = [
        Member(name, run.root / name, found[name]) for name in chosen if name not in left_out
    ]
    logs = list(_log_files(logs_dir, out)) if logs_dir else []
    return members + [Member(f"{LOGS}{name}", path, digest_of(path)) for name, path in logs]


def _listed(artifact: Artifact) -> list[str]:
    return [*artifact.manifest.files, *artifact.manifest.volatile_files, MANIFEST]


def _log_files(logs_dir: Path, out: Path) -> Iterator[tuple[str, Path]]:
    """(name, path) of each log, sorted.

    Logs are plain files that are not hidden and not bundles.
    """
    for path in sorted(logs_dir.rglob("*")):
        name = path.relative_to(logs_dir).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        if (
            path.is_file()
            and not hidden
            and not is_junk(path.relative_to(logs_dir))
            and path.suffix != ".tgz"
            and path.resolve() != out.resolve()
        ):
            yield name, path


def _with_contents(members: list[Member], contents: BundleContents) -> list[Member]:
    """The members with bundle.json and, over everything else, SHA256SUMS."""
    whole = sorted(
        [*members, Member.of_bytes(CONTENTS, pretty_json(contents))], key=lambda member: member.name
    )
    sums = "".join(f"{member.digest.sha256}  {member.name}\n" for member in whole)
    return sorted([*whole, Member.of_bytes(SUMS, sums.encode())], key=lambda member: member.name)


def _refuse_names(members: list[Member]) -> None:
    """Raise BadInput where a file, such as a log, has a name that no reader of a bundle accepts."""
    wrong = [
        Problem(f"{member.name!r} has a control character or a backslash")
        for member in members
        if not is_plain_name(member.name)
    ]
    if wrong:
        raise BadInput("a bundle holds plain names alone", problems=wrong, fix="rename these files")


def _refuse_links(run: RunDir, members: list[Member], logs_dir: Path | None) -> None:
    """Raise BadInput for a link: it could name any file of this machine."""
    linked = [
        path
        for member in members
        if isinstance(member.source, Path)
        for path in (member.source, *member.source.parents)
        if path.is_symlink() and path.is_relative_to(run.root) and path != run.root
    ]
    if logs_dir is not None:
        linked += [path for path in logs_dir.rglob("*") if path.is_symlink()]
    if linked:
        raise BadInput(
            "a bundle holds no links",
            problems=[
                Problem(f"{path} is a link", fix="put the file in its place, or remove the link")
                for path in sorted(set(linked))
            ],
        )


def _refuse_secrets(members: list[Member]) -> None:
    """Raise BadInput where a file or its name holds a token, key or password (leaks.py)."""
    leaks: list[Problem] = []
    with Progress(
        "looking for secrets", sum(member.digest.bytes for member in members), "B"
    ) as progress:
        for member in members:
            if isinstance(member.source, Path):
                is_log = member.name.startswith(LOGS)
                leaks += [
                    Problem(
                        f"{printable_line(member.name)}: holds {what}",
                        fix=f"remove it from {member.source}, and revoke it",
                    )
                    for what in leaks_in_file(member.source, member.name, is_log=is_log)
                ]
                if is_log and is_packed(member.source):
                    leaks.append(
                        Problem(
                            f"{member.name}: is compressed, so that nobody sees what it holds",
                            fix=f"unpack {member.source}, or take it out of the folder of logs",
                        )
                    )
            progress.advance(member.digest.bytes)
    if leaks:
        raise BadInput("a bundle never holds a secret", problems=leaks)
