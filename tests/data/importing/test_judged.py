import json

import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from picochat.data.document_lines import document_line
from picochat.data.formats.row_batch import RowBatch
from picochat.data.formats.usable import MISSING, TEXT_PROBLEMS, TOO_LONG, text_problem
from picochat.data.importing.judged import judge_rows, shown

# Escapes, separators and every plane; surrogates and NUL are problems of their own.
TEXTS = st.text(st.characters(), max_size=40) | st.text(
    st.sampled_from('\\"\n\r\t\b\f\x01\x1f\x7f\0\ud800é😀 ab'), max_size=30
)


@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(TEXTS | st.none() | st.integers(), max_size=12),
    first=st.integers(0, 10**9),
    least=st.integers(0, 20),
)
def test_many_rows_at_once_are_judged_and_written_as_one_by_one(
    texts: list[object], first: int, least: int
) -> None:
    judged = judge_rows(RowBatch(first, texts, None), 3, 'fo"lder/x.parquet', least)
    assert len(judged) == len(texts)
    for position, text in enumerate(texts):
        problem = text_problem(text)
        if problem is not None:
            assert (judged.problems[position], judged.lines[position]) == (problem, b"")
            continue
        assert isinstance(text, str)
        id = f'fo"lder/x.parquet#{first + position}'
        assert judged.lines[position] == document_line(id, text)
        assert json.loads(judged.lines[position]) == {"id": id, "text": text}
        assert judged.problems[position] == ("below_min_chars" if len(text) < least else None)
        assert judged.characters[position] == len(text)
        assert judged.text_bytes[position] == len(text.encode())
        assert judged.digests[position] == xxhash.xxh3_128_digest(text.encode())


def test_head_of_judged_rows_is_their_beginning() -> None:
    judged = judge_rows(RowBatch(5, ["one", None, "three"], None), 0, "x", 1)
    assert judged.head(5) is judged
    assert (judged.head(2).problems, len(judged.head(2).lines)) == ([None, "text_not_string"], 2)


def test_every_listed_problem_has_a_text_that_has_only_it() -> None:
    from picochat.data.formats.usable import LONGEST_DOCUMENT_CHARACTERS, NOT_UTF8

    texts = [
        MISSING,
        5,
        NOT_UTF8,
        " \n\u2003",
        "x" * (LONGEST_DOCUMENT_CHARACTERS + 1),
        "a\0",
        "\ud800",
    ]
    assert [text_problem(text) for text in texts] == [reason for reason, _ in TEXT_PROBLEMS]
    assert text_problem(TOO_LONG) == "too_long"
    assert text_problem("x" * LONGEST_DOCUMENT_CHARACTERS) is None


def test_shown_text_is_one_printable_line() -> None:
    assert shown("a\n\tb \ud800" + "x" * 500)[:7] == "a b ?xx"
    assert len(shown("x" * 500)) == 160
