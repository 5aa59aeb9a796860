"""The results of a preview as typed records, which terminal, page and `--json` show.

Every number states its basis: `exact` or `complete` if everything was read, otherwise an interval
or a sentence. An optional value is None if it was not measured, never 0.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from picochat.core.records import Record
from picochat.data.left_out import counted, pattern_of_text
from picochat.facts import DuplicatePair
from picochat.present.values import count

SCHEMA_VERSION = 4
Status = Literal["pass", "warn", "block", "unmeasured"]


class Interval(Record):
    """A value with the 95% interval of its sampling error; all equal if it was counted."""

    value: float
    low: float
    high: float


class LengthBin(Record):
    """Documents of at least `from_characters` and fewer than `to_characters`."""

    from_characters: int
    to_characters: int
    documents: int


class RepeatedLine(Record):
    """A line that is in at least `documents` and at most `documents_at_most` documents."""

    line: str
    documents: int
    documents_at_most: int
    fraction: float = Field(description="of the documents looked at")


class ShownDocument(Record):
    """The beginning of a document, or all of it (`whole`); it has `characters` in all."""

    id: str
    characters: int
    text: str
    whole: bool


class LanguageMix(Record):
    """Fractions of the documents looked at; `too_short` and `unsure` ones have no language."""

    documents: int
    fractions: dict[str, float] = Field(
        description="language code (ISO 639) -> fraction, largest first"
    )
    too_short: float
    unsure: float


class SourcePreview(Record):
    """One source; lengths are in characters.

    exact: documents and text_bytes were counted, not scaled up.
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
    files_left_out: dict[str, int] = Field(
        description="ending -> files of the folder that are not read because of it"
    )
    repeated_ids: int = Field(
        description="of the rows looked at, those with the id of an earlier row"
    )
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

    def left_out(self) -> list[str]:
        """What is not taken as it stands: files of other endings, ids that repeat."""
        lines: list[str] = []
        if self.files_left_out:
            pattern = pattern_of_text(self.files_left_out)
            how = f'; "include": ["{pattern}"] in the recipe takes those alone' if pattern else ""
            lines.append(f"files of other endings: {counted(self.files_left_out)}{how}")
        if self.repeated_ids:
            lines.append(
                f"the ids of {count(self.repeated_ids)} rows, which repeat that of an earlier row:"
                " FILE#ROW is theirs"
            )
        return lines


class ClusterText(Record):
    """One document of a cluster; `text` starts at `first_character` of its `characters`."""

    id: str
    source: str
    text: str
    first_character: int
    characters: int


class DuplicateCluster(Record):
    """Documents with the same or nearly the same text.

    texts: the first document of an exact cluster, the first two of a near one.
    """

    kind: Literal["exact", "near"]
    documents: int
    texts: list[ClusterText]


class Duplicates(Record):
    """Counts and examples of duplicates.

    complete: every document was compared with every other. Otherwise the fractions are of a sample
    and far too low, because a sample rarely holds both documents of a pair.
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
    """The result that one check of the preflight is expected to have.

    The gate's table was applied to both ends of the measured interval. `status` is the worse
    result, `better` the better one. If they are equal, the sampling error does not matter.
    """

    check: str
    status: Status
    better: Status
    measured: Interval
    unit: str
    bound: str = Field(description="the bound of the check that `status` follows from")


class ImportAdvice(Record):
    """The number of rows that an import should request instead, and the command for it."""

    source: str
    rows_now: int
    max_rows: int
    command: str


class ScaleFit(Record):
    """Whether a pack is large enough for a scale.

    train_tokens: of the training split and of the exercises that the scale adds. epochs: planned
    tokens divided by train_tokens. Both are None if they were not measured. forecasts: in the order
    of docs/checks.md, without checks that a preview has no evidence for.
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
