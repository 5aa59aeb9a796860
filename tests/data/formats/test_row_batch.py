from picochat.data.formats.row_batch import (
    LONGEST_DOCUMENT_CHARACTERS,
    MISSING,
    NOT_UTF8,
    TEXT_PROBLEMS,
    TOO_LONG,
    UNREADABLE,
    text_problem,
)


def test_every_listed_problem_has_a_text_that_has_only_it() -> None:
    texts = [
        MISSING,
        5,
        NOT_UTF8,
        UNREADABLE,
        " \n\u2003",
        "x" * (LONGEST_DOCUMENT_CHARACTERS + 1),
        "a\0",
        "\ud800",
    ]
    assert [text_problem(text) for text in texts] == [reason for reason, _ in TEXT_PROBLEMS]
    assert text_problem(TOO_LONG) == "too_long"
    assert text_problem("x" * LONGEST_DOCUMENT_CHARACTERS) is None
