"""`export_report.json`: what an exported folder is, and how it compares with the model.

It has the digest of every other file in the folder, so that a later export recognises an earlier
one and a push sees changed files. What was compared and how it is judged stand here too, since
verification judges the report again. A signature of the folder, which is made afterwards, is left
out. Does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from picochat.config import RunConfig
from picochat.core.errors import BadInput, Problem
from picochat.core.publish import Artifact, FileDigest, file_names
from picochat.core.records import Record, digest_file, parse_record, read_json, read_record
from picochat.facts import ParityFacts
from picochat.gate.bounds import EXPORT_DIFFERENCE
from picochat.tokens.tokenizer import Tokenizer

EXPORT_RECORD = "export_report.json"
FOLDER_SIGNATURE = "model.sig"
"""Where model-signing's own command writes the signature of a model folder."""
SCHEMA_VERSION = 3

BOUNDS: dict[str, float] = {"float32": EXPORT_DIFFERENCE, "bf16": 2e-3}
"""Largest allowed difference of logits over the largest logit, for each dtype of the file.

Right exports measure 2e-6 and 6e-4. The smallest known mistake, another eps, measures 1e-2
(docs/decisions/0011).
"""

ROWS = 2
LONGEST_ROW_TOKENS = 256
GREEDY_TOKENS = 32
LONGEST_PROMPT_TOKENS = 32
TEXTS = (
    "The year 1905 had 365 days; 12 x 12 = 144.",
    "Two  spaces,\ta tab,\n\n  an indented line\r\nand a trailing space ",
    "naïve café — “quoted” — 東京 — Привет — 🙂👩‍🚀",
    "don't they'll I'VE snake_case camelCase <div class='x'>&amp;</div>",
    "",
)


class ParityReport(Record):
    """What was compared, and the differences, rounded up to two digits (parity.round_up)."""

    reader: str
    model_class: str
    dtype: str
    token_source: str
    tokens_compared: int
    best_token_differs: int
    largest_logit: float
    largest_difference: float
    largest_relative_difference: float
    bound: float
    greedy_tokens: int
    greedy_tokens_equal: bool
    greedy_largest_shortfall: float
    missing_keys: list[str]
    unexpected_keys: list[str]
    texts_compared: int
    texts_equal: bool
    chat_equal: bool
    end_id: int


def row_tokens(context: int) -> int:
    """Tokens of each of the ROWS rows whose logits are compared."""
    return min(context, LONGEST_ROW_TOKENS)


def prompt_tokens(context: int) -> int:
    """Tokens before the greedy ones: at most half of the context, so that those fit after it."""
    return min(LONGEST_PROMPT_TOKENS, context // 2)


def greedy_tokens(context: int) -> int:
    """Tokens that both sides generate."""
    return min(GREEDY_TOKENS, context - prompt_tokens(context))


def parity_of(files: Path) -> ParityReport | None:
    """The report of the parity stage; None if nothing was compared."""
    report = read_json(files / EXPORT_RECORD, "export report")
    if not report["parity"]:
        return None
    return parse_record(ParityReport, report["parity"], f"parity/{EXPORT_RECORD}")


def facts_from(
    files: Path, inputs: Mapping[str, Artifact], config: RunConfig | None = None
) -> ParityFacts:
    """The facts of the parity stage from its report; all None if nothing was compared."""
    found = parity_of(files)
    if found is None:
        return ParityFacts(
            reader=None,
            largest_relative_difference=None,
            greedy_tokens_equal=None,
            other_differences=None,
        )
    end_id = Tokenizer.load(inputs["tokenizer"].path("tokenizer.json")).end
    return ParityFacts(
        reader=found.reader,
        largest_relative_difference=found.largest_relative_difference,
        greedy_tokens_equal=found.greedy_tokens_equal,
        other_differences=len(other_misses(found, end_id)),
    )


def misses(report: ParityReport, end_id: int) -> list[Problem]:
    """Every difference that forbids publishing the folder. end_id: what ends a reply of ours."""
    # Not `>`: a number that is NaN must count as a miss.
    logits = (
        []
        if report.largest_relative_difference <= report.bound
        else [
            f"logits differ by {report.largest_relative_difference:.2g} of the largest, at most"
            f" {report.bound:g} is allowed"
        ]
    )
    return [Problem(what) for what in [*logits, *other_misses(report, end_id)]]


def other_misses(report: ParityReport, end_id: int) -> list[str]:
    """The differences beside that of the logits."""
    found: list[str] = []
    if not report.greedy_largest_shortfall <= report.bound:
        found.append(
            f"a greedy token lies {report.greedy_largest_shortfall:.2g} of the largest logit below"
            " our best"
        )
    for label, keys in (("lacks", report.missing_keys), ("has too many", report.unexpected_keys)):
        if keys:
            found.append(
                f"the file {label} weights: {', '.join(keys[:5])}{' ...' if len(keys) > 5 else ''}"
                f" ({len(keys)})"
            )
    if not report.texts_equal:
        found.append("the tokenizer gives other ids for the same texts")
    if not report.chat_equal:
        found.append("the chat template gives other ids for the same messages")
    if report.end_id != end_id:
        found.append(f"generation ends at token {report.end_id}, ours at {end_id}")
    return found


class ExportRecord(Record):
    """An exported folder.

    commit: of the code that trained the weights.
    repo_id: where the folder was to be pushed; None if nowhere.
    dataset_summary, eval_summary: the publisher's own words on the card.
    eval_tasks: benchmark -> task of its dataset, as the publisher named it.
    scored: whether these weights gave the run's scores.
    verdict: of the release gate; None if there is none.
    """

    schema_version: int
    kind: Literal["export hf"]
    commit: str | None
    model_name: str
    repo_id: str | None
    licence: str
    dataset_summary: str
    eval_summary: str
    eval_tasks: dict[str, str]
    flavor: str
    dtype: str
    checkpoint_digest: str
    tokenizer_digest: str
    parameters: int
    stored_numbers: int
    scored: bool
    verdict: str | None
    parity: ParityReport
    files: dict[str, FileDigest]


def digest_files(folder: Path) -> dict[str, FileDigest]:
    """Name -> digest of every file in the folder except the record and a signature, sorted."""
    return {
        name: FileDigest(sha256=digest_file(folder / name), bytes=(folder / name).stat().st_size)
        for name in sorted(file_names(folder) - {EXPORT_RECORD, FOLDER_SIGNATURE})
    }


def read_export_record(folder: Path) -> ExportRecord:
    """The record of an exported folder. Raises BadInput if there is none."""
    path = folder / EXPORT_RECORD
    if not path.exists():
        raise BadInput(
            f"{folder} is not an export: it has no {EXPORT_RECORD}",
            fix="name a folder that `picochat export hf` made",
        )
    return read_record(ExportRecord, path, "export record")


def changed_since_export(folder: Path, record: ExportRecord) -> list[str]:
    """Names of files that differ from the record, are missing, or were added."""
    found = digest_files(folder)
    return sorted(
        name
        for name in found.keys() | record.files.keys()
        if found.get(name) != record.files.get(name)
    )
