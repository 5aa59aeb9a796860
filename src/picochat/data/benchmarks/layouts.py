"""Published benchmarks as one kind of row: a context, options that could follow it, and which one
does.

LAYOUTS is the table: how a file's rows are recognised, and what a model is given to read. The
wording is lm-evaluation-harness's for the task of that name, zero-shot, so that figures compare:
`Question: ...` and `Answer:`, a space, the option. What a row lacks is said as a reason, for the
caller to count. Formats that nobody published are not guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from picochat.core.errors import BadInput
from picochat.core.records import Record

Metric = Literal["acc", "acc_norm"]
Row = Mapping[str, Any]

NO_QUESTION = "no question"
NO_OPTIONS = "fewer than two options with a text"
NO_ANSWER = "no answer, or one that is none of the options"
NO_UNICODE = "text that is no valid Unicode"
OTHER_KEYS = "other keys than the file's first row"


class BenchmarkRow(Record):
    """One item.

    A model reads `context`, a space and an option; `question` is what a leak of the item would
    hold.
    """

    id: str
    context: str
    options: list[str]
    correct: int
    question: str


@dataclass(frozen=True)
class Item:
    """What a layout makes of a row of a file."""

    context: str
    options: Sequence[Any]
    correct: int | None
    question: str


@dataclass(frozen=True)
class Layout:
    """`keys`: what its rows hold, in words.

    `read`: a row as an item. `read_by`: the accuracy that the gate reads.
    """

    name: str
    keys: str
    fits: Callable[[Row], bool]
    read: Callable[[Row], Item]
    read_by: Metric


def read_item(layout: Layout, row: Row, id: str) -> BenchmarkRow | str:
    """The row as an item, or why it cannot be one."""
    if not layout.fits(row):
        return OTHER_KEYS
    item = layout.read(row)
    if not item.question.strip():
        return NO_QUESTION
    options = [option for option in item.options if isinstance(option, str) and option.strip()]
    if len(options) < 2 or len(options) < len(item.options):
        return NO_OPTIONS
    if item.correct is None or not 0 <= item.correct < len(options):
        return NO_ANSWER
    if not all(_is_unicode(text) for text in (item.context, *options)):
        return NO_UNICODE
    return BenchmarkRow(
        id=id,
        context=item.context,
        options=options,
        correct=item.correct,
        question=item.question.strip(),
    )


def layout_of(row: Row, where: str) -> Layout:
    """The layout that the row fits. Raises BadInput that lists the layouts there are."""
    for layout in LAYOUTS:
        if layout.fits(row):
            return layout
    known = "; ".join(f"{layout.name} ({layout.keys})" for layout in LAYOUTS)
    raise BadInput(
        f"{where} fits no benchmark layout: its rows hold {', '.join(sorted(row)) or 'nothing'}",
        fix=f"known: {known}",
    )


def find_layout(name: str) -> Layout:
    return next(layout for layout in LAYOUTS if layout.name == name)


# ---- ARC -----------------------------------------------------------------------------------------


def _is_arc(row: Row) -> bool:
    asked = row.get("question")
    if isinstance(asked, dict):
        return isinstance(asked.get("choices"), list) and "answerKey" in row
    return "question" in row and isinstance(row.get("choices"), dict) and "answerKey" in row


def _arc(row: Row) -> Item:
    """AI2 Reasoning Challenge (Clark et al. 2018), as the authors' jsonl or as allenai/ai2_arc on
    the Hub has it.

    The answer key is one of the labels, which are letters in most rows and digits in some.
    """
    asked, choices = row["question"], row.get("choices")
    if isinstance(asked, dict):
        listed = [choice if isinstance(choice, dict) else {} for choice in asked["choices"]]
        stem, texts, labels = (
            asked.get("stem"),
            [c.get("text") for c in listed],
            [c.get("label") for c in listed],
        )
    else:
        found = choices if isinstance(choices, dict) else {}
        stem, texts, labels = asked, list(found.get("text") or ()), list(found.get("label") or ())
    correct = _index(labels, row["answerKey"]) if len(labels) == len(texts) else None
    return Item(_asked(stem), texts, correct, _text(stem))


# ---- HellaSwag -----------------------------------------------------------------------------------


def _is_hellaswag(row: Row) -> bool:
    return isinstance(row.get("endings"), list) and "ctx_a" in row and "activity_label" in row


def _hellaswag(row: Row) -> Item:
    """HellaSwag (Zellers et al. 2019), as the authors' jsonl or as Rowan/hellaswag on the Hub has
    it: ctx_a and ctx_b begin a text.

    Of WikiHow's marks, ` [title]` ends a sentence and other words in brackets go. A label is a
    number, or its digits as text.
    """
    begun = f"{_text(row['ctx_a'])} {_text(row.get('ctx_b')).capitalize()}"
    endings = [
        without_marks(ending) if isinstance(ending, str) else ending for ending in row["endings"]
    ]
    return Item(
        without_marks(f"{_text(row['activity_label'])}: {begun}"),
        endings,
        _number(row.get("label")),
        without_marks(begun),
    )


def without_marks(text: str) -> str:
    """A WikiHow text as prose.

    Pairs of blanks are joined once, not until none is left, as the published figures have it.
    """
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


# ---- PIQA ----------------------------------------------------------------------------------------


def _is_piqa(row: Row) -> bool:
    return {"goal", "sol1", "sol2"} <= row.keys()


def _piqa(row: Row) -> Item:
    """PIQA (Bisk et al. 2020): a goal and two solutions; the label stands in the row, or on its
    line of the -labels.lst beside it.
    """
    return Item(
        _asked(row["goal"]),
        [row["sol1"], row["sol2"]],
        _number(row.get("label")),
        _text(row["goal"]),
    )


# ---- MMLU ----------------------------------------------------------------------------------------

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _is_mmlu(row: Row) -> bool:
    return (
        isinstance(row.get("question"), str)
        and isinstance(row.get("choices"), list)
        and "answer" in row
    )


def _mmlu(row: Row) -> Item:
    """MMLU (Hendrycks et al. 2021), as cais/mmlu on the Hub has it: options are listed with
    letters, and a letter is what follows.

    The answer is a number, a letter, or the option itself.
    """
    texts = [_text(choice) for choice in row["choices"]][: len(LETTERS)]
    subject = _text(row.get("subject")).replace("_", " ")
    about = (
        f"The following are multiple choice questions (with answers) about {subject}.\n\n"
        if subject
        else ""
    )
    listed = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False))
    context = f"{about}{_text(row['question']).strip()}\n{listed}\nAnswer:"
    letters = list(LETTERS[: len(texts)]) if all(text.strip() for text in texts) else []
    return Item(context, letters, _labelled(row["answer"], texts), _text(row["question"]))


# ---- chat ----------------------------------------------------------------------------------------

OPTION = re.compile(r"^[ \t]*([A-Z])[.:)][ \t]*", re.MULTILINE)


def _is_chat(row: Row) -> bool:
    return isinstance(row.get("input"), list) and "ideal" in row


def _chat(row: Row) -> Item:
    """Chat rows of OpenAI's evals (`input`, a list of messages; `ideal`, a letter): quartz, logiqa
    and others of its registry.

    What the user says is the context, options included, and an option's text is what follows, as
    lm-evaluation-harness does for LogiQA. The system's message, which asks for a letter, is left
    out.
    """
    said = "\n".join(
        _text(m.get("content"))
        for m in row["input"]
        if isinstance(m, dict) and m.get("role") == "user"
    ).strip()
    asked = said.removesuffix("Answer:").rstrip()
    options = listed_options(asked)
    ideal = (
        row["ideal"][0]
        if isinstance(row["ideal"], list) and len(row["ideal"]) == 1
        else row["ideal"]
    )
    return Item(f"{asked}\nAnswer:", options, _labelled(ideal, options), asked)


def listed_options(text: str) -> list[str]:
    """The last list of options in a text (`A: ...`, `B. ...`), without labels; and without second
    labels where all have one.
    """
    marks = list(OPTION.finditer(text))
    first = max(
        (number for number, mark in enumerate(marks) if mark.group(1) == "A"), default=len(marks)
    )
    marks = marks[first:]
    if not marks or [mark.group(1) for mark in marks] != list(LETTERS[: len(marks)]):
        return []
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    options = [text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
    doubled = [f"{mark.group(1)}." for mark in marks]
    if all(option.startswith(label) for option, label in zip(options, doubled, strict=True)):
        return [
            option.removeprefix(label).strip()
            for option, label in zip(options, doubled, strict=True)
        ]
    return options


LAYOUTS: tuple[Layout, ...] = (
    #      name         its rows hold                                            recognised     read         the gate reads
    Layout("arc",       "question, choices with labels, answerKey",              _is_arc,       _arc,        "acc_norm"),
    Layout("hellaswag", "activity_label, ctx_a, ctx_b, endings, label",          _is_hellaswag, _hellaswag,  "acc_norm"),
    Layout("piqa",      "goal, sol1, sol2, label or a -labels.lst beside it",    _is_piqa,      _piqa,       "acc_norm"),
    Layout("mmlu",      "question, choices, answer",                             _is_mmlu,      _mmlu,       "acc"),
    Layout("chat",      "input, a list of messages, and ideal",                  _is_chat,      _chat,       "acc_norm"),
)  # fmt: skip


def _asked(question: object) -> str:
    return f"Question: {_text(question)}\nAnswer:"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _index(labels: Sequence[object], key: object) -> int | None:
    return labels.index(key) if key in labels else None


def _number(value: object) -> int | None:
    """A label as a number; test splits have -1 or an empty text, which is none."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _labelled(answer: object, options: Sequence[str]) -> int | None:
    if isinstance(answer, str) and len(answer.strip()) == 1 and answer.strip() in LETTERS:
        return LETTERS.index(answer.strip())
    return options.index(answer) if answer in options else _number(answer)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
        return False
    return True
