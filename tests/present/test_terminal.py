import io

from picochat.present.terminal import columns, print_verdict, text_chart

LINES = [
    "preflight: blocked (profile skill_release; 1 pass, 0 warn, 1 block, 0 unmeasured)",
    "",
    "BLOCK  eval_independence  3 items            = 0",
    "pass   documents          995,000 documents  >= 100",
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_no_colour_where_the_stream_is_no_terminal() -> None:
    stream = io.StringIO()
    print_verdict(LINES, stream)
    assert stream.getvalue().splitlines() == LINES


def test_colour_on_a_terminal_changes_no_word() -> None:
    stream = Terminal()
    print_verdict(LINES, stream)
    text = stream.getvalue()
    for code in ("\x1b[1;31m", "\x1b[32m", "\x1b[0m"):
        text = text.replace(code, "")
    assert text.splitlines() == LINES


def test_columns_are_aligned_and_no_line_ends_in_spaces() -> None:
    rows = [("skill", "chance", "gate"), ("choice", "0.250", ""), ("math", "0", ">= 0.6")]
    assert columns(rows, right=[1]) == [
        "skill   chance  gate",
        "choice   0.250",
        "math         0  >= 0.6",
    ]
    assert columns([]) == []


def test_the_chart_falls_where_the_values_fall() -> None:
    rows = text_chart([(0, 3.0), (50, 2.0), (100, 1.0)])
    columns = [row.index("*") for row in rows if "*" in row]
    assert columns == sorted(columns)
    assert text_chart([(5, 2.5)]) == ["  5: 2.500"]
