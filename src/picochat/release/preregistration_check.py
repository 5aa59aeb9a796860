"""Compares a run with its announcement: `picochat run verify BUNDLE --preregistration`.

The announcement is a file, or lies in a repository on the Hub, whose history gives it a date. Every
setting, artifact, bound, seed and version must be the announced one; the bounds compared are those
of this version, by which verification decides the verdict again. A date is the Hub's word, and when
training began is the publisher's own. Does not see runs that nobody announced.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from picochat.config import ResolvedConfig
from picochat.core.errors import BadInput, Problem
from picochat.core.journal import read_journal
from picochat.core.network import hub_endpoint, open_client
from picochat.core.publish import Artifact
from picochat.core.records import (
    canonical_json,
    digest_bytes,
    parse_record,
    read_json,
    read_record,
    to_jsonable,
)
from picochat.present.printable import printable_line
from picochat.release.archive import STORED_SUFFIXES
from picochat.release.compare import compared, differences
from picochat.release.integrity import artifacts_of
from picochat.release.preregistration import (
    JSON,
    KINDS,
    SCHEMA_VERSION,
    Preregistration,
    announcement_of,
)
from picochat.release.push import REPO_ID, hub_errors, remote_files
from picochat.release.stated_files import opened_run
from picochat.release.verify import VerifyCheck, VerifyReport
from picochat.run.folder import RunDir


@dataclass(frozen=True)
class Published:
    """An announcement. commit, date: of the Hub; None for a file. made: when the Hub's repository
    was made, where the Hub says so.
    """

    announced: Preregistration
    sha256: str
    commit: str | None = None
    date: datetime | None = None
    made: datetime | None = None


def with_preregistration(report: VerifyReport, found: Sequence[Published]) -> VerifyReport:
    """The report with the run compared with its announcement.

    Of several announcements it is the one that differs least, the first of these.
    """
    with opened_run(report.path, skip=(*STORED_SUFFIXES, ".bin", ".npz")) as run:
        judged = [
            (one, compared("preregistration", lambda one=one: _problems(run, one))) for one in found
        ]
        published, problems = min(judged, key=lambda each: len(each[1]))
        note = _note(run, published, found)
    announced = published.announced
    count = sum(map(len, (announced.settings, announced.artifacts, announced.checks)))
    check = VerifyCheck(
        "preregistration",
        count + len(announced.rules),
        tuple(problems),
        note,
        figures={"sha256": published.sha256, "commit": published.commit},
    )
    return replace(report, checks=(*report.checks, check))


# ---- where it is ---------------------------------------------------------------------------------


def find_announcements(name: str) -> list[Published]:
    """The announcement in a file or folder, or all that a repository OWNER/NAME ever held.

    Raises BadInput for what is no announcement, HubProblem for what the network or the Hub answers.
    """
    if Path(name).exists() or not REPO_ID.fullmatch(name):
        return [_read(Path(name, JSON) if Path(name).is_dir() else Path(name))]
    return _on_hub(name)


def _read(path: Path) -> Published:
    if not path.is_file():
        raise BadInput(f"announcement {path} does not exist", fix=NO_ANNOUNCEMENT)
    value: Any = read_json(path, "announcement", fix=NO_ANNOUNCEMENT)
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != SCHEMA_VERSION:
        raise BadInput(
            f"{path} is no announcement of layout {SCHEMA_VERSION} (it states {version!r})",
            fix=NO_ANNOUNCEMENT,
        )
    announced = parse_record(Preregistration, value, f"announcement {path}")
    return Published(announced, digest_bytes(path.read_bytes()))


NO_ANNOUNCEMENT = f"name the {JSON} that `picochat run preregister` wrote, or OWNER/NAME on the Hub"


def _on_hub(repo_id: str) -> list[Published]:
    """Every announcement in the history of a model repository, oldest first.

    A commit counts if it added the file or changed it.
    """
    client, found = open_client(), list[Published]()
    with (
        tempfile.TemporaryDirectory(prefix="picochat-announcement-") as folder,
        hub_errors(repo_id, client),
    ):
        api = client.library.HfApi(endpoint=hub_endpoint())
        made, before = api.model_info(repo_id).created_at, None
        for commit in reversed(api.list_repo_commits(repo_id)):
            digest = remote_files(api, repo_id, commit.commit_id).get(JSON)
            if digest is not None and digest != before:
                place = Path(folder) / commit.commit_id
                api.hf_hub_download(repo_id, JSON, revision=commit.commit_id, local_dir=place)
                published = _read(place / JSON)
                found.append(
                    replace(published, commit=commit.commit_id, date=commit.created_at, made=made)
                )
            before = digest
    if not found:
        raise BadInput(f"{repo_id} never held a {JSON}", fix=NO_ANNOUNCEMENT)
    return found


# ---- what differs --------------------------------------------------------------------------------


def _problems(run: RunDir, published: Published) -> list[Problem]:
    config = read_record(ResolvedConfig, run.config, "configuration").config
    artifacts, _ = artifacts_of(run)
    announced = published.announced
    mine = announcement_of(config, artifacts, _code(run), announced.training_seeds)
    problems: list[Problem] = []
    for part in ("picochat", "settings", "checks", "rules"):
        problems += differences(
            f"announced {part}",
            to_jsonable(getattr(announced, part)),
            to_jsonable(getattr(mine, part)),
            "this version has" if part in ("checks", "rules") else "the run has",
        )
    if config.training_seed not in announced.training_seeds:
        seeds = ", ".join(map(str, announced.training_seeds))
        what = f"announced training seeds {seeds}: the run has {config.training_seed}"
        problems.append(Problem(what))
    problems += _artifact_problems(announced, mine, artifacts)
    if announced.eval_rows is not None:
        texts = b"".join(canonical_json(row) + b"\n" for row in announced.eval_rows)
        if digest_bytes(texts) != announced.artifacts["rows"].files["eval.jsonl"].sha256:
            what = "announced eval rows: their texts are not those of the announced digest"
            problems.append(Problem(what))
    return problems + _date_problems(run, published)


def _artifact_problems(
    announced: Preregistration, mine: Preregistration, artifacts: Mapping[str, Artifact]
) -> list[Problem]:
    """What differs in artifacts, without what follows from another input that is named already."""
    problems, differing = list[Problem](), set[str]()
    for kind in dict.fromkeys((*KINDS, *announced.artifacts)):
        one, other = announced.artifacts.get(kind), mine.artifacts.get(kind)
        if one == other:
            continue
        differing.add(kind)
        if other is None:
            problems.append(Problem(f"announced {kind}: the run has no such artifact"))
        elif not differing & artifacts[kind].manifest.inputs.keys():
            problems += differences(
                f"announced {kind}", to_jsonable(one), to_jsonable(other), "the run has"
            )
    return problems


def _code(run: RunDir) -> str:
    """The version and commit that the run states."""
    machine = run.machine_record()
    return machine.picochat if machine else "not stated"


# ---- dates ---------------------------------------------------------------------------------------


def training_began(run: RunDir) -> datetime | None:
    """The earliest time in the metrics of the base stage; None before it trained."""
    times = [row["time"] for row in read_journal(run.metrics("base")) if "time" in row]
    return datetime.fromtimestamp(min(times), timezone.utc) if times else None


def _date_problems(run: RunDir, published: Published) -> list[Problem]:
    problems: list[Problem] = []
    began, date, made = training_began(run), published.date, published.made
    if began and date and date > began:
        what = f"announced on {_day(date)} (commit {published.commit}): training began before, on"
        problems.append(Problem(f"{what} {_day(began)} by the run's own clock"))
    if made and date and date < made:
        what = f"announced on {_day(date)}: the repository was made later, on {_day(made)}"
        problems.append(Problem(what))
    return problems


def _day(when: datetime) -> str:
    return when.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _note(run: RunDir, published: Published, found: Sequence[Published]) -> str:
    """What a reader asks next: when it was announced, and what else was."""
    announced = published.announced
    parts = [f"sha256 {published.sha256}"]
    if published.date is None:
        parts.append("a file has no date: ask where it was published, and when")
    else:
        parts.append(
            f"the Hub dates its commit {printable_line(str(published.commit))}"
            f" {_day(published.date)}, which is the Hub's word"
        )
    began = training_began(run)
    parts += [f"training began on {_day(began)} by the run's own clock"] if began else []
    others = [_day(one.date) for one in found if one.date and one is not published]
    parts += [f"the repository holds other announcements, of {', '.join(others)}"] if others else []
    seeds = announced.training_seeds
    if len(seeds) > 1:
        names = json.dumps(seeds)
        parts.append(f"one of {len(seeds)} announced training seeds {names}: ask for all")
    return "; ".join(parts)
