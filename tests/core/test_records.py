"""JSON has one canonical form; records refuse what they do not know and say everything that is
wrong.
"""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picochat.core.errors import BadInput, Problem, did_you_mean
from picochat.core.journal import Journal, read_journal
from picochat.core.publish import FileDigest
from picochat.core.records import (
    Record,
    canonical_json,
    digest_json,
    parse_record,
    read_json,
    read_jsonl,
    read_record,
    write_atomic,
    write_jsonl,
)

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)


class Inner(Record):
    size: int


class Outer(Record):
    name: str
    inner: Inner


@given(values)
def test_canonical_json_round_trips(value: object) -> None:
    assert json.loads(canonical_json(value)) == value


def test_canonical_json_ignores_order_and_refuses_nan() -> None:
    assert digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json({"a": math.nan})


def test_all_problems_of_a_file_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"nmae": "a", "inner": {"size": "5", "sise": 1}}')
    with pytest.raises(BadInput) as error:
        read_record(Outer, path, "pack")
    text = "\n".join(error.value.lines())
    assert str(path) in text and "(exit 4)" in text
    assert "name: is missing" in text
    assert "nmae: unknown key, did you mean name?" in text
    assert 'inner.size: input should be a valid integer, found "5"' in text
    assert "inner.sise: unknown key, did you mean size?" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "not valid JSON"), (b"\xff\xfe", "not UTF-8"), (None, "does not exist")],
)
def test_unreadable_json_is_one_message(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=message):
        read_json(path)


def test_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a":1}\n\n[1]\n')
    rows = read_jsonl(path)
    assert next(rows) == (1, {"a": 1})
    with pytest.raises(BadInput, match="line 3: a JSON object is needed, found list"):
        next(rows)


def test_jsonl_round_trips(tmp_path: Path) -> None:
    rows = [{"a": 1}, {"b": "ü\n"}]
    assert write_jsonl(tmp_path / "x.jsonl", rows) == 2
    assert [row for _, row in read_jsonl(tmp_path / "x.jsonl")] == rows


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"old")
    with pytest.raises(TypeError):
        write_atomic(tmp_path / "a", "text")  # type: ignore[arg-type]
    assert (tmp_path / "a").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_journal_ignores_a_torn_tail_and_can_be_cut(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    for step in range(1, 6):
        journal.append({"step": step})
    with journal.path.open("ab") as stream:
        stream.write(b'{"step": 6, "lo')
    assert [row["step"] for row in read_journal(journal.path)] == [1, 2, 3, 4, 5]
    journal.truncate_after(3)
    journal.append({"step": 4})
    assert [row["step"] for row in read_journal(journal.path)] == [1, 2, 3, 4]


def test_errors_carry_remedies() -> None:
    error = BadInput(
        "pack is not usable",
        problems=[Problem("chat: no rows", fix="make some")],
        fix="start again",
    )
    assert error.lines() == [
        "pack is not usable (exit 4)",
        "    chat: no rows",
        "        fix: make some",
        "fix: start again",
    ]
    assert did_you_mean("corups", ["corpus", "chat"]) == ", did you mean corpus?"
    assert did_you_mean("zzz", ["corpus"]) == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ('{"a": NaN}', "NaN is no number of JSON"),
        ("[" * 20_000 + "]" * 20_000, "not usable JSON"),
        ("1" * 5_000, "not usable JSON"),
    ],
)
def test_json_that_readers_disagree_on_is_refused(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "x.json").write_text(content)
    (tmp_path / "x.jsonl").write_text(content + "\n")
    with pytest.raises(BadInput, match=message):
        read_json(tmp_path / "x.json")
    with pytest.raises(BadInput, match=message):
        list(read_jsonl(tmp_path / "x.jsonl"))


def test_a_record_takes_no_number_that_is_not_finite() -> None:
    with pytest.raises(BadInput, match="not finite"):
        parse_record(FileDigest, {"sha256": "0", "bytes": float("inf")}, "a digest")
