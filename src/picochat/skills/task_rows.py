"""SFT rows and eval rows: their fields, and how questions become rows.

An unknown key is refused, because a rule under that key would never be applied. Keys that begin
with `mixture_` are tags and kept as such. Rows in the forms of other makers are converted first
(`row_forms.py`). Does not read a user's files (`row_files.py`), score replies (`scoring.py`) or fix
the rows of a run (`prepare.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, AliasChoices, Field, model_validator

from picochat.core.records import Record, parse_record, read_jsonl
from picochat.skills.skill import LONGEST_REPLY_WORDS, AnswerStyle, Question
from picochat.skills.skill_table import OTHER, SKILLS, skill_of

Tag = str | int | float | bool | None


def _known(skill: str) -> str:
    names = [each.name for each in SKILLS]
    if skill not in (*names, OTHER):
        raise ValueError(f"no skill; it is one of {', '.join(names)} and {OTHER}")
    return skill


def _compiles(pattern: str) -> str:
    try:
        holds_match(pattern, "")
    except pa.ArrowInvalid as error:
        raise ValueError(f"not an RE2 expression: {error}") from None
    return pattern


def holds_match(pattern: str, text: str) -> bool:
    """Whether the text holds a match. Takes time linear in the text, whatever the pattern."""
    # Not by the module `re`: some patterns take it years for a reply of a few hundred characters.
    options = pc.MatchSubstringOptions(pattern)
    return bool(pc.call_function("match_substring_regex", [pa.scalar(text)], options).as_py())


SkillName = Annotated[str, AfterValidator(_known)]


def _complete(value: Any) -> Any:
    """The row with `mixture_*` keys moved into `tags`, and with the skill of its category."""
    if not isinstance(value, dict):
        return value
    row = cast("dict[str, Any]", value)
    tags = {key: item for key, item in row.items() if key.startswith("mixture_")}
    kept = {key: item for key, item in row.items() if key not in tags}
    if tags and isinstance(kept.get("tags", {}), dict):
        kept["tags"] = {**kept.get("tags", {}), **tags}
    category = kept.get("category", "chat")
    return {"skill": skill_of(category) if isinstance(category, str) else OTHER, **kept}


class Message(Record):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


ChoiceRow = TypeVar("ChoiceRow", "SftRow", "EvalRow")


def _choice_is_whole(row: ChoiceRow) -> ChoiceRow:
    labels, options = row.choice_labels, row.choice_options
    if row.correct_choice is not None and row.correct_choice not in labels:
        raise ValueError(f"correct_choice {row.correct_choice!r} is none of choice_labels {labels}")
    if options and len(options) != len(labels):
        raise ValueError(f"{len(options)} choice_options for {len(labels)} choice_labels")
    if not all(text.strip() for text in (*labels, *options)):
        raise ValueError("a label or an option is empty")
    return row


class SftRow(Record):
    """One conversation: what was said before, what the user says, what the model shall answer.

    Every turn of the assistant is trained, also those in `history`. fit_*: the rule that its own
    last reply is scored by.
    """

    id: str
    user: str = Field(min_length=1, pattern=r"\S", description="the last turn of the user")
    assistant: str = Field(min_length=1, pattern=r"\S", description="the reply to it")
    system: str | None = None
    history: list[Message] = Field(
        default=[], description="the turns between `system` and `user`, in order"
    )
    category: str = "chat"
    skill: SkillName = Field(
        default=OTHER, description="follows from the category unless it is given"
    )
    group: str | None = Field(
        default=None, validation_alias=AliasChoices("group", "group_id", "template")
    )
    item: str | None = Field(
        default=None, description="what must not be asked in eval as well: a pair, a word, a fact"
    )
    answerable: bool = True
    curriculum_stage: str | None = None
    answer_style: Literal["direct", "scratchpad"] | None = None
    expected_final_answer: str | None = None
    choice_labels: list[str] = Field(default=[])
    choice_options: list[str] = Field(default=[])
    correct_choice: str | None = None
    fit_must_include: list[str] = Field(default=[])
    fit_must_include_any: list[list[str]] = Field(default=[])
    fit_must_not_include: list[str] = Field(default=[])
    fit_reference_answer: str | None = None
    fit_normalized_answer: str | None = None
    fit_normalized_answer_required: bool = True
    fit_max_words: int | None = None
    tags: dict[str, Tag] = Field(default={})

    _completed = model_validator(mode="before")(_complete)
    _whole = model_validator(mode="after")(_choice_is_whole)


class EvalRow(Record):
    """One question and the rule that decides about a reply."""

    id: str
    user: str = Field(min_length=1, pattern=r"\S", description="the question")
    system: str | None = None
    history: list[Message] = Field(
        default=[], description="the turns between `system` and `user`, in order"
    )
    category: str = "chat"
    skill: SkillName = Field(
        default=OTHER, description="follows from the category unless it is given"
    )
    group: str | None = Field(
        default=None, validation_alias=AliasChoices("group", "group_id", "template")
    )
    item: str | None = None
    subject: str | None = Field(
        default=None,
        description=(
            "what the question asks about. An SFT row that holds its words and the reference"
            " answer counts as one that answers it"
        ),
    )
    answerable: bool = True
    curriculum_stage: str | None = None
    answer_style: Literal["direct", "scratchpad"] | None = None
    must_include: list[str] = Field(default=[])
    must_include_any: list[list[str]] = Field(
        default=[], description="of each group the reply holds at least one"
    )
    must_not_include: list[str] = Field(default=[])
    required_entities: list[str] = Field(default=[])
    expected: str | None = None
    reference_answer: str | None = Field(
        default=None,
        description=(
            "a reply that passes. Without another rule, the reply must equal it after"
            " normalization: NFKC, lower case, single spaces, no full stop at the end"
        ),
    )
    regex: Annotated[str, AfterValidator(_compiles)] | None = Field(
        default=None, description="the reply must hold a match of this RE2 expression"
    )
    normalized_answer: str | None = None
    normalized_answers: list[str] = Field(default=[])
    normalized_answer_required: bool = True
    final_answer: str | None = None
    aliases: list[str] = Field(default=[])
    choice_labels: list[str] = Field(default=[])
    choice_options: list[str] = Field(default=[])
    correct_choice: str | None = None
    min_words: int | None = None
    max_words: int | None = None
    min_chars: int | None = None
    max_chars: int | None = None
    split: str | None = None
    level: str | int | None = None
    robustness_variant: str | None = None
    require_corpus_support: Literal[False] = Field(
        default=False, description="not supported: no reply is looked up in the corpus"
    )
    tags: dict[str, Tag] = Field(default={})

    _completed = model_validator(mode="before")(_complete)

    _whole = model_validator(mode="after")(_choice_is_whole)


Row = TypeVar("Row", SftRow, EvalRow)


# ---- from questions ------------------------------------------------------------------------------


def sft_row(question: Question, number: int, answer_style: AnswerStyle) -> SftRow:
    scored = question.final_answer is not None
    return SftRow(
        id=f"sft-{skill_of(question.category)}-{number:05d}",
        user=question.prompt,
        assistant=question.reply,
        category=question.category,
        item=question.item,
        answerable=question.answerable,
        curriculum_stage=question.level,
        answer_style=answer_style if scored else None,
        expected_final_answer=question.final_answer,
        choice_labels=list("ABCD"[: len(question.options)]),
        choice_options=list(question.options),
        correct_choice=question.correct_choice,
        fit_must_include_any=[list(group) for group in question.must_include_any],
    )


def eval_row(question: Question, number: int, answer_style: AnswerStyle) -> EvalRow:
    row = sft_row(question, number, answer_style)
    return as_eval_row(row).model_copy(
        update={
            "id": f"eval-{row.skill}-{number:05d}",
            "split": "eval",
            "subject": question.subject,
        }
    )


def as_eval_row(row: SftRow) -> EvalRow:
    """The eval row that asks an SFT row's own question, to measure the fit on SFT rows."""
    answer = row.expected_final_answer or row.fit_normalized_answer
    return EvalRow(
        id=row.id,
        user=row.user,
        system=row.system,
        history=row.history,
        category=row.category,
        group=row.group,
        item=row.item,
        answerable=row.answerable,
        curriculum_stage=row.curriculum_stage,
        answer_style=row.answer_style,
        must_include=row.fit_must_include,
        must_include_any=row.fit_must_include_any,
        must_not_include=row.fit_must_not_include,
        reference_answer=row.fit_reference_answer or row.assistant,
        normalized_answers=[answer] if answer is not None else [],
        normalized_answer_required=row.fit_normalized_answer_required,
        choice_labels=row.choice_labels,
        choice_options=row.choice_options,
        correct_choice=row.correct_choice,
        max_words=row.fit_max_words
        or (LONGEST_REPLY_WORDS if row.answer_style == "scratchpad" else None),
        tags=row.tags,
    )


def scored_by(row: EvalRow) -> str:
    """The kind of rule that decides about replies to a row, in words; `nothing` without one."""
    answers = (row.normalized_answer, row.final_answer, row.expected)
    if row.correct_choice is not None:
        return "choice"
    if row.regex is not None:
        return "regular expression"
    if row.normalized_answer_required and any((*answers, *row.normalized_answers, *row.aliases)):
        return "exact answer"
    if row.must_include or row.must_include_any or row.must_not_include or row.required_entities:
        return "phrases"
    if not row.answerable:
        return "refusal"
    if any((row.min_words, row.max_words, row.min_chars, row.max_chars)):
        return "length"
    return (
        "rules of its skill" if any(s.name == row.skill and s.rules for s in SKILLS) else "nothing"
    )


# ---- published rows ------------------------------------------------------------------------------


def read_published_rows(path: Path, model: type[Row]) -> Iterator[Row]:
    """The rows of a published `rows` artifact, one by one."""
    for number, value in read_jsonl(path, "rows"):
        yield parse_record(model, value, f"{path}, line {number}")


def row_json(row: SftRow | EvalRow) -> dict[str, Any]:
    """The row as it is written: what differs from the defaults, and the fields that all read."""
    # The five that every reader needs stand there even where they are the default.
    always = {
        name: getattr(row, name) for name in ("id", "user", "category", "skill", "answerable")
    }
    return {**json.loads(row.model_dump_json(exclude_defaults=True)), **always}
