from pathlib import Path

from picochat.data.pack import load_pack
from picochat.preview.preview_pack import preview_pack
from picochat.preview.preview_record import Interval, Preview
from picochat.preview.preview_screen import interval_text, render_preview, shortened
from picochat.scales import find_scale
from tests.data.builders import make_pack, prose


def _preview(folder: Path) -> Preview:
    banner = "Sign up today and never miss an article again"
    web = [(str(number), f"\x1b[2J\u202e{banner}\n{prose(number)}") for number in range(80)]
    books = [(str(number), prose(number)) for number in range(900, 950)]
    return preview_pack(
        load_pack(make_pack(folder, {"web": web, "books": books})), find_scale("tiny")
    )


def test_screen_fits_one_page_and_ends_with_the_verdict(tmp_path: Path) -> None:
    preview = _preview(tmp_path)
    lines = render_preview(preview).splitlines()
    assert len(lines) < 45
    assert preview.fit.verdict in lines[-1]
    assert "in 100.0% of documents: <U+001B>[2J<U+202E>Sign up today" in "\n".join(lines)
    for forecast in preview.fit.forecasts:
        assert any(forecast.check in line for line in lines)


def test_text_cannot_steer_the_terminal(tmp_path: Path) -> None:
    screen = render_preview(_preview(tmp_path))
    assert "\x1b" not in screen
    assert "\u202e" not in screen


def test_counted_values_have_no_interval_and_missing_ones_say_so() -> None:
    assert interval_text(Interval(value=3, low=3, high=3)) == "3"
    assert (
        interval_text(Interval(value=1.05e9, low=1.03e9, high=1.07e9))
        == "1.05B (95% 1.03B to 1.07B)"
    )
    assert interval_text(None) == "not measured"


def test_long_text_becomes_one_short_line() -> None:
    assert shortened("one\n two") == "one two"
    assert len(shortened("word " * 100)) == 140
