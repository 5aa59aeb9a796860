"""Verifies bundles and writes a static page of them: index.html, gallery.json, a report for each.

Each bundle is verified as `run verify` does it. Only of one that verifies are claims shown, and its
report is rendered here from the evidence: no page of a bundle is ever copied. The same bundles give
the same files on one day, unless weights are asked again. Needs no network, and torch only to ask.

Does not sign: who publishes the folder says what it holds. gallery.json names the digest of every
bundle, so that anybody can verify the same ones.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from shlex import quote
from typing import Any

from picochat.config import ResolvedConfig
from picochat.core.errors import BadInput, CheckFailed, Problem, WrongUsage
from picochat.core.machine import MachineRecord, environment_count, picochat_version
from picochat.core.progress import say
from picochat.core.publish import exclusive, file_names, hidden_folder, link_or_copy, publish_folder
from picochat.core.records import (
    digest_file,
    parse_record,
    read_json,
    read_record,
    require_writable,
    write_json,
)
from picochat.evals.intervals import rate
from picochat.facts import Rate, RunFacts, ScoresFacts
from picochat.gate.measures import JUDGED_SKILLS
from picochat.present.printable import excerpt, printable_line
from picochat.present.values import short_digest
from picochat.release.archive import Opened
from picochat.release.stated_files import opened_bundle
from picochat.release.verify import MAKE_ONE, VerifyReport, inspect_opened, without_folder
from picochat.report.gallery_page import (
    GALLERY_SCHEMA_VERSION,
    Gallery,
    GalleryCheck,
    GalleryModel,
    GalleryRow,
    gallery_page,
    page_order,
)
from picochat.report.sections import title_of
from picochat.report.summary import claims, rendered
from picochat.run.folder import RunDir
from picochat.run.graph import read_facts

PAGE, RECORD = "index.html", "gallery.json"
SHOWN_DIFFERENCES = 5
PACKED = (".tgz", ".tar.gz", ".tar")


@dataclass(frozen=True)
class GalleryRequest:
    """What the user asked for. ask: asks the weights of a bundle that verifies again."""

    bundles: tuple[Path, ...]
    out: Path
    title: str
    ask: Callable[[VerifyReport], VerifyReport] | None = None
    with_bundles: bool = False


@dataclass(frozen=True)
class GalleryReport:
    """What was written. `paths`: of the bundles, in the order of the rows."""

    page: Path
    gallery: Gallery
    paths: tuple[Path, ...]

    @property
    def exit_code(self) -> int:
        """0 where every bundle verifies, else that of CheckFailed."""
        return 0 if all(row.model for row in self.gallery.rows) else CheckFailed.exit_code

    def lines(self) -> list[str]:
        """What each bundle is, for the terminal."""
        lines: list[str] = []
        for row, path in zip(self.gallery.rows, self.paths, strict=True):
            lines.append(f"{row.name}: {row.answer}")
            if row.first_differences:
                lines.append(f"    lists them: picochat run verify {quote(str(path))}")
        good = sum(row.model is not None for row in self.gallery.rows)
        lines.append(f"gallery {self.page}: {len(self.paths)} bundles, {good} verify")
        return [printable_line(line) for line in lines]


@dataclass(frozen=True)
class Verified:
    """One bundle: its row, and the report that its evidence gives where it verifies."""

    path: Path
    row: GalleryRow
    report: bytes | None = None


def make_gallery(request: GalleryRequest) -> GalleryReport:
    """The gallery at `request.out`, whole or not at all. An earlier one there is replaced.

    Raises WrongUsage where something else is there, and BadInput where no bundle can be read.
    """
    place = request.out.resolve()
    lock = place.with_name(f".{place.name}.lock")
    _require_own(place)
    require_writable(lock)
    found = [_verified(path, request.ask) for path in dict.fromkeys(request.bundles)]
    if all(each.row.error is not None for each in found):
        problems = [Problem(f"{each.path}: {each.row.error}") for each in found]
        raise BadInput(
            "none of these is a bundle that can be read", problems=problems, fix=MAKE_ONE
        )
    with exclusive(lock, f"gallery {request.out}"), hidden_folder(place) as folder:
        gallery, paths = _fill(folder, request, found)
        older = publish_folder(folder, place)
    if older is not None and not _others(older):
        shutil.rmtree(older)
    elif older is not None:
        say(f"the earlier folder held other files, so it is kept: {older}")
    return GalleryReport(request.out / PAGE, gallery, paths)


def _fill(
    folder: Path, request: GalleryRequest, found: Sequence[Verified]
) -> tuple[Gallery, tuple[Path, ...]]:
    """Write all files. Returns what gallery.json holds, and the paths in the order of its rows."""
    ordered = [found[number] for number in page_order([each.row for each in found])]
    names: Counter[str] = Counter()
    rows: list[GalleryRow] = []
    for each in ordered:
        row = each.row
        if row.model is not None:
            name = short_digest(row.evidence_digest or "")
            names[name] += 1  # runs with the same evidence can differ in time and cost
            name += f"-{names[name]}" if names[name] > 1 else ""
            row = _with_files(folder, name, each, request.with_bundles)
        rows.append(row)
    now = environment_count("SOURCE_DATE_EPOCH", int(time.time()))
    gallery = Gallery(
        schema_version=GALLERY_SCHEMA_VERSION,
        title=_shown(request.title),
        verified_on=datetime.fromtimestamp(now, timezone.utc).date().isoformat(),
        verified_by=picochat_version(),
        rows=rows,
    )
    write_json(folder / RECORD, gallery)
    (folder / PAGE).write_text(gallery_page(gallery), encoding="utf-8")
    return gallery, tuple(each.path for each in ordered)


def _with_files(folder: Path, name: str, verified: Verified, with_bundle: bool) -> GalleryRow:
    """The row with its report, and its bundle if asked, written below `folder`."""
    (folder / name).mkdir()
    files: dict[str, str] = {}
    if verified.report is not None:
        files["report"] = f"{name}/report.html"
        (folder / files["report"]).write_bytes(verified.report)
    if with_bundle and verified.row.sha256 is not None:
        ending = next((end for end in PACKED if verified.path.name.endswith(end)), PACKED[0])
        files["bundle"] = f"{name}/{name}{ending}"
        # Resolved, because a link to a link would lead out of the folder.
        link_or_copy(verified.path.resolve(), folder / files["bundle"])
    return verified.row.model_copy(update=files)


# ---- where it goes -------------------------------------------------------------------------------


def _require_own(place: Path) -> None:
    """Raises WrongUsage where anything but an earlier gallery stands at `place`."""
    others = _others(place) if place.is_dir() else [place.name] if place.exists() else []
    if others:
        raise WrongUsage(
            f"{place} holds what no gallery of this version wrote: {', '.join(others[:3])}",
            fix="choose another --out, or move it away",
        )


def _others(folder: Path) -> list[str]:
    """Files of the folder that its gallery.json does not list."""
    try:
        rows = read_record(Gallery, folder / RECORD, "gallery").rows
    except BadInput:
        return sorted(file_names(folder))
    files = {name for row in rows for name in (row.report, row.bundle) if name}
    return sorted(file_names(folder) - files - {PAGE, RECORD})


# ---- one bundle ----------------------------------------------------------------------------------


def _verified(path: Path, ask: Callable[[VerifyReport], VerifyReport] | None) -> Verified:
    """The bundle's row, whatever is wrong with it."""
    name = path.resolve().name
    name = _shown(next((name.removesuffix(end) for end in PACKED if name.endswith(end)), name))
    say(f"verifying {name}")
    folders = (path.parent,)
    sha256 = None
    try:
        sha256 = digest_file(path) if path.is_file() else None
        with opened_bundle(path) as bundle:
            if bundle is not None:
                folders = (bundle.root, path.parent)
            report = inspect_opened(path, bundle)
            asked = None
            if not report.problems:
                report, asked = _ask(report, ask)
            row = _row(name, sha256, report, asked, folders)
            return Verified(path, row, None) if report.problems else _held(path, row, bundle)
    except (BadInput, WrongUsage) as error:
        what = error.without_fix()
    except PermissionError:
        what = "no permission to read it"
    return Verified(path, GalleryRow(name=name, sha256=sha256, error=_shown(what, folders)))


def _ask(
    report: VerifyReport, ask: Callable[[VerifyReport], VerifyReport] | None
) -> tuple[VerifyReport, str | None]:
    """The report with questions asked again, and why none was."""
    if ask is None:
        return report, "not asked again"
    try:
        return ask(report), None
    except BadInput as error:
        return report, f"could not be asked again: {error.without_fix()}"


def _row(
    name: str,
    sha256: str | None,
    report: VerifyReport,
    asked: str | None,
    folders: tuple[Path, ...],
) -> GalleryRow:
    """What verification says of a bundle, without its claims."""
    other = report.other_version()
    return GalleryRow(
        name=name,
        sha256=sha256,
        made_by=None if report.made_by is None else _shown(report.made_by),
        evidence_digest=None if report.problems else report.evidence_digest,
        checks=tuple(
            GalleryCheck(
                name=check.name,
                compared=check.compared,
                note=None if check.note is None else _shown(check.note, folders),
            )
            for check in report.checks
        ),
        differences=len(report.problems),
        first_differences=tuple(
            _shown(problem.what, folders) for problem in report.problems[:SHOWN_DIFFERENCES]
        ),
        other_version=None if other is None else _shown(other.what),
        asked=None if asked is None else _shown(asked, folders),
    )


def _held(path: Path, row: GalleryRow, bundle: Opened | None) -> Verified:
    """A bundle in which nothing differs, with its claims and its report."""
    run = RunDir(path if bundle is None else bundle.root)
    config = read_record(ResolvedConfig, run.config, "configuration").config
    facts = read_facts(config, run.artifacts())
    seen: dict[str, Any] | None = None
    report = None
    if "summary" in facts.artifacts:
        seen = read_json(facts.artifacts["summary"].path("observed.json"), "observations")
        report = rendered(facts, seen or {})["report.html"]
    return Verified(path, row.model_copy(update={"model": _model(facts, seen or {})}), report)


def _model(facts: RunFacts, seen: Mapping[str, Any]) -> GalleryModel:
    scores, base = facts.scores, facts.base
    rates = _rates(scores) if scores else {}
    counts = [found.count for found in rates.values()]
    passed = [found.passed for found in rates.values()]
    bits, ngram = (
        (scores.base_bits_per_byte, scores.ngram_bits_per_byte) if scores else (None, None)
    )
    value = {
        "about": _shown(title_of(claims(facts))),
        "scale": _shown(facts.config.scale),
        "verdict": facts.gate.status if facts.gate else "unfinished",
        "profile": facts.config.gate.profile,
        "eval_rows": (
            digest_file(facts.artifacts["rows"].path("eval.jsonl")) if sum(counts) else None
        ),
        "rates": {_shown(name): found.model_dump() for name, found in rates.items()},
        "all_rows": rate(sum(passed), sum(counts)).model_dump() if sum(counts) else None,
        "base_bits_per_byte": bits,
        "ngram_bits_per_byte": ngram,
        "of_ngram": bits / ngram if bits is not None and ngram else None,
        "parameters": base.parameters if base else None,
        "tokens": base.tokens if base else None,
        "hours": seen.get("hours"),
        "usd": seen.get("usd"),
        "machine": _machine(facts, seen.get("machine")),
    }
    return parse_record(GalleryModel, value, "figures of the bundle")


def _rates(scores: ScoresFacts) -> dict[str, Rate]:
    """Rates of clean rows by skill, those that the gate judges first; own rows as one."""
    found = {name: score.clean for name, score in scores.skills.items() if score.all.count}
    judged = [name for name in JUDGED_SKILLS if name in found]
    rates = {name: found[name] for name in (*judged, *sorted(set(found) - set(judged)))}
    own = [score.clean for score in scores.own.values()]
    if own:
        rates["own rows"] = rate(sum(each.passed for each in own), sum(each.count for each in own))
    return rates


def _machine(facts: RunFacts, observed: object) -> str | None:
    """The GPUs of a run on them, else the processor."""
    if observed is None:
        return None
    machine = parse_record(MachineRecord, observed, "the machine in observed.json")
    if facts.config.runtime.device == "cuda" and machine.gpus:
        gpus = Counter(line.split(",")[0] for line in machine.gpus)
        return _shown(", ".join(f"{number} x {name}" for name, number in gpus.items()))
    return _shown(f"{machine.cpu}, {machine.cores} cores")


def _shown(text: str, folders: tuple[Path, ...] = ()) -> str:
    """A text of somebody else in one bounded, printable line, without this machine's folders."""
    for folder in folders:
        text = without_folder(text, folder)
    return printable_line(excerpt(text))
