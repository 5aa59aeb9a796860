from picochat.core.plain_text import cell, visible, visible_line


def test_what_moves_a_terminal_or_turns_the_reading_order_is_shown_by_number() -> None:
    assert visible("a\x1b[2Jb\u202ec\x9bd") == "a<U+001B>[2Jb<U+202E>c<U+009B>d"
    assert visible("two\nlines\tand a tab") == "two\nlines\tand a tab"


def test_one_line_stays_one_line() -> None:
    assert visible_line("one\ntwo\u2028three\tfour") == "one<U+000A>two<U+2028>three<U+0009>four"


def test_a_cell_holds_no_tag_no_link_and_no_second_row() -> None:
    assert cell("<b>|[a](b)`\n# c") == "&lt;b>\\|\\[a](b)\\` # c"
