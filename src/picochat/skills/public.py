"""SFT rows of public sets, for `--source hf`: chat, worked school sums, multiple choice.

The revision of each set is resolved once. The page about the rows states it with the licence. The
same revisions and seed give the same rows. Rows that are too long, or that do not have the layout
of their set, are left out and counted. No row is used for eval. Only parquet files are read, and
the contents of the sets are not checked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from picochat.core.errors import BadInput
from picochat.data.benchmarks.layouts import find_layout, read_item
from picochat.data.importing.dataset_source import DatasetSource, open_source
from picochat.data.importing.hub import RetryPolicy
from picochat.facts import RowSource
from picochat.skills.choice import listing
from picochat.skills.shared_items import EvalItems
from picochat.skills.skill import FINAL_ANSWER, LONGEST_REPLY_WORDS, divide_rows, seeded
from picochat.skills.task_rows import SftRow

LONGEST_PROMPT_WORDS = 100
READ_PER_ROW = 5  # rows read for each row wanted; the wanted ones are drawn from them
LABELS = "ABCDE"
# gsm8k has calculator calls inside its text: `3 + 4 = <<3+4=7>>7`.
CALCULATION = re.compile(r"<<[^<>]*>>")


@dataclass(frozen=True)
class PublicSet:
    """One dataset of the Hub.

    fraction: of the public rows. row: returns the fields of an SFT row, or the reason why the row
    is not used.
    """

    name: str
    dataset: str
    config: str
    fraction: float
    row: Callable[[Mapping[str, Any]], dict[str, Any] | str]


@dataclass(frozen=True)
class PublicCount:
    """The rows from one set. passed_over: reason -> rows that were not used."""

    name: str
    dataset: str
    config: str
    revision: str
    licence: str | None
    rows: int
    passed_over: dict[str, int]

    def source(self) -> RowSource:
        """What a pack states of the set."""
        return RowSource(
            label=self.name,
            dataset=self.dataset,
            config=self.config,
            revision=self.revision,
            licence=self.licence,
        )

    def line(self) -> str:
        """One row of the table on the page about the rows."""
        reasons = (
            ", ".join(f"{reason} {rows}" for reason, rows in sorted(self.passed_over.items()))
            or "none"
        )
        return (
            f"| {self.name} | {self.dataset} ({self.config}) | {self.revision} |"
            f" {self.licence or 'not stated'} | {self.rows} | {reasons} |"
        )


def _chat(row: Mapping[str, Any]) -> dict[str, Any] | str:
    """The first exchange of a conversation."""
    messages = row.get("messages")
    if not isinstance(messages, list):
        return "layout"
    texts = [(each.get("role"), each.get("content")) for each in messages if isinstance(each, dict)]
    system = texts.pop(0)[1] if texts and texts[0][0] == "system" else None
    if len(texts) < 2 or [role for role, _ in texts[:2]] != ["user", "assistant"]:
        return "layout"
    return {
        "category": "chat_public",
        "system": system or None,
        "user": texts[0][1],
        "assistant": texts[1][1],
    }


def _worked_sum(row: Mapping[str, Any]) -> dict[str, Any] | str:
    """`working #### answer` becomes the working and a last line with the final answer."""
    question, given = row.get("question"), row.get("answer")
    if not isinstance(question, str) or not isinstance(given, str) or given.count("####") != 1:
        return "layout"
    working, answer = (part.strip() for part in CALCULATION.sub("", given).split("####"))
    answer = answer.replace(",", "")
    return {
        "category": "math_story",
        "user": question,
        "assistant": f"{working}\n{FINAL_ANSWER} {answer}",
        "answer_style": "scratchpad",
        "expected_final_answer": answer,
    }


def _multiple_choice(row: Mapping[str, Any]) -> dict[str, Any] | str:
    """A question with labelled options, and a reply in the form of the choice skill."""
    item = read_item(find_layout("arc"), row, "")
    if isinstance(item, str) or len(item.options) > len(LABELS):
        return "layout"
    texts, right = item.options, item.correct
    labels = list(LABELS[: len(texts)])
    return {
        "category": "choice_public",
        "user": listing(item.question, labels, texts),
        "assistant": texts[right],
        "choice_labels": labels,
        "choice_options": texts,
        "correct_choice": labels[right],
    }


PUBLIC_SETS: tuple[PublicSet, ...] = (
    # (name, dataset, config, fraction, row)
    PublicSet("smoltalk", "HuggingFaceTB/smoltalk", "all", 0.5, _chat),
    PublicSet("gsm8k", "openai/gsm8k", "main", 0.25, _worked_sum),
    PublicSet("arc", "allenai/ai2_arc", "ARC-Easy", 0.25, _multiple_choice),
)


def read_public_rows(
    count: int, seed: int, evals: EvalItems, patience: RetryPolicy | None = None
) -> tuple[list[SftRow], tuple[PublicCount, ...]]:
    """`count` SFT rows of the sets by their fractions, and the counts of each set.

    Rows that contain an eval item are passed over. Fewer rows where a set has too few usable ones.
    Raises HubProblem where the Hub cannot be reached, BadInput where a set has no parquet file or
    no usable row.
    """
    rows: list[SftRow] = []
    counts: list[PublicCount] = []
    wanted = divide_rows(count, {each.name: each.fraction for each in PUBLIC_SETS})
    for each in PUBLIC_SETS:
        origin = open_source(each.dataset, each.config, "train", None, retry=patience)
        try:
            found, passed_over = _rows_of(each, origin, wanted[each.name], seed, evals)
        finally:
            origin.stop()
        rows += found
        revision = origin.revision or origin.pin
        names = (each.name, each.dataset, each.config, revision, origin.licence)
        counts.append(PublicCount(*names, len(found), dict(passed_over)))
    return rows, tuple(counts)


def _rows_of(
    each: PublicSet, origin: DatasetSource, wanted: int, seed: int, evals: EvalItems
) -> tuple[list[SftRow], Counter[str]]:
    found: list[SftRow] = []
    passed_over: Counter[str] = Counter()
    for number, values in zip(range(READ_PER_ROW * wanted), _read(origin), strict=False):
        fields = each.row(values)
        if isinstance(fields, str):
            passed_over[fields] += 1
        elif reason := _unusable(fields):
            passed_over[reason] += 1
        else:
            row_id, item = f"sft-{each.name}-{number:06d}", f"{each.name}:{number}"
            row = SftRow(id=row_id, item=item, **fields)
            if evals.in_rows([row]):
                passed_over["answers an eval row"] += 1
            else:
                found.append(row)
    if wanted and not found:
        raise BadInput(
            f"{each.dataset} has no row that is used here: {dict(passed_over)}",
            fix="--source offline",
        )
    seeded("public rows", each.name, seed).shuffle(found)
    return found[:wanted], passed_over


def _unusable(fields: Mapping[str, Any]) -> str | None:
    user, assistant = fields["user"], fields["assistant"]
    if not all(isinstance(text, str) and text.strip() for text in (user, assistant)):
        return "layout"
    prompt_words = len(user.split()) + len((fields.get("system") or "").split())
    too_long = prompt_words > LONGEST_PROMPT_WORDS or len(assistant.split()) > LONGEST_REPLY_WORDS
    return "too long" if too_long else None


def _read(origin: DatasetSource) -> Iterator[dict[str, Any]]:
    """The rows of all files, in order."""
    for index, file in enumerate(origin.files):
        with origin.open_file(index) as stream:
            try:
                for batch in pq.ParquetFile(stream).iter_batches(batch_size=1_000):
                    yield from batch.to_pylist()
            except pa.ArrowInvalid as error:
                raise BadInput(
                    f"{origin.dataset}: {file.name} is no readable parquet: {error}",
                    fix="--source offline",
                ) from None
