from pathlib import Path

from picochat.data.pack import load_pack
from picochat.preview.preview_pack import preview_pack
from picochat.preview.preview_record import Preview
from picochat.preview.preview_screen import render_preview
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
