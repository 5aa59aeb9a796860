"""`export_report.json`: what an exported folder is, and how it compares with the model.

It has the digest of every other file in the folder, so that a later export recognises an earlier
one and a push sees changed files. A signature of the folder, which is made afterwards, is left out.
Does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from picochat.config import RunConfig
from picochat.core.errors import BadInput
from picochat.core.publish import Artifact, FileDigest, file_names
from picochat.core.records import Record, digest_file, parse_record, read_json, read_record
from picochat.facts import ParityFacts

EXPORT_RECORD = "export_report.json"
FOLDER_SIGNATURE = "model.sig"
"""Where model-signing's own command writes the signature of a model folder."""
SCHEMA_VERSION = 3


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


def facts_from(
    files: Path, inputs: Mapping[str, Artifact], config: RunConfig | None = None
) -> ParityFacts:
    """The facts of the parity stage from its report; all None if nothing was compared."""
    report = read_json(files / EXPORT_RECORD, "export report")
    if not report["parity"]:
        return ParityFacts(reader=None, largest_relative_difference=None, greedy_tokens_equal=None)
    found = parse_record(ParityReport, report["parity"], f"parity/{EXPORT_RECORD}")
    return ParityFacts(
        reader=found.reader,
        largest_relative_difference=found.largest_relative_difference,
        greedy_tokens_equal=found.greedy_tokens_equal,
    )


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
