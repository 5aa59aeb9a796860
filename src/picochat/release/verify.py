"""Checks a bundle or a run folder offline: its digests, its chain and its claims.

Claims are computed again: files give the facts, replies the scores, facts both verdicts, and the
artifacts every page of the summary.

Does not see whether the replies came from those weights (release/ask.py asks them), nor a bundle
that was made up as a whole, consistently. For that, compare the evidence digest with one that was
published elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import cast

from picochat.config import ResolvedConfig, RunConfig
from picochat.core.errors import BadInput, CheckFailed, PicochatError, Problem, WrongUsage
from picochat.core.machine import MachineRecord, picochat_version
from picochat.core.publish import Artifact, FileDigest, is_held
from picochat.core.records import pretty_json, read_json, read_record, to_jsonable
from picochat.facts import GateFacts, PreflightFacts, facts_of
from picochat.gate.preflight import decide_preflight, preflight_facts
from picochat.gate.release import decide_release, gate_facts
from picochat.gate.render import gate_page, preflight_page
from picochat.present.printable import printable_line
from picochat.release.archive import Opened
from picochat.release.bundle import (
    BUNDLE_SCHEMA_VERSION,
    CONTENTS,
    LOGS,
    SUMS,
    ArtifactEntry,
    BundleContents,
    missing_evidence,
    reason_to_leave_out,
    verdict_of,
)
from picochat.release.compare import compared, differences
from picochat.release.cross_checks import CROSS_CHECKS, CrossCheck, facts_given_to, facts_problems
from picochat.release.integrity import (
    Found,
    artifacts_of,
    chain_problems,
    digest_tree,
    evidence_digest,
    front_page_problems,
    manifest_problems,
    stray_problems,
)
from picochat.release.stated_files import opened_bundle
from picochat.report.summary import rendered
from picochat.run.folder import RunDir
from picochat.run.graph import ARTIFACTS, FRONT_PAGES, ArtifactSpec, read_facts, spec_of


@dataclass(frozen=True)
class VerifyCheck:
    """One kind of check: how many things it compared, what differed, and a note.

    notes: differences within the allowed number, one a line. figures: what was measured, for
    `--json`.
    """

    name: str
    compared: int
    problems: tuple[Problem, ...] = ()
    note: str | None = None
    notes: tuple[str, ...] = ()
    figures: Mapping[str, object] | None = None


@dataclass(frozen=True)
class VerifyReport:
    """What was compared and what differs.

    `missing`: evidence that the run lacked; `left_out`: files the bundle does not hold. `made_by`:
    the version of picochat that made the run, by its own word.
    """

    path: Path
    verdict: str
    profile: str | None
    evidence_digest: str | None
    missing: tuple[str, ...]
    left_out: tuple[str, ...]
    checks: tuple[VerifyCheck, ...]
    made_by: str | None = None

    @property
    def problems(self) -> list[Problem]:
        return [problem for check in self.checks for problem in check.problems]

    @property
    def exit_code(self) -> int:
        """0 where nothing differs, else that of CheckFailed."""
        return CheckFailed.exit_code if self.problems else 0

    def other_version(self) -> Problem | None:
        """That another version made what differs here, and how to verify it with that version.

        It explains differences and takes none of them back: a forger can name any version.
        """
        here = picochat_version()
        if not self.problems or self.made_by is None or self.made_by == here:
            return None
        return Problem(
            f"it states that picochat {self.made_by} made it, and this is {here}: what differs can"
            " be the version's or forged",
            fix=_verify_with(self.made_by, self.path),
        )

    def lines(self) -> list[str]:
        """What was compared, every difference, and what the bundle claims, for the terminal."""
        count = len(self.problems)
        answer = (
            f"{count} differences: it does not hold what it claims" if count else "nothing differs"
        )
        profile = f" (profile {self.profile})" if self.profile else ""
        other = self.other_version()
        lines = [
            f"{self.path}: {answer};"
            f" the verdict it states is {printable_line(self.verdict)}{profile}",
            *([f"    {printable_line(other.what)}", f"    fix: {other.fix}"] if other else []),
        ]
        for check in self.checks:
            lines.append(
                f"    {check.name}: {check.compared} compared"
                + (f", {len(check.problems)} differ" if check.problems else "")
                + (f": {check.note}" if check.note else "")
            )
            lines += [f"        {printable_line(problem.what)}" for problem in check.problems]
            lines += [f"        within the bound: {printable_line(what)}" for what in check.notes]
        lines += [f"    the run itself lacked: {printable_line(what)}" for what in self.missing]
        lines += [f"    left out of the bundle: {printable_line(name)}" for name in self.left_out]
        return [*lines, f"fix: {DIFFERS_FIX}" if count else evidence_line(self.evidence_digest)]

    def to_json(self) -> dict[str, object]:
        """The report as one JSON object."""
        return {
            "schema_version": 1,
            "path": str(self.path),
            "holds": not self.problems,
            "verdict": self.verdict,
            "profile": self.profile,
            "evidence_digest": self.evidence_digest,
            "made_by": self.made_by,
            "verified_by": picochat_version(),
            "missing": list(self.missing),
            "left_out": list(self.left_out),
            "checks": [
                {
                    "name": check.name,
                    "compared": check.compared,
                    "differences": [problem.what for problem in check.problems],
                    "note": check.note,
                    **(
                        {"notes": list(check.notes), "figures": dict(check.figures)}
                        if check.figures is not None
                        else {}
                    ),
                }
                for check in self.checks
            ],
        }


def evidence_line(digest: str | None) -> str:
    """The line that states an evidence digest. A signature is of this line (signature.py)."""
    return f"evidence digest {digest}"


Specs = tuple[ArtifactSpec, ...]
CrossChecks = Mapping[str, CrossCheck]


def verify_bundle(
    path: Path, *, specs: Specs = ARTIFACTS, cross_checks: CrossChecks = CROSS_CHECKS
) -> VerifyReport:
    """The report of a bundle (.tgz) or run folder in which nothing differs.

    Raises CheckFailed that lists every file and claim that differs, and BadInput for what is no
    bundle at all.
    """
    return holding(inspect_bundle(path, specs=specs, cross_checks=cross_checks))


COMMIT = re.compile(r"\S+ at ([0-9a-f]{40}|v\d[\w.-]*?)(?:-dirty)?", re.ASCII)
MAKE_ONE = "name a bundle, or make one: picochat run bundle --run-dir RUN --out RUN.tgz"


def holding(report: VerifyReport) -> VerifyReport:
    """The report where nothing differs.

    Raises CheckFailed that lists every file and claim that differs.
    """
    if report.problems:
        count = len(report.problems)
        other = report.other_version()
        problems = [
            *([Problem(printable_line(other.what), other.fix)] if other else []),
            *(Problem(printable_line(problem.what)) for problem in report.problems),
        ]
        raise CheckFailed(
            f"{report.path} does not hold what it claims: {count} differences",
            problems=problems,
            fix=DIFFERS_FIX,
        )
    return report


def inspect_bundle(
    path: Path, *, specs: Specs = ARTIFACTS, cross_checks: CrossChecks = CROSS_CHECKS
) -> VerifyReport:
    """The same comparison as a report, whatever it finds.

    specs, cross_checks: what is computed again and compared; see cross_checks.facts_problems.
    """
    with opened_bundle(path) as bundle:
        return inspect_opened(path, bundle, specs=specs, cross_checks=cross_checks)


def inspect_opened(
    path: Path,
    bundle: Opened | None,
    *,
    specs: Specs = ARTIFACTS,
    cross_checks: CrossChecks = CROSS_CHECKS,
) -> VerifyReport:
    """As `inspect_bundle`, of what `opened_bundle(path)` gave, for callers that read on in it."""
    if bundle is None:
        return _inspect_folder(path, specs, cross_checks)
    if CONTENTS not in bundle.digests:
        raise BadInput(f"{path} is no evidence bundle: it has no {CONTENTS}", fix=MAKE_ONE)
    # Asked first: a bundle of another layout would otherwise be reported as damaged.
    _require_known_version(path, bundle.root / CONTENTS)
    contents = read_record(BundleContents, bundle.root / CONTENTS, "bundle contents")
    return _verify(path, RunDir(bundle.root), bundle.digests, contents, specs, cross_checks)


def _inspect_folder(path: Path, specs: Specs, cross_checks: CrossChecks) -> VerifyReport:
    """The report on a run folder.

    Raises WrongUsage while a run writes there: what is half done is not what it will claim.
    """
    run = RunDir(path)
    if is_held(run.lock):
        raise WrongUsage(
            f"{path} is in use by a run",
            fix="verify it when the run has ended, or verify its bundle",
        )
    try:
        return _verify(path, run, digest_tree(path), None, specs, cross_checks)
    except FileNotFoundError as error:
        raise BadInput(
            f"{path} changed while it was read: {error.filename} is gone", fix="verify it again"
        ) from None


def _verify(
    path: Path,
    run: RunDir,
    found: Found,
    contents: BundleContents | None,
    specs: Specs,
    cross_checks: CrossChecks,
) -> VerifyReport:
    if "run.json" not in found:
        raise BadInput(
            f"{path} holds no run: it has no run.json",
            fix="name a bundle or the --out-dir of a `picochat run tiny`",
        )
    artifacts, unreadable = artifacts_of(run)
    checks = (
        [VerifyCheck("checksums", len(found), tuple(_sum_problems(run, found)))] if contents else []
    )
    checks.append(_check_records(run, found))
    checks.append(_check_manifests(artifacts, unreadable, found, contents))
    checks.append(
        VerifyCheck("chain of inputs", _count_inputs(artifacts), tuple(chain_problems(artifacts)))
    )
    checks.append(
        VerifyCheck("front pages", _count_pages(found), tuple(front_page_problems(found)))
    )
    if contents:
        strays = stray_problems(artifacts, found, (SUMS, CONTENTS, LOGS))
        differing = strays + compared(
            "contents", lambda: _contents_problems(run, artifacts, contents)
        )
        checks.append(VerifyCheck("contents", len(artifacts), tuple(differing)))
    checks.append(_check_facts(run, artifacts, specs, cross_checks))
    checks += _check_claims(run, artifacts)
    missing, left_out = (
        (tuple(contents.missing), tuple(contents.left_out)) if contents else ((), ())
    )
    verdict, digest = _stated(run, artifacts)
    checks = [_without_folder(check, run) for check in checks]
    return VerifyReport(
        path, verdict, _profile(run), digest, missing, left_out, tuple(checks), _made_by(run)
    )


def _without_folder(check: VerifyCheck, run: RunDir) -> VerifyCheck:
    """The check with files named from the run's folder: that of an archive is a temporary one."""
    problems = [Problem(without_folder(each.what, run.root), each.fix) for each in check.problems]
    return replace(check, problems=tuple(problems))


def without_folder(text: str, folder: Path) -> str:
    """The text with the paths below `folder` named from there."""
    return re.sub(rf"(?<![\w./-]){re.escape(str(folder))}/", "", text)


def _made_by(run: RunDir) -> str | None:
    """The version that machine.json names; None where it cannot be read."""
    try:
        machine = run.machine_record()
    except PicochatError:
        return None
    return machine.picochat if machine else None


def _verify_with(made_by: str, path: Path) -> str:
    """How to verify a bundle with the version that it names.

    Only a plain name of a commit gets into a command: the maker of the bundle wrote it.
    """
    commit = COMMIT.fullmatch(made_by)
    if commit is None:
        return "verify it with that version of picochat"
    folder = f"../picochat-{commit[1][:12]}"
    return (
        f"verify it with that version, in a clone of picochat: git worktree add {folder}"
        f" {commit[1]} && PYTHONPATH={folder}/src picochat run verify {quote(str(path.resolve()))}"
    )


def _profile(run: RunDir) -> str | None:
    """The profile that the verdict was asked for; None where the settings cannot be read.

    The check of records names settings that cannot be read.
    """
    try:
        return _config(run).gate.profile
    except PicochatError:
        return None


def _require_known_version(path: Path, contents: Path) -> None:
    """Raises BadInput for a bundle in a layout that this version does not know.

    Its fields could mean anything.
    """
    value = read_json(contents, "bundle contents")
    version = (
        cast("dict[str, object]", value).get("schema_version") if isinstance(value, dict) else None
    )
    if version != BUNDLE_SCHEMA_VERSION:
        raise BadInput(
            f"{path} is a bundle of layout {version!r}, this version of picochat reads"
            f" {BUNDLE_SCHEMA_VERSION}",
            fix="check it with the version of picochat that its machine.json names",
        )


def _stated(run: RunDir, artifacts: dict[str, Artifact]) -> tuple[str, str | None]:
    """(verdict, evidence digest) as the run states them.

    What cannot be read is named by the checks of records and manifests.
    """
    try:
        return verdict_of(artifacts), evidence_digest(run, artifacts)
    except (PicochatError, ValueError, OverflowError):
        return "unreadable", None


DIFFERS_FIX = (
    "do not rely on it; ask its maker for the bundle again (pages are compared as this version of"
    " picochat renders them)"
)


def _sum_problems(run: RunDir, found: Found) -> list[Problem]:
    """SHA256SUMS against every file of the bundle but itself."""
    if SUMS not in found:
        return [Problem(f"{SUMS}: is missing")]
    stated: dict[str, str] = {}
    for line in (run.root / SUMS).read_text("utf-8", "replace").splitlines():
        digest, _, name = line.partition("  ")
        stated[name] = digest
    names = sorted(set(stated) | set(found) - {SUMS})
    return [
        problem
        for name in names
        for problem in _sum_problem(name, stated.get(name), found.get(name))
    ]


def _sum_problem(name: str, stated: str | None, found: FileDigest | None) -> list[Problem]:
    if found is None:
        return [Problem(f"{name}: {SUMS} lists it, the bundle lacks it")]
    if stated is None:
        return [Problem(f"{name}: is not listed in {SUMS}")]
    return [] if stated == found.sha256 else [Problem(f"{name}: its bytes differ from {SUMS}")]


def _check_records(run: RunDir, found: Found) -> VerifyCheck:
    """run.json and machine.json are what their records say."""
    problems = _problems_of(lambda: read_record(ResolvedConfig, run.config, "configuration"))
    if "machine.json" in found:
        problems += _problems_of(lambda: read_record(MachineRecord, run.machine, "machine record"))
    return VerifyCheck("records", 2, tuple(problems))


def _check_manifests(
    artifacts: Mapping[str, Artifact],
    unreadable: list[Problem],
    found: Found,
    contents: BundleContents | None,
) -> VerifyCheck:
    """Check that manifests and files agree, and that this version knows the facts.

    Every listed file must be as its manifest states it, and every file must be listed.
    """
    left_out = contents.left_out if contents else {}
    problems = list(unreadable)
    for spec in ARTIFACTS:
        artifact = artifacts.get(spec.kind)
        if artifact is None:
            continue
        problems += manifest_problems(spec, artifact, found, left_out)
        problems += _left_out_problems(spec.folder, artifact, left_out)
        if spec.facts is not None:
            facts = spec.facts
            problems += _problems_of(
                lambda artifact=artifact, facts=facts: facts_of(artifact, facts)
            )
    count = sum(
        len(found.manifest.files) + len(found.manifest.volatile_files)
        for found in artifacts.values()
    )
    return VerifyCheck("manifests", count, tuple(problems))


def _left_out_problems(
    folder: str, artifact: Artifact, left_out: Mapping[str, object]
) -> list[Problem]:
    """Files that a bundle says it left out but that must not be, or whose digest differs.

    A file that was left out must be of a kind that may be, and carry the digest of the manifest.
    """
    problems: list[Problem] = []
    for name, digest in {**artifact.manifest.files, **artifact.manifest.volatile_files}.items():
        entry = left_out.get(f"{folder}/{name}")
        # With nothing included on request, every file that any bundle may leave out has a reason.
        if entry is not None and not reason_to_leave_out(
            artifact.kind,
            name,
            include_weights=False,
            include_token_shards=False,
            include_replay=False,
        ):
            problems.append(
                Problem(f"{folder}/{name}: was left out, and is evidence that may not be")
            )
        if entry is not None and getattr(entry, "sha256", None) != digest.sha256:
            problems.append(
                Problem(f"{folder}/{name}: {CONTENTS} and the manifest state different digests")
            )
    return problems


def _count_pages(found: Found) -> int:
    return sum(page.name in found for page in FRONT_PAGES)


def _count_inputs(artifacts: Mapping[str, Artifact]) -> int:
    return sum(len(artifact.manifest.inputs) for artifact in artifacts.values())


def _contents_problems(
    run: RunDir, artifacts: dict[str, Artifact], contents: BundleContents
) -> list[Problem]:
    """Problems of bundle.json against the artifacts.

    It states their digests, what is missing, the evidence digest and the verdict.
    """
    folders = {spec.kind: spec.folder for spec in ARTIFACTS}
    here = {
        kind: ArtifactEntry(folder=folders[kind], digest=artifact.digest)
        for kind, artifact in artifacts.items()
    }
    kinds = sorted(set(here) | set(contents.artifacts))
    problems = [
        Problem(f"{kind}: {CONTENTS} states another digest")
        for kind in kinds
        if here.get(kind) != contents.artifacts.get(kind)
    ]
    logs = run.root / "logs"
    lacking = missing_evidence(run, artifacts, logs if logs.is_dir() else None, run.root)
    problems += [
        Problem(f"{p.what}; {CONTENTS} does not say so")
        for p in lacking
        if p.what not in contents.missing
    ]
    observed = {
        f"{folders[kind]}/{name}"
        for kind, found in artifacts.items()
        for name in found.manifest.volatile_files
    }
    listed = observed | {
        f"{folders[kind]}/{name}"
        for kind, found in artifacts.items()
        for name in found.manifest.files
    }
    unknown = sorted(set(contents.left_out) - listed)
    problems += [
        Problem(f"{CONTENTS}: calls {name} left out, which no manifest lists") for name in unknown
    ]
    if set(contents.volatile_files) != observed:
        problems.append(Problem(f"{CONTENTS}: states other volatile files than the manifests list"))
    if contents.strict and contents.missing:
        problems.append(Problem(f"{CONTENTS}: calls itself strict, yet lacks evidence"))
    verdict, digest = _stated(run, artifacts)
    if digest != contents.evidence_digest:
        problems.append(
            Problem(f"{CONTENTS}: states another evidence digest than its artifacts give")
        )
    if verdict != contents.verdict:
        problems.append(
            Problem(
                f"{CONTENTS}: states the verdict {contents.verdict}, the artifacts say {verdict}"
            )
        )
    return problems


# ---- the claims, computed again ------------------------------------------------------------------


def _check_facts(
    run: RunDir, artifacts: dict[str, Artifact], specs: Specs, cross_checks: CrossChecks
) -> VerifyCheck:
    """The facts of every artifact against its files, its inputs and the settings."""
    count = sum(spec.kind in artifacts for spec in specs)
    problems = compared(
        "facts", lambda: facts_problems(_config(run), artifacts, specs, cross_checks)
    )
    return VerifyCheck("facts from files", count, tuple(problems))


def _check_claims(run: RunDir, artifacts: dict[str, Artifact]) -> list[VerifyCheck]:
    """Verdicts and pages, each made again from the inputs that the graph names."""
    steps: list[tuple[str, str, Callable[[], list[Problem]]]] = [
        ("preflight verdict", "preflight", lambda: _preflight_problems(run, artifacts)),
        ("gate verdict", "gate", lambda: _gate_problems(run, artifacts)),
        ("summary", "summary", lambda: _summary_problems(run, artifacts)),
    ]
    checks: list[VerifyCheck] = []
    for name, kind, compare in steps:
        if kind not in artifacts:
            continue  # a run that stopped before makes no such claim
        lacking = [other for other in spec_of(kind).inputs if other not in artifacts]
        if lacking:
            what = f"{name}: cannot be computed again without {', '.join(lacking)}"
            checks.append(VerifyCheck(name, 0, (Problem(what),)))
        else:
            checks.append(VerifyCheck(name, 1, tuple(compared(name, compare))))
    return checks


def verdict_problems(run: RunDir, artifacts: Mapping[str, Artifact]) -> list[Problem]:
    """Differences between both verdicts and those that follow from the stated facts."""
    steps = (("preflight", _preflight_problems), ("gate", _gate_problems))
    return [
        problem
        for kind, compare in steps
        if kind in artifacts
        for problem in compared(f"{kind} verdict", lambda compare=compare: compare(run, artifacts))
    ]


def _preflight_problems(run: RunDir, artifacts: Mapping[str, Artifact]) -> list[Problem]:
    report = decide_preflight(facts_given_to(_config(run), artifacts, spec_of("preflight")))
    stated = to_jsonable(facts_of(artifacts["preflight"], PreflightFacts))
    problems = differences(
        "preflight", stated, to_jsonable(preflight_facts(report)), "the facts give"
    )
    pages = {"preflight.json": pretty_json(report), "preflight.md": preflight_page(report).encode()}
    return problems + _page_problems("preflight", artifacts["preflight"], pages)


def _gate_problems(run: RunDir, artifacts: Mapping[str, Artifact]) -> list[Problem]:
    """The differences between the gate's verdict and one that is decided again.

    The number of changed files is the one that the gate counted. Files that changed since then are
    found by the check of manifests.
    """
    stated = facts_of(artifacts["gate"], GateFacts)
    changed = next(
        (finding.measured for finding in stated.findings if finding.name == "evidence_untouched"),
        None,
    )
    facts = facts_given_to(_config(run), artifacts, spec_of("gate"))
    report = decide_release(
        replace(facts, changed_files=int(changed) if changed is not None else None)
    )
    problems = differences(
        "gate", to_jsonable(stated), to_jsonable(gate_facts(report)), "the facts give"
    )
    pages = {"gate.json": pretty_json(report), "gate.md": gate_page(report).encode()}
    return problems + _page_problems("gate", artifacts["gate"], pages)


def _summary_problems(run: RunDir, artifacts: Mapping[str, Artifact]) -> list[Problem]:
    seen = read_json(artifacts["summary"].path("observed.json"), "observations")
    facts = read_facts(_config(run), artifacts)
    return _page_problems("summary", artifacts["summary"], rendered(facts, seen))


def _page_problems(kind: str, artifact: Artifact, pages: Mapping[str, bytes]) -> list[Problem]:
    problems: list[Problem] = []
    for name, data in pages.items():
        path = artifact.path(name)
        if not path.exists() or path.read_bytes() != data:
            problems.append(Problem(f"{kind}/{name}: differs from what the evidence gives"))
    return problems


def _config(run: RunDir) -> RunConfig:
    return read_record(ResolvedConfig, run.config, "configuration").config


def _problems_of(action: Callable[[], object]) -> list[Problem]:
    try:
        action()
    except PicochatError as error:
        return [Problem(error.without_fix())]
    return []
