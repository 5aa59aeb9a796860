"""Read files of published benchmarks as items: a context, options, and the correct option.

LAYOUTS has one row for each format: how to recognise its rows, and what a model reads. The wording
is that of the lm-evaluation-harness task of that name, zero-shot, so that figures compare:
`Question: ...`, `Answer:`, a space, the option. Rows that are not items are counted by reason.
Other formats are refused.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from picochat.core.errors import BadInput, Problem
from picochat.core.records import Record
from picochat.data.formats.file_rows import read_objects

Metric = Literal["acc", "acc_norm"]
Row = Mapping[str, Any]

NO_QUESTION = "no question"
NO_OPTIONS = "fewer than two options with a text"
NO_ANSWER = "no answer, or one that is none of the options"
NO_UNICODE = "text that is no valid Unicode"
OTHER_KEYS = "other keys than the file's first row"
LABELS = "-labels.lst"


class BenchmarkRow(Record):
    """One item. A model reads `context`, a space and an option.

    question: the text that the contamination scan searches for.
    """

    id: str
    context: str
    options: list[str]
    correct: int
    question: str


@dataclass(frozen=True)
class Item:
    """A row of a file, as its layout reads it; `read_item` checks it."""

    context: str
    options: Sequence[Any]
    correct: int | None
    question: str


@dataclass(frozen=True)
class Layout:
    """One format in which benchmarks are published.

    keys: of its rows, for messages. fits: whether a row has this format. read_by: the accuracy that
    the gate reads.
    """

    name: str
    keys: str
    fits: Callable[[Row], bool]
    read: Callable[[Row], Item]
    read_by: Metric


def read_item(layout: Layout, row: Row, id: str) -> BenchmarkRow | str:
    """The row as an item, or the reason why it is not one."""
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
    """The layout that the row fits. Raises BadInput that lists the layouts if there is none."""
    for layout in LAYOUTS:
        if layout.fits(row):
            return layout
    known = "; ".join(f"{layout.name} ({layout.keys})" for layout in LAYOUTS)
    raise BadInput(
        f"{where} fits no benchmark layout: its rows hold {', '.join(sorted(row)) or 'nothing'}",
        fix=f"known: {known}",
    )


def find_layout(name: str) -> Layout:
    """The layout of that name. Raises BadInput if there is none."""
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    raise BadInput(f"no benchmark layout is called {name!r}")


# ---- files ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BenchmarkFile:
    """A file. `name`: as published. `path`: on this machine."""

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class BenchmarkItems:
    """All usable items in the order of the files. `unusable`: reason -> rows."""

    layout: Layout
    items: list[BenchmarkRow]
    rows_read: int
    unusable: dict[str, int]


def read_benchmark(name: str, files: Sequence[BenchmarkFile]) -> BenchmarkItems:
    """All items of the benchmark's files, with ids that number the rows from 0.

    Raises BadInput for broken files, a wrong number of labels, and files without any item.
    """
    layout: Layout | None = None
    items: list[BenchmarkRow] = []
    unusable: Counter[str] = Counter()
    number = 0
    for number, row in enumerate(_rows(name, files), start=1):
        layout = layout or layout_of(row, f"external benchmark {name}")
        item = read_item(layout, row, f"{name}-{number - 1:05d}")
        if isinstance(item, BenchmarkRow):
            items.append(item)
        else:
            unusable[item] += 1
    if layout is None or not items:
        why = [Problem(f"{reason}: {count} rows") for reason, count in sorted(unusable.items())]
        raise BadInput(f"external benchmark {name} has no row that can be scored", problems=why)
    return BenchmarkItems(layout, items, number, dict(sorted(unusable.items())))


def sample_items(items: Sequence[BenchmarkRow], most: int) -> list[BenchmarkRow]:
    """At most `most` of the items (0: all), in their order."""
    if most == 0 or len(items) <= most:
        return list(items)
    # By the hash of the id and not by a seed, so that nobody can search for a seed that draws easy
    # items.
    by_hash = sorted(items, key=lambda item: hashlib.sha256(item.id.encode()).digest())
    chosen = {item.id for item in by_hash[:most]}
    return [item for item in items if item.id in chosen]


def _rows(name: str, files: Sequence[BenchmarkFile]) -> Iterator[dict[str, Any]]:
    """The rows of the files in order, with the labels of a -labels.lst if there is one."""
    labels: list[str] | None = None
    for file in files:
        if file.name.endswith(LABELS):
            labels = file.path.read_text(encoding="utf-8", errors="replace").split()
    count = 0
    for file in files:
        if file.name.endswith(LABELS):
            continue
        with file.path.open("rb") as stream:
            for row in read_objects(stream, file.name):
                if labels is not None:
                    row = {"label": labels[count] if count < len(labels) else None, **row}
                yield row
                count += 1
    if labels is not None and count != len(labels):
        raise BadInput(
            f"external benchmark {name}: {count} rows and {len(labels)} labels",
            fix="files of one split",
        )


# ---- ARC -----------------------------------------------------------------------------------------


def _is_arc(row: Row) -> bool:
    asked = row.get("question")
    if isinstance(asked, dict):
        return isinstance(asked.get("choices"), list) and "answerKey" in row
    return "question" in row and isinstance(row.get("choices"), dict) and "answerKey" in row


def _arc(row: Row) -> Item:
    """AI2 Reasoning Challenge (Clark et al. 2018), by the authors or as allenai/ai2_arc on the Hub.

    The answer key is one of the labels: letters in most rows, digits in some.
    """
    asked, choices = row["question"], row.get("choices")
    if isinstance(asked, dict):
        listed = [choice if isinstance(choice, dict) else {} for choice in asked["choices"]]
        stem = asked.get("stem")
        texts, labels = ([choice.get(key) for choice in listed] for key in ("text", "label"))
    else:
        found = choices if isinstance(choices, dict) else {}
        stem, texts, labels = asked, list(found.get("text") or ()), list(found.get("label") or ())
    correct = _index(labels, row["answerKey"]) if len(labels) == len(texts) else None
    return Item(_asked(stem), texts, correct, _text(stem))


# ---- HellaSwag -----------------------------------------------------------------------------------


def _is_hellaswag(row: Row) -> bool:
    return isinstance(row.get("endings"), list) and "ctx_a" in row and "activity_label" in row


def _hellaswag(row: Row) -> Item:
    """HellaSwag (Zellers et al. 2019), by the authors or as Rowan/hellaswag on the Hub.

    ctx_a and ctx_b are the beginning of a text. The label is a number, or its digits as text.
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
    """A WikiHow text as prose: ` [title]` ends a sentence, other words in brackets are removed."""
    # One pass over pairs of blanks, as in the harness, although some pairs may be left.
    prose = IN_BRACKETS.sub(_unclosed, text.strip().replace(" [title]", ". "))
    return prose.replace("  ", " ")


# A bracket that is not closed in its line is matched, too, and kept. Otherwise the search would
# begin again at each of them, and a long row of brackets would take for ever.
IN_BRACKETS = re.compile(r"\[[^\]\n]*(\]?)")


def _unclosed(found: re.Match[str]) -> str:
    return "" if found[1] else found[0]


# ---- PIQA ----------------------------------------------------------------------------------------


def _is_piqa(row: Row) -> bool:
    return {"goal", "sol1", "sol2"} <= row.keys()


def _piqa(row: Row) -> Item:
    """PIQA (Bisk et al. 2020): a goal and two solutions. `_rows` adds labels of a -labels.lst."""
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
    """MMLU (Hendrycks et al. 2021), as cais/mmlu on the Hub.

    The context lists the options with letters, and the model's options are the letters. The answer
    is a number, a letter, or the option itself.
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
    """Chat rows of OpenAI's evals: `input`, a list of messages, and `ideal`, a letter.

    Quartz, LogiQA and others of its registry have this form. The context is the user's message with
    its options, and the model's options are their texts, as in lm-evaluation-harness for LogiQA.
    The system message is left out, because it asks for a letter.
    """
    said = "\n".join(
        _text(m.get("content"))
        for m in row["input"]
        if isinstance(m, dict) and m.get("role") == "user"
    ).strip()
    asked = said.removesuffix("Answer:").rstrip()
    options = listed_options(asked)
    ideal = row["ideal"]
    if isinstance(ideal, list) and len(ideal) == 1:
        ideal = ideal[0]
    return Item(f"{asked}\nAnswer:", options, _labelled(ideal, options), asked)


def listed_options(text: str) -> list[str]:
    """The last list of options in a text (`A: ...`, `B. ...`), without labels.

    If all options have a second label (`A: A. ...`), it is removed too.
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
    second_labels = [f"{letter}." for letter in LETTERS[: len(marks)]]
    if all(map(str.startswith, options, second_labels)):
        return [option[len("A.") :].strip() for option in options]
    return options


LAYOUTS: tuple[Layout, ...] = (
    Layout("arc", "question, choices with labels, answerKey", _is_arc, _arc, "acc_norm"),
    Layout(
        "hellaswag",
        "activity_label, ctx_a, ctx_b, endings, label",
        _is_hellaswag,
        _hellaswag,
        "acc_norm",
    ),
    Layout(
        "piqa", "goal, sol1, sol2, label or a -labels.lst beside it", _is_piqa, _piqa, "acc_norm"
    ),
    Layout("mmlu", "question, choices, answer", _is_mmlu, _mmlu, "acc"),
    Layout("chat", "input, a list of messages, and ideal", _is_chat, _chat, "acc_norm"),
)


def _asked(question: object) -> str:
    return f"Question: {_text(question)}\nAnswer:"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _index(labels: Sequence[object], key: object) -> int | None:
    return labels.index(key) if key in labels else None


def _number(value: object) -> int | None:
    """A label as a number. Some test splits have no labels but "", which gives None, or -1."""
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
