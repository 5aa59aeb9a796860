import json
from pathlib import Path

from picochat.data.pack import load_pack
from picochat.preview.preview_pack import preview_pack
from picochat.preview.preview_page import render_page
from picochat.preview.preview_record import Preview
from picochat.preview.preview_screen import render_preview
from picochat.scales import find_scale
from tests.data.builders import make_pack, prose, write


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


def test_files_of_other_endings_and_repeated_ids_are_said(tmp_path: Path) -> None:
    source = tmp_path / "notes"
    source.mkdir()
    rows = [{"id": number % 20, "text": prose(number)} for number in range(30)]
    (source / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("a.html", "b.html", "c.png"):
        (source / name).write_text("x")
    pack = load_pack(write(tmp_path / "dataset_pack.json", {"corpus": "notes"}))
    for full in (False, True):
        found = preview_pack(pack, find_scale("tiny"), full=full)
        assert found.sources[0].files_left_out == {".html": 2, ".png": 1}
        assert found.sources[0].repeated_ids == 10
        lines = [line for line in render_preview(found).splitlines() if "  left out   " in line]
        assert lines == [
            '  left out   files of other endings: 2 .html, 1 .png; "include": ["**/*.html"] in the'
            " recipe takes those alone",
            "  left out   the ids of 10 rows, which repeat that of an earlier row: FILE#ROW is"
            " theirs",
        ]
        page = render_page(found)
        assert "2 .html, 1 .png" in page and "the ids of 10 rows" in page
