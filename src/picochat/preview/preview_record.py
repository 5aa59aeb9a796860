"""What a preview says, as typed records that the terminal, the page and `--json` show.

Every number carries its basis: `exact` and `complete` where all was read, else an interval or a
sentence that says what the number was taken from. An optional value is None where it was not
measured, never 0. Nothing here measures.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from picochat.core.records import Record
from picochat.facts import DuplicatePair

SCHEMA_VERSION = 3
Status = Literal["pass", "warn", "block", "unmeasured"]


class Interval(Record):
    """A value with the 95% interval of its sampling error.

    `low` = `high` = `value` where everything was counted.
    """

    value: float
    low: float
    high: float


class LengthBin(Record):
    """Documents of at least `from_characters` and fewer than `to_characters`."""

    from_characters: int
    to_characters: int
    documents: int


class RepeatedLine(Record):
    """A line and how many documents hold it: at least `documents`, at most `documents_at_most`."""

    line: str
    documents: int
    documents_at_most: int
    fraction: float = Field(description="of the documents looked at")


class ShownDocument(Record):
    """The beginning of one document, or all of it (`whole`); `characters` is the length of all."""

    id: str
    characters: int
    text: str
    whole: bool


class LanguageMix(Record):
    """Shares of the documents looked at. `too_short` and `unsure` ones are in no language."""

    documents: int
    fractions: dict[str, float] = Field(
        description="language code (ISO 639) -> fraction, largest first"
    )
    too_short: float
    unsure: float


class SourcePreview(Record):
    """One source.

    `exact`: documents and text_bytes were counted, not scaled up. Lengths are in characters.
    """

    label: str
    origin: str
    licence: str | None
    files: int
    weight: float
    exact: bool
    documents: int
    text_bytes: int
    looked_at_documents: int
    looked_at_bytes: int
    mean_characters: float
    percentiles: dict[str, float]
    lengths: list[LengthBin]
    unusable_rows: dict[str, int]
    skipped_at_import: dict[str, int]
    ascii_letter_fraction: float | None
    scripts: dict[str, float] = Field(
        description="script -> fraction of the letters, largest first"
    )
    characters: dict[str, float] = Field(
        description="kind of character -> fraction of the characters"
    )
    languages: LanguageMix | None
    bytes_per_token: Interval | None
    tokens: Interval | None = Field(
        description="with the weight, and one more for each document: the one that opens it"
    )
    repeated_lines: list[RepeatedLine]
    shown: list[ShownDocument]


class ClusterText(Record):
    """One document of a cluster, shown from character `first_character` on."""

    id: str
    source: str
    text: str
    first_character: int
    characters: int


class DuplicateCluster(Record):
    """Documents with the same or nearly the same text.

    `texts`: of the same text the first document, of nearly the same the first two.
    """

    kind: Literal["exact", "near"]
    documents: int
    texts: list[ClusterText]


class Duplicates(Record):
    """`complete`: every document was compared with every other.

    Otherwise the fractions are those of a sample, and far too low.
    """

    complete: bool
    basis: str
    documents: int
    exact: int
    near: int
    exact_fraction: float | None
    near_fraction: float | None = Field(
        description="of the different texts, those beyond the first of each near-duplicate cluster"
    )
    pairs: list[DuplicatePair]
    clusters: list[DuplicateCluster]


class Forecast(Record):
    """What one check of the preflight will say of the run, as far as the measurements tell.

    The gate's own table was applied to both ends of what was measured. `status` is the worse of
    the two verdicts, `better` the other; where they are equal, the verdict is sure.
    """

    check: str
    status: Status
    better: Status
    measured: Interval
    unit: str
    bound: str = Field(description="the bound of the check that `status` follows from")


class ImportAdvice(Record):
    """How many rows the import of one source should ask for instead, and how to say so."""

    source: str
    rows_now: int
    max_rows: int
    command: str


class ScaleFit(Record):
    """What the pack means for a scale.

    `train_tokens`: of the training split and of the exercises that the scale adds to it. `epochs`:
    planned tokens over these. Both are None where they were not measured. `forecasts` are in the
    order of docs/checks.md, without checks whose evidence a preview does not have.
    """

    scale: str
    profile: str
    parameters: int
    planned_tokens: int
    target_tokens: int
    train_tokens: Interval | None
    exercise_tokens: int = Field(description="of train_tokens, about: the scale's fraction of them")
    epochs: Interval | None
    unread_fraction: float | None = Field(
        description="of the training text that the plan never reads"
    )
    verdict: str
    status: Status
    advice: list[ImportAdvice]
    forecasts: list[Forecast]


class ConversationPart(Record):
    role: str
    text: str
    trained: bool = Field(
        description="whether the loss counts this text: only what the assistant says"
    )


class RowsPreview(Record):
    """Rows of an SFT or eval file.

    details: sentences on their forms, on rows that are left out, on how they are scored.
    conversations: some of them, spread over the file; only SFT rows are shown.
    """

    state: str
    rows: int
    details: list[str]
    conversations: list[list[ConversationPart]]


class Preview(Record):
    """Everything that `data preview` shows."""

    schema_version: int
    pack: str
    name: str
    description: str
    full: bool
    documents: int
    text_bytes: int
    basis: str
    tokens_basis: str
    languages_basis: str
    lines_basis: str
    duplicates: Duplicates
    sft: RowsPreview
    eval: RowsPreview
    sources: list[SourcePreview]
    fit: ScaleFit
