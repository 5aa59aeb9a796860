import html.parser
import json
import os
import re
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from picochat.data.pack import LoadedPack, load_pack
from picochat.preview.preview_pack import preview_pack
from picochat.preview.preview_page import (
    PAGE_NAME,
    marked_texts,
    page_place,
    publish_page,
    render_page,
)
from picochat.preview.preview_record import ClusterText, DuplicateCluster, Preview
from picochat.scales import find_scale
from tests.data.builders import make_corpus, make_pack, prose, write

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = (
    "<script>document.title='taken over'</script> </style><style>body{display:none}</style> \"><img"
    " src=http://198.51.100.7/x.png onerror=\"document.title='taken over'\"> </textarea></title> {{"
    " 7 * 7 }} {% raw %} \u202eturned around\u202c &amp; \x1b[31m\x85 <a href='javascript:1'>x</a> "
)


def _documents(count: int = 60) -> list[tuple[str, str]]:
    return [(f"d{number}", prose(number, words=60)) for number in range(count)]


def _hostile_pack(folder: Path) -> LoadedPack:
    web = [
        *_documents(),
        ("<b>id", HOSTILE),
        *((f"near{number}", HOSTILE * 9 + str(number)) for number in range(3)),
    ]
    web += [(f"line{n}", f"{HOSTILE}\n{prose(900 + n)}") for n in range(4)]
    pack = make_pack(folder, {"web": web, "books": _documents(30)})
    values = json.loads(pack.read_text())
    write(pack, {**values, "name": HOSTILE, "description": HOSTILE})
    rows = [
        {"user": HOSTILE, "assistant": "Answer " + HOSTILE + "\0"},
        {"conversations": [{"from": "tool" + HOSTILE, "value": HOSTILE}]},
    ]
    (pack.parent / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_pack(pack)


def _preview(pack: LoadedPack) -> Preview:
    return preview_pack(pack, find_scale("tiny"))


class _Tags(html.parser.HTMLParser):
    """Names of the tags in order, all attributes, and the tags that are still open."""

    VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_hostile_text_stays_text_and_nothing_is_fetched(tmp_path: Path) -> None:
    page = render_page(_preview(_hostile_pack(tmp_path)))
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert not set(tags.seen) & {"script", "img", "iframe", "link", "object", "textarea"}
    assert tags.seen.count("style") == 1 + tags.seen.count("svg")
    assert "&lt;script&gt;" in page
    assert "7 * 7" in page
    for name, value in tags.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "srcset", "action", "background")
        assert name != "href" or re.fullmatch(r"#source-\d+", value or "")
        assert name != "style" or re.fullmatch(r"width:[\d.]+%", value or "")
    assert not re.search(r"url\(|@import", page.split("</style>", 1)[0])
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", page)
    assert "&lt;U+202E&gt;turned around" in page


def test_page_shows_what_the_record_holds(tmp_path: Path) -> None:
    pack = _hostile_pack(tmp_path)
    preview = _preview(pack)
    page = render_page(preview)
    assert preview.fit.verdict.replace("'", "&#39;") in page
    for forecast in preview.fit.forecasts:
        assert f"<td>{forecast.check}</td>" in page
    assert page.count("<svg") == 1 + len(preview.sources)
    assert "30 exact, 0 near" in page  # the books repeat the web
    assert page.count('<mark class="trained">') == 1
    assert "left out: 1 (a turn of the role" in page
    assert "prefers-color-scheme:dark" in page


def test_page_is_a_function_of_the_facts(tmp_path: Path) -> None:
    pack = _hostile_pack(tmp_path)
    assert render_page(_preview(pack)) == render_page(_preview(pack))


def test_words_that_differ_are_marked_and_line_breaks_are_not() -> None:
    texts = [("a", "same words here\nand there"), ("b", "same other here and there now")]
    shown = [
        ClusterText(id=id, source="web", text=text, first_character=0, characters=9)
        for id, text in texts
    ]
    left, right = marked_texts(DuplicateCluster(kind="near", documents=2, texts=shown))
    assert [words for differs, words in left if differs] == ["words "]
    assert [words.strip() for differs, words in right if differs] == ["other", "now"]
    assert "".join(words for _, words in left) == texts[0][1]
    assert "".join(words for _, words in right) == texts[1][1]


def test_page_changes_neither_the_content_nor_the_corpus_of_a_pack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = load_pack(make_pack(tmp_path / "p", {"web": _documents()}))
    before = (pack.content_digest(), make_corpus(pack, tmp_path / "before").digest)
    publish_page(_preview(pack), pack)
    assert f"the same with pictures: {pack.path.parent / PAGE_NAME}" in capsys.readouterr().err
    again = load_pack(pack.path)
    assert (again.content_digest(), make_corpus(again, tmp_path / "after").digest) == before


@pytest.mark.parametrize("corpus", [".", ".."])
def test_page_never_lies_in_a_source(
    corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text(prose(1))
    pack = load_pack(write(tmp_path / "in" / "dataset_pack.json", {"corpus": corpus}))
    assert page_place(pack) is None
    preview = _preview(pack)
    publish_page(preview, pack)
    assert "--html FILE" in capsys.readouterr().err
    assert not (tmp_path / "in" / PAGE_NAME).exists()
    publish_page(preview, pack, tmp_path / "elsewhere.html")
    assert (tmp_path / "elsewhere.html").read_text().startswith("<!doctype html>")


def test_a_place_that_cannot_be_written_stops_only_who_asked_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = load_pack(make_pack(tmp_path, {"web": _documents()}))
    preview = _preview(pack)
    (pack.path.parent / PAGE_NAME).mkdir()
    publish_page(preview, pack)
    assert "no page was written" in capsys.readouterr().err
    with pytest.raises(OSError, match=r"page\.html"):
        (tmp_path / "page.html").mkdir()
        publish_page(preview, pack, tmp_path / "page.html")


class _Asked(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        line = self.rfile.readline().decode(errors="replace")
        self.server.asked.append(line)  # type: ignore[attr-defined]


@contextmanager
def _proxy() -> Iterator[tuple[int, list[str]]]:
    """A loopback port that writes down what it is asked for, and answers nothing."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Asked) as server:
        server.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], server.asked  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()


def _browse(page: Path, port: int, profile: Path) -> str:
    """The page's document as Chromium has it after loading, with all requests sent to a proxy."""
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
    ]
    flags += [
        "--no-first-run",
        "--disable-sync",
        "--disable-default-apps",
        f"--user-data-dir={profile}",
    ]
    flags += [
        f"--proxy-server=127.0.0.1:{port}",
        "--proxy-bypass-list=<-loopback>",
        "--virtual-time-budget=2000",
    ]
    command = [CHROMIUM or "", *flags, "--dump-dom", page.as_uri()]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "HOME": str(profile)},
    )
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_real_browser_runs_no_script_and_asks_for_nothing(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(render_page(_preview(_hostile_pack(tmp_path / "pack"))))
    control = tmp_path / "control.html"
    control.write_text(f"<title>plain</title>{HOSTILE}")
    with _proxy() as (port, asked):
        loaded = _browse(page, port, tmp_path / "profile")
        on_page = [line for line in asked if "198.51.100.7" in line]
        hacked = _browse(control, port, tmp_path / "profile")
        on_control = [line for line in asked if "198.51.100.7" in line]
    assert "taken over</title>" not in loaded
    assert "data preview</title>" in loaded
    assert on_page == []
    # The same text unescaped does both, so the test can fail.
    assert "<title>taken over</title>" in hacked
    assert on_control != []
