"""`picochat eval`: asks a folder that transformers loads the eval rows of a pack, and scores it.

The result is a folder that appears at once, when all is answered: replies, the rows that were
asked, scores, their page, and what identifies the model. Replies are journaled batch by batch, so
a kill loses one batch. The same command again uses finished replies. Replies of another model, of
other rows or other settings are set aside, and taken back for the command that made them.
Likelihoods can differ in the last digits after a resume, because other rows share a batch.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from picochat.config import EvalConfig, ExternalConfig, RuntimeConfig
from picochat.core.errors import BadInput, WrongUsage
from picochat.core.journal import Journal, read_journal
from picochat.core.machine import machine_record
from picochat.core.progress import Progress, say
from picochat.core.publish import (
    MANIFEST,
    Artifact,
    StagingFolder,
    artifact_key,
    exclusive,
    file_names,
    find_whole_artifact,
    open_artifact,
    publish,
    set_aside,
    take_back,
)
from picochat.core.records import (
    digest_json,
    parse_record,
    read_json,
    read_jsonl,
    read_record,
    require_writable,
    write_atomic,
    write_json,
    write_jsonl,
)
from picochat.data.benchmarks.resolve import Resolution, require_benchmarks
from picochat.data.benchmarks.stage import BenchmarkItem, publish_benchmarks, read_items, read_texts
from picochat.data.pack import TASK_PACK, PackRows
from picochat.evals.answerer import Answerer, fits
from picochat.evals.eval_records import (
    EXTERNAL,
    REPLIES,
    EvaluatedItem,
    EvaluatedRow,
    read_external,
    read_replies,
)
from picochat.evals.evaluate import eval_questions
from picochat.evals.external import ask_benchmark
from picochat.evals.replies import Generation, ask_in_batches, evaluated_row
from picochat.facts import BenchmarksFacts, facts_of
from picochat.folder_eval.folder_scores import FolderScores, folder_scores
from picochat.folder_eval.model_record import AskSettings, ModelRecord, folder_digests
from picochat.folder_eval.scores_text import scores_page, terminal_lines
from picochat.skills.row_files import read_eval_rows, read_sft_rows
from picochat.skills.scoring import can_fail
from picochat.skills.task_rows import EvalRow, SftRow, row_json

KIND = "folder_eval"
VERSION = 1
JOURNAL = "replies.jsonl"
BENCHMARKS = "benchmarks"  # the folder of their artifact in the results


@dataclass(frozen=True)
class FolderEvalRequest:
    """model: a folder. max_rows: of the eval rows, drawn by hash; None takes all."""

    model: Path
    pack: PackRows
    out_dir: Path
    runtime: RuntimeConfig
    evals: EvalConfig
    external: ExternalConfig
    max_rows: int | None = None

    @property
    def settings(self) -> AskSettings:
        return AskSettings(
            max_new_tokens=self.evals.max_new_tokens,
            batch_rows=self.evals.batch_rows,
            device=self.runtime.device,
            precision=self.runtime.precision,
            max_rows=self.max_rows,
        )


@dataclass(frozen=True)
class Asked:
    """What a folder answered. replies_cut, not_asked: see FolderScores."""

    replies: list[EvaluatedRow]
    replies_cut: int
    not_asked: int


def evaluate_folder(request: FolderEvalRequest) -> list[str]:
    """Ask the model what is not answered yet, and return the lines for the terminal.

    Raises BadInput for a folder that cannot be asked and for a pack without eval rows, WrongUsage
    where something else stands at the place of the results, HubProblem for a missing benchmark.
    """
    from picochat.evals.folder_answerer import require_model_folder, require_transformers

    require_model_folder(request.model)
    require_transformers()
    require_free(request.out_dir)
    rows, sft = read_rows(request)
    benchmarks = require_benchmarks(request.external)
    files = folder_digests(request.model)
    key = artifact_key(
        {
            "files": files,
            "settings": request.settings,
            "benchmarks": benchmarks.digest(),
            "external_max_rows": request.external.max_rows,
            "sft": digest_json([row_json(row) for row in sft]),
        },
        {"rows": rows_digest(rows)},
        VERSION,
    )
    lock = request.out_dir.with_name(f".{request.out_dir.name}.lock")
    with exclusive(lock, f"the results {request.out_dir}"):
        standing = find_whole_artifact(request.out_dir, KIND, key) or take_back(
            request.out_dir, KIND, key
        )
        if standing is not None:
            say(f"reused: {request.out_dir} has the replies of this model to these rows")
            standing = _judged_by_now(standing, rows, sft)
        else:
            standing = _evaluate(request, rows, sft, benchmarks, files, key)
    return [
        *terminal_lines(
            read_record(ModelRecord, standing.path("model.json")),
            read_record(FolderScores, standing.path("scores.json")),
        ),
        f"results: {standing.place}",
    ]


def require_free(place: Path) -> None:
    """Raise WrongUsage where something else than earlier results stands at `place`."""
    require_writable(place / MANIFEST)
    if not place.exists() or not file_names(place):
        return
    if not holds_results(place):
        raise WrongUsage(
            f"{place} exists and holds something else than results of `picochat eval`",
            fix="choose another --out-dir",
        )


def holds_results(place: Path) -> bool:
    """Whether `place` is a folder that `evaluate_folder` left."""
    manifest = place / MANIFEST
    return manifest.is_file() and read_json(manifest).get("kind") == KIND


def read_rows(request: FolderEvalRequest) -> tuple[list[EvalRow], list[SftRow]]:
    """(the eval rows to ask, the pack's SFT rows). Raises BadInput where there is none to ask."""
    pack = request.pack
    if pack.eval_path is None:
        raise BadInput(
            f"pack {pack.path} names no eval rows to ask",
            fix=TASK_PACK.format(pack=quote(str(pack.path))),
        )
    rows = read_eval_rows(pack.eval_path).rows
    sft = read_sft_rows(pack.chat_path).rows if pack.chat_path else []
    if request.max_rows is not None and request.max_rows < len(rows):
        # By hash, as SFT rows are drawn for a run: no choice can find rows that are answered well.
        by_hash = sorted(rows, key=lambda row: hashlib.sha256(row.id.encode()).digest())
        drawn = {row.id for row in by_hash[: request.max_rows]}
        rows = [row for row in rows if row.id in drawn]
    if without := sum(not can_fail(row) for row in rows):
        say(f"{without} eval rows have no rule that a reply could fail")
    return rows, sft


def rows_digest(rows: Sequence[EvalRow]) -> str:
    """sha256 of the rows as they are written."""
    return digest_json([row_json(row) for row in rows])


def _evaluate(
    request: FolderEvalRequest,
    rows: Sequence[EvalRow],
    sft: Sequence[SftRow],
    benchmarks: Resolution,
    files: dict[str, str],
    key: str,
) -> Artifact:
    from picochat.evals.folder_answerer import open_folder
    from picochat.model.runtime import DTYPES, apply_settings, find_device

    device = find_device(request.runtime)
    apply_settings(request.runtime)
    say(f"loading {request.model}")
    answerer = open_folder(request.model, device, DTYPES[request.runtime.precision])
    if (request.out_dir / MANIFEST).exists():
        say(f"{request.out_dir} has replies of another model, pack or setting; they are set aside")
    with publish(request.out_dir, KIND, key, {"rows": rows_digest(rows)}) as staging:
        asked = ask(answerer, rows, request.evals, staging.workspace)
        external = _ask_benchmarks(answerer, request, benchmarks, staging)
        model = ModelRecord(
            name=request.model.resolve().name,
            files=files,
            model_class=type(answerer.model).__name__,
            parameters=sum(weight.numel() for weight in answerer.model.parameters()),
            context=answerer.context,
            ends=list(answerer.ends),
            settings=request.settings,
            pack=request.pack.path.name,
            eval_rows=len(rows),
            rows_digest=rows_digest(rows),
            versions=machine_record().versions,
        )
        _write(staging, model, rows, sft, asked, external)
    assert staging.artifact is not None
    return staging.artifact


def _judged_by_now(standing: Artifact, rows: Sequence[EvalRow], sft: Sequence[SftRow]) -> Artifact:
    """The results, judged again if the rules have changed since; nothing is asked again."""
    model = read_record(ModelRecord, standing.path("model.json"))
    before = read_record(FolderScores, standing.path("scores.json"))
    kept = _kept(standing, before)
    if _scores(model, rows, sft, *kept) == before:
        return standing
    say("the rules have changed since: the same replies are judged again")
    manifest, older = standing.manifest, set_aside(standing.place)
    with publish(standing.place, KIND, manifest.key, manifest.inputs) as staging:
        if kept[1] is not None:
            shutil.copytree(older / BENCHMARKS, staging.folder / BENCHMARKS)
        _write(staging, model, rows, sft, *kept)
    assert staging.artifact is not None
    return staging.artifact


def _kept(standing: Artifact, scores: FolderScores) -> tuple[Asked, External | None]:
    """What the files of finished results hold, read into memory."""
    asked = Asked(read_replies(standing.place), scores.replies_cut, scores.not_asked)
    if not (standing.place / EXTERNAL).exists():
        return asked, None
    benchmarks = open_artifact(standing.place / BENCHMARKS, "benchmarks")
    return asked, External(
        facts_of(benchmarks, BenchmarksFacts), read_items(benchmarks), read_external(standing.place)
    )


def ask(answerer: Answerer, rows: Sequence[EvalRow], evals: EvalConfig, workspace: Path) -> Asked:
    """The replies to every question of the rows; those in the workspace's journal are not asked.

    A question that does not fit the context has an empty reply.
    """
    questions = eval_questions(rows)
    possible = [row for _, row in questions if fits(answerer, row)]
    journal = Journal(workspace / JOURNAL)
    known = {
        line["id"]: Generation.model_validate(line["reply"]) for line in read_journal(journal.path)
    }
    with Progress("asking", len(possible), "questions") as progress:
        progress.start_at(len(known))
        left = [row for row in possible if row.id not in known]
        for batch in ask_in_batches(answerer, left, evals):
            for id, reply in batch.items():
                journal.append({"id": id, "reply": reply.model_dump()})
            known |= batch
            progress.advance(len(batch))
    return Asked(
        replies=[
            evaluated_row(name, row, known.get(row.id, Generation(text="")))
            for name, row in questions
        ],
        replies_cut=sum(reply.cut for reply in known.values()),
        not_asked=len(questions) - len(possible),
    )


@dataclass(frozen=True)
class External:
    """The benchmarks that were asked, their items, and the answers."""

    benchmarks: BenchmarksFacts
    items: list[BenchmarkItem]
    answers: list[EvaluatedItem]


def _ask_benchmarks(
    answerer: Answerer, request: FolderEvalRequest, resolution: Resolution, staging: StagingFolder
) -> External | None:
    if not resolution.found:
        return None
    with publish(staging.path(BENCHMARKS), "benchmarks", resolution.digest(), {}) as inner:
        publish_benchmarks(request.external, resolution, inner)
    assert inner.artifact is not None
    answers: list[EvaluatedItem] = []
    for found in resolution.found:
        kept = staging.workspace / f"external-{found.name}.jsonl"
        if not kept.exists():
            texts = read_texts(inner.artifact, found.name)
            write_jsonl(kept, ask_benchmark(found.name, texts, answerer, None, request.evals))
        answers += [
            parse_record(EvaluatedItem, value, f"{kept}, line {line}")
            for line, value in read_jsonl(kept)
        ]
    return External(facts_of(inner.artifact, BenchmarksFacts), read_items(inner.artifact), answers)


def _write(
    staging: StagingFolder,
    model: ModelRecord,
    rows: Sequence[EvalRow],
    sft: Sequence[SftRow],
    asked: Asked,
    external: External | None,
) -> None:
    """Write the files of the results; the scores follow from what is written."""
    say("judging the replies, and trivial answers to the same rows")
    scores = _scores(model, rows, sft, asked, external)
    write_jsonl(staging.path(REPLIES), asked.replies)
    write_jsonl(staging.path("eval.jsonl"), map(row_json, rows))
    if external:
        write_jsonl(staging.path(EXTERNAL), external.answers)
    write_json(staging.path("model.json"), model)
    write_json(staging.path("scores.json"), scores)
    page = scores_page(model, scores, {row.id: row for row in rows}, asked.replies)
    write_atomic(staging.path("scores.md"), page.encode())


def _scores(
    model: ModelRecord,
    rows: Sequence[EvalRow],
    sft: Sequence[SftRow],
    asked: Asked,
    external: External | None,
) -> FolderScores:
    return folder_scores(
        rows,
        sft,
        asked.replies,
        model_digest=digest_json(model.files),
        replies_cut=asked.replies_cut,
        not_asked=asked.not_asked,
        benchmarks=external.benchmarks if external else None,
        items=external.items if external else (),
        external=external.answers if external else (),
    )
