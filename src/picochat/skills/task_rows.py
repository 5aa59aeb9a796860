"""SFT rows and eval rows: their fields, how questions become rows, how rows are read and written.

Rows of other makers are accepted in the known fields. An unknown key is refused, because a rule
under that key would never be applied. Keys that begin with `mixture_` are tags and kept as such.
Does not score replies (`scoring.py`), nor fix the rows of a run (`prepare.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import AfterValidator, AliasChoices, Field, model_validator

from picochat.core.errors import BadInput, Problem
from picochat.core.records import Record, load_json, parse_record, read_jsonl
from picochat.skills.skill import LONGEST_REPLY_WORDS, AnswerStyle, Question
from picochat.skills.skill_table import OTHER, SKILLS, skill_of

MOST_PROBLEMS_SHOWN = 20
REMEDY = "picochat data task-pack --dataset-pack {pack} --profile release_skills --force"
Tag = str | int | float | bool | None


def _known(skill: str) -> str:
    names = [each.name for each in SKILLS]
    if skill not in (*names, OTHER):
        raise ValueError(f"no skill; it is one of {', '.join(names)} and {OTHER}")
    return skill


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


class SftRow(Record):
    """One example: what the user says and what the model shall answer.

    fit_*: the rule that its own reply is scored by.
    """

    id: str
    user: str = Field(min_length=1, pattern=r"\S")
    assistant: str = Field(min_length=1, pattern=r"\S")
    system: str | None = None
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


class EvalRow(Record):
    """One question and the rule that decides about a reply."""

    id: str
    user: str = Field(min_length=1, pattern=r"\S")
    system: str | None = None
    category: str = "chat"
    skill: SkillName = Field(
        default=OTHER, description="follows from the category unless it is given"
    )
    group: str | None = Field(
        default=None, validation_alias=AliasChoices("group", "group_id", "template")
    )
    item: str | None = None
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
        default=None, description="a reply that passes; nothing is scored against it"
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

    @model_validator(mode="after")
    def _choice_is_whole(self) -> EvalRow:
        if self.correct_choice is not None and self.correct_choice not in self.choice_labels:
            raise ValueError(
                f"correct_choice {self.correct_choice!r} is none of choice_labels"
                f" {self.choice_labels}"
            )
        if self.choice_options and len(self.choice_options) != len(self.choice_labels):
            raise ValueError(
                f"{len(self.choice_options)} choice_options for {len(self.choice_labels)}"
                " choice_labels"
            )
        return self


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
        update={"id": f"eval-{row.skill}-{number:05d}", "split": "eval"}
    )


def as_eval_row(row: SftRow) -> EvalRow:
    """The eval row that asks an SFT row's own question, to measure the fit on SFT rows."""
    answer = row.expected_final_answer or row.fit_normalized_answer
    return EvalRow(
        id=row.id,
        user=row.user,
        system=row.system,
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


# ---- from files ----------------------------------------------------------------------------------


def read_sft_rows(path: Path) -> list[SftRow]:
    """The SFT rows of a .jsonl file; rows without an id get one from their line.

    Raises BadInput with every problem and its line, the first 20 shown, and for an empty file.
    """
    return _read_rows(path, SftRow, "SFT rows", "sft")


def read_eval_rows(path: Path) -> list[EvalRow]:
    """The eval rows of a .jsonl file. Errors as in `read_sft_rows`."""
    return _read_rows(path, EvalRow, "eval rows", "eval")


def _read_rows(path: Path, model: type[Row], what: str, prefix: str) -> list[Row]:
    rows: list[Row] = []
    problems: list[Problem] = []
    line_of: dict[str, int] = {}
    for number, line in _lines(path, what):
        row = _row(line, number, model, prefix, problems)
        if row is None:
            continue
        if row.id in line_of:
            problems.append(
                Problem(f"line {number}: id {row.id!r} stands on line {line_of[row.id]} already")
            )
        line_of.setdefault(row.id, number)
        rows.append(row)
    if problems:
        raise BadInput(
            f"{what} {path} are not usable: {_count(problems)}",
            problems=_first(problems),
            fix=REMEDY.format(pack="PACK"),
        )
    if not rows:
        raise BadInput(f"{what} {path}: the file has no rows", fix=REMEDY.format(pack="PACK"))
    return rows


def _lines(path: Path, what: str) -> Iterator[tuple[int, bytes]]:
    """(line number, bytes) of the lines that are not blank."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        fix = f"check the path; in a pack: {REMEDY.format(pack='PACK')}"
        raise BadInput(f"{what} {path}: the file does not exist", fix=fix) from None
    except (IsADirectoryError, PermissionError) as error:
        raise BadInput(
            f"{what} {path}: {error.strerror}", fix="name a file that can be read"
        ) from None
    with stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield number, line


def _row(
    line: bytes, number: int, model: type[Row], prefix: str, problems: list[Problem]
) -> Row | None:
    """The row of a line, or None with what is wrong with it added to `problems`."""
    try:
        value = load_json(line.decode("utf-8"))
    except UnicodeDecodeError:
        problems.append(Problem(f"line {number}: not UTF-8 text"))
        return None
    except json.JSONDecodeError as error:
        problems.append(Problem(f"line {number}: not valid JSON ({error.msg})"))
        return None
    except (ValueError, RecursionError) as error:
        problems.append(Problem(f"line {number}: not usable JSON ({error})"))
        return None
    if not isinstance(value, dict):
        problems.append(
            Problem(f"line {number}: a JSON object is needed, found {type(value).__name__}")
        )
        return None
    try:
        return parse_record(model, {"id": f"{prefix}-line-{number}", **value}, f"line {number}")
    except BadInput as error:
        problems += [Problem(f"line {number}: {problem.what}") for problem in error.problems]
        return None


def _count(problems: Sequence[Problem]) -> str:
    return f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"


def _first(problems: Sequence[Problem]) -> list[Problem]:
    more = len(problems) - MOST_PROBLEMS_SHOWN
    rest = [Problem(f"... and {more} more")] if more > 0 else []
    return [*problems[:MOST_PROBLEMS_SHOWN], *rest]


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
