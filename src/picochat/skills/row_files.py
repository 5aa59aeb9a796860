"""Reads the files of SFT rows and eval rows that a pack names, in every form of `row_forms.py`.

A file is JSON lines (also compressed: .gz, .zst), a JSON list, or parquet. A row of another maker
that holds no conversation to train on is left out and counted with its reason. A row of picochat's
own form with a wrong field is an error, because a rule that is misspelt would never be applied.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, Generic, cast

import pyarrow as pa
import pyarrow.parquet as pq

from picochat.core.errors import BadInput, Problem
from picochat.core.records import load_json, parse_record
from picochat.data.formats.file_rows import LONGEST_LINE_BYTES, UTF8_MARK, read_lines
from picochat.data.formats.parquet_rows import python_rows
from picochat.facts import RowsLeftOut, RowsRead
from picochat.present.values import byte_quantity
from picochat.skills.row_forms import Converted, Unusable, eval_fields, sft_fields
from picochat.skills.task_rows import EvalRow, Row, SftRow, scored_by

MOST_PROBLEMS_SHOWN = 20
LINES_NAMED = 5
FORMS = "docs/own-data.md shows the forms of rows"
ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".parquet")


@dataclass(frozen=True)
class RowFile(Generic[Row]):
    """The rows of a file, and what became of all of its rows."""

    rows: list[Row]
    read: RowsRead


def read_sft_rows(path: Path) -> RowFile[SftRow]:
    """The SFT rows of a file; rows without an id get one from their line.

    Raises BadInput with all problems, equal ones together with their lines; also where the file has
    no rows, or more than half of them are left out.
    """
    return _read_rows(path, SftRow, sft_fields, "SFT rows", "sft")


def read_eval_rows(path: Path) -> RowFile[EvalRow]:
    """The eval rows of a file. Errors as in `read_sft_rows`.

    A row that has a reference answer and no other rule is scored by an exact match with it.
    """
    found = _read_rows(path, EvalRow, eval_fields, "eval rows", "eval")
    return RowFile([_with_exact_match(row) for row in found.rows], found.read)


def _with_exact_match(row: EvalRow) -> EvalRow:
    if row.reference_answer is None or scored_by(row) != "nothing":
        return row
    return row.model_copy(update={"normalized_answers": [row.reference_answer]})


def _read_rows(
    path: Path,
    model: type[Row],
    fields_of: Callable[[Mapping[str, Any]], Converted],
    what: str,
    prefix: str,
) -> RowFile[Row]:
    rows: list[Row] = []
    problems: dict[str, list[int]] = {}
    left_out: dict[str, list[int]] = {}
    forms: dict[str, int] = {}
    dropped: dict[str, int] = {}
    line_of: dict[str, int] = {}
    for line, value in _values(path, what):
        if isinstance(value, Problem):
            problems.setdefault(value.what, []).append(line)
            continue
        try:
            found = fields_of(value)
            fields = {"id": f"{prefix}-line-{line}", **found.fields}
            if found.form != "own" and fields["id"] in line_of:
                fields["id"] = f"{prefix}-line-{line}"
            row = parse_record(model, fields, f"line {line}")
        except Unusable as reason:
            left_out.setdefault(str(reason), []).append(line)
            continue
        except BadInput as error:
            for problem in error.problems:
                problems.setdefault(problem.what, []).append(line)
            continue
        if row.id in line_of:
            known = f"id {row.id!r} stands on line {line_of[row.id]} already"
            problems.setdefault(known, []).append(line)
        line_of.setdefault(row.id, line)
        rows.append(row)
        forms[found.form] = forms.get(found.form, 0) + 1
        for key in found.dropped:
            dropped[key] = dropped.get(key, 0) + 1
    _require(path, what, len(rows), problems, left_out)
    return RowFile(
        rows,
        RowsRead(
            forms=dict(sorted(forms.items())),
            left_out={
                reason: RowsLeftOut(rows=len(lines), first_line=lines[0])
                for reason, lines in sorted(left_out.items())
            },
            dropped_keys=dict(sorted(dropped.items())),
        ),
    )


def _require(
    path: Path,
    what: str,
    usable: int,
    problems: Mapping[str, list[int]],
    left_out: Mapping[str, list[int]],
) -> None:
    """Raise BadInput where the file has problems, no usable row, or too few of them."""
    if problems:
        count = sum(len(lines) for lines in problems.values())
        raise BadInput(
            f"{what} {path} are not usable: {count} problem{'s' if count != 1 else ''}",
            problems=_grouped(problems),
            fix=f"mend or remove these lines; {FORMS}",
        )
    lost = sum(len(lines) for lines in left_out.values())
    if not usable and not lost:
        fix = f"write rows into it, or leave it out of the pack; {FORMS}"
        raise BadInput(f"{what} {path}: the file has no rows", fix=fix)
    if lost > usable:
        raise BadInput(
            f"{what} {path}: {lost} of {usable + lost} rows cannot be used",
            problems=_grouped(left_out),
            fix=f"remove these rows or give them another form; {FORMS}",
        )


def _grouped(problems: Mapping[str, list[int]]) -> list[Problem]:
    """One problem for each kind, with the lines that have it."""
    shown = [
        Problem(f"{_named(lines)}: {what}")
        for what, lines in sorted(problems.items(), key=lambda item: item[1][0])
    ]
    more = len(shown) - MOST_PROBLEMS_SHOWN
    rest = [Problem(f"... and {more} more kinds of problems")] if more > 0 else []
    return [*shown[:MOST_PROBLEMS_SHOWN], *rest]


def _named(lines: list[int]) -> str:
    if len(lines) == 1:
        return f"line {lines[0]}"
    named = ", ".join(map(str, lines[:LINES_NAMED]))
    more = len(lines) - LINES_NAMED
    return f"lines {named} and {more:,} more" if more > 0 else f"lines {named}"


# ---- values of a file ----------------------------------------------------------------------------


def _values(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any] | Problem]]:
    """(number from 1, object or what is wrong with it) of every row of the file."""
    if not path.name.lower().endswith(ENDINGS):
        raise BadInput(
            f"{what} {path}: the ending says nothing that picochat reads",
            fix=f"known endings: {', '.join(ENDINGS)}",
        )
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise BadInput(f"{what} {path}: the file does not exist", fix="correct the path") from None
    except PermissionError:
        raise BadInput(
            f"{what} {path} may not be read", fix=f"chmod u+r {quote(str(path))}"
        ) from None
    except OSError as error:
        raise BadInput(
            f"{what} {path}: {error.strerror}", fix="name a file that can be read"
        ) from None
    try:
        if path.name.lower().endswith(".parquet"):
            yield from _parquet_values(path)
        elif path.name.lower().endswith(".json"):
            yield from _list_values(path, what)
        else:
            yield from _line_values(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise BadInput(
            f"{what} {path} cannot be read: {error}", fix="make or download the file again"
        ) from None


def _parquet_values(path: Path) -> Iterator[tuple[int, dict[str, Any] | Problem]]:
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1000):
            for row in python_rows(batch):
                number += 1
                # Through JSON, so that a date or a number of a table is what it would be in lines.
                # A null is a cell without a value: in lines the key would be absent.
                given = {key: value for key, value in row.items() if value is not None}
                yield number, json.loads(json.dumps(given, default=str))


def _list_values(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any] | Problem]]:
    data = path.read_bytes()
    found = _loaded(data.removeprefix(UTF8_MARK)) if data.strip() else []
    if isinstance(found, Problem):
        raise BadInput(f"{what} {path}: {found.what}", fix=f"mend the file; {FORMS}")
    if isinstance(found, dict):
        raise BadInput(
            f"{what} {path}: a list of rows is needed, found one object",
            fix="put the rows into one list, or write one row a line and name the file .jsonl",
        )
    for number, value in enumerate(cast("list[object]", found), start=1):
        yield number, _object(value)


def _line_values(path: Path) -> Iterator[tuple[int, dict[str, Any] | Problem]]:
    with path.open("rb") as stream:
        for number, line in enumerate(read_lines(stream, str(path)), start=1):
            if line is None:
                yield number, Problem(f"longer than {byte_quantity(LONGEST_LINE_BYTES)}")
            elif line.strip():
                yield number, _object(_loaded(line))


def _loaded(data: bytes) -> object:
    """The JSON value, or a Problem."""
    try:
        return load_json(data.decode("utf-8"))
    except UnicodeDecodeError:
        return Problem("not UTF-8 text")
    except json.JSONDecodeError as error:
        return Problem(f"not valid JSON ({error.msg})")
    except (ValueError, RecursionError) as error:
        return Problem(f"not usable JSON ({error})")


def _object(value: object) -> dict[str, Any] | Problem:
    if isinstance(value, (dict, Problem)):
        return cast("dict[str, Any] | Problem", value)
    return Problem(f"a JSON object is needed, found {type(value).__name__}")
