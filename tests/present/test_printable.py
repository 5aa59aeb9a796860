from picochat.present.printable import (
    EXCERPT_CHARACTERS,
    EXCERPT_LINES,
    cell,
    excerpt,
    one_line,
    printable,
    printable_line,
)


def test_what_moves_a_terminal_or_turns_the_reading_order_is_shown_by_number() -> None:
    assert printable("a\x1b[2Jb\u202ec\x9bd") == "a<U+001B>[2Jb<U+202E>c<U+009B>d"
    assert printable("two\nlines\tand a tab") == "two\nlines\tand a tab"


def test_one_line_stays_one_line() -> None:
    assert printable_line("one\ntwo\u2028three\tfour") == "one<U+000A>two<U+2028>three<U+0009>four"


def test_a_cell_holds_no_tag_no_link_and_no_second_row() -> None:
    assert cell("<b>|[a](b)`\n# c") == "&lt;b>\\|\\[a](b)\\` # c"
    assert cell("a\x1b[2Jb\u202e") == "a&lt;U+001B>\\[2Jb&lt;U+202E>"


def test_an_excerpt_says_how_much_there_was() -> None:
    assert excerpt("short\nlines") == "short\nlines"
    assert excerpt("x" * 100_000) == "x" * EXCERPT_CHARACTERS + "... (100000 characters)"
    assert excerpt("a\n" * 500).count("\n") == EXCERPT_LINES - 1
    assert excerpt(None) == ""
    assert excerpt("\x1b[2J") == "<U+001B>[2J"


def test_long_text_becomes_one_short_line_and_cannot_steer_a_terminal() -> None:
    assert one_line("one\n\n two  three", 140) == "one / two three"
    assert len(one_line("word " * 100, 140)) == 140
    assert one_line("\x1b[2J\u202e", 140) == "<U+001B>[2J<U+202E>"
    assert len(one_line("\x00" * 100, 50)) == 50
