"""Input of every bad kind: one message with its remedy and exit code 4, or a counted drop.

Never a traceback, never a hang.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from picochat.cli.main import run_command
from picochat.core.errors import BadInput
from picochat.data.documents import list_source_files, read_source_file
from picochat.data.formats.file_rows import LONGEST_LINE_BYTES, read_batches
from picochat.data.formats.row_batch import TOO_LONG
from tests.data.builders import parquet_bytes, prose

GOOD = [prose(number) for number in range(30)]
HUGE = "some words of a text that does not end " * 2_600_000  # 101 MB
Case = Callable[[Path], Path | None]


def file(name: str, content: bytes | str) -> Case:
    """A folder with one such file."""

    def make(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def parquet(values: pa.Array | list[object]) -> Case:
    """A folder with one parquet file of such a column `text`."""

    def make(folder: Path) -> None:
        pq.write_table(pa.table({"text": values}), folder / "x.parquet", row_group_size=20)

    return make


def damaged(change: Callable[[bytearray], bytes | bytearray]) -> Case:
    def make(folder: Path) -> None:
        buffer = io.BytesIO()
        texts = [prose(number, 400) for number in range(200)]
        pq.write_table(
            pa.table({"text": texts}),
            buffer,
            compression="zstd",
            use_dictionary=False,
            row_group_size=100,
        )
        (folder / "x.parquet").write_bytes(change(bytearray(buffer.getvalue())))

    return make


def body_overwritten(data: bytearray) -> bytearray:
    data[200:4000] = os.urandom(3800)
    return data


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def good_lines() -> bytes:
    return lines(*({"text": text} for text in GOOD)).encode()


def beside_good(make: Callable[[Path], object]) -> Case:
    """Something odd beside a good file."""

    def both(folder: Path) -> None:
        (folder / "good.jsonl").write_bytes(good_lines())
        make(folder)

    return both


def bomb(compress: Callable[[bytes], bytes], piece: bytes, times: int) -> Case:
    return file(
        "bomb.jsonl.gz" if compress is gzip.compress else "bomb.jsonl.zst", compress(piece) * times
    )  # many members or frames


def fifo(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jsonl")


def fifo_itself(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.jsonl")
    return folder / "pipe.jsonl"


def unix_socket(folder: Path) -> None:
    here = os.getcwd()
    os.chdir(folder)  # the address of a socket may have some hundred bytes only
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("s.parquet")
    finally:
        os.chdir(here)


def no_utf8_name(folder: Path) -> None:
    (Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jsonl"))).write_bytes(good_lines())


def outside(folder: Path) -> None:
    other = folder.with_name("elsewhere.jsonl")
    other.write_bytes(good_lines())
    (folder / "link.jsonl").symlink_to(other)


def repeated_column(folder: Path) -> None:
    table = pa.Table.from_arrays([pa.array(GOOD), pa.array(GOOD)], names=["text", "text"])
    pq.write_table(table, folder / "x.parquet")


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


DOES_NOT_READ = "not a readable parquet file"
NO_TEXT = "no document came out of"
REFUSED: list[tuple[str, Case, str]] = [
    # what, the folder, the message says
    ("parquet without its footer", damaged(lambda data: data[:-2000]), DOES_NOT_READ),
    ("parquet with a damaged body", damaged(body_overwritten), DOES_NOT_READ),
    ("empty file named parquet", file("x.parquet", b""), DOES_NOT_READ),
    ("text named parquet", file("x.parquet", "just text\n" * 50), DOES_NOT_READ),
    (
        "encrypted parquet",
        file("x.parquet", b"PARE" + bytes(200) + (150).to_bytes(4, "little") + b"PARE"),
        DOES_NOT_READ,
    ),
    ("parquet without rows", parquet(pa.array([], pa.string())), "hold no rows"),
    ("column of whole numbers", parquet([1, 2, 3]), "holds int64, not text"),
    ("column of lists", parquet([["a"], ["b"]]), "holds list<"),
    ("column of structs", parquet([{"a": "x"}]), "holds struct<"),
    ("column twice", repeated_column, "has 2 columns 'text'"),
    ("column of nulls", parquet(pa.array([None] * 5, pa.null())), "5 rows: text_not_string"),
    ("text column of nulls", parquet(pa.array([None] * 5, pa.string())), "5 rows: text_not_string"),
    (
        "no such column",
        file("x.parquet", parquet_bytes(GOOD, column="txet")),
        "has no column 'text', did you mean txet?",
    ),
    ("broken JSON", file("x.jsonl", '{"text": "x"}\n{"text": \n'), "line 2: not valid JSON"),
    (
        "line that is a list",
        file("x.jsonl", '["text"]\n'),
        "line 1: a JSON object is needed, found list",
    ),
    ("line that is a number", file("x.jsonl", "5\n"), "found int"),
    (
        "deeply nested JSON",
        file("x.jsonl", '{"text": ' + "[" * 200_000 + "\n"),
        "1 rows: unreadable_json",
    ),
    (
        "number of thousands of digits",
        file("x.jsonl", '{"text": "x", "n": ' + "9" * 5000 + "}\n"),
        "1 rows: unreadable_json",
    ),
    (
        "deeply nested list of JSON",
        file("x.json", '[{"text": "x", "n": ' + "[" * 10_000 + "]" * 10_000 + "}]"),
        "x.json: JSON that cannot be read",
    ),
    (
        "number of thousands of digits in a list of JSON",
        file("x.json", '[{"text": "x", "n": ' + "9" * 5000 + "}]"),
        "x.json: JSON that cannot be read",
    ),
    ("JSON that is not UTF-8", file("x.jsonl", b'{"text": "caf\xe9"}\n'), "line 1: not UTF-8"),
    (
        "JSON lines in UTF-16",
        file("x.jsonl", lines({"text": GOOD[0]}).encode("utf-16")),
        "UTF-16 text, UTF-8 is needed",
    ),
    ("text in UTF-16", file("x.txt", GOOD[0].encode("utf-16")), "UTF-16 text, UTF-8 is needed"),
    ("text in Latin-1", file("x.txt", "Füße und Äpfel".encode("latin-1")), "not_utf8"),
    ("binary named txt", file("x.txt", b"ELF\0\0\1\2"), "nul_character"),
    ("gzip cut off", file("x.jsonl.gz", gzip.compress(good_lines())[:-30]), "damaged or cut off"),
    ("zstd cut off", file("x.jsonl.zst", zstd(good_lines())[:-30]), "damaged or cut off"),
    (
        "second frame cut off",
        file("x.jsonl.zst", zstd(good_lines()) + zstd(good_lines())[:-5]),
        "damaged or cut off",
    ),
    ("plain text named gz", file("x.jsonl.gz", good_lines()), "damaged or cut off"),
    ("plain text named zst", file("x.jsonl.zst", good_lines()), "damaged or cut off"),
    ("gzip bomb", bomb(gzip.compress, b" " * 10_000_000, 110), "more than 500 times as many"),
    ("zstd bomb", bomb(zstd, b" " * 10_000_000, 110), "more than 500 times as many"),
    (
        "only texts that are too long",
        file("x.jsonl", lines({"text": HUGE[:21_000_000]})),
        "1 rows: too_long",
    ),
    (
        "only blank texts",
        file("x.jsonl", lines({"text": " \n\t "}, {"text": ""})),
        "2 rows: empty_text",
    ),
    ("empty folder", lambda folder: None, "holds no file that picochat reads"),
    ("only unknown endings", file("x.pdf", b"%PDF"), "holds no file that picochat reads"),
    ("only a licence", file("LICENSE.txt", "All rights"), "holds no file that picochat reads"),
    ("pipe in the folder", beside_good(fifo), "pipe.jsonl: a pipe, not a file"),
    ("pipe given itself", fifo_itself, "neither a file nor a folder"),
    ("socket in the folder", beside_good(unix_socket), "s.parquet: a socket, not a file"),
    (
        "device in the folder",
        beside_good(lambda f: (f / "zero.txt").symlink_to("/dev/zero")),
        "zero.txt: a device, not a file",
    ),
    (
        "dead link",
        beside_good(lambda f: (f / "gone.parquet").symlink_to("nowhere")),
        "gone.parquet: a link to nothing",
    ),
    (
        "link to itself",
        beside_good(lambda f: (f / "me.jsonl").symlink_to("me.jsonl")),
        "me.jsonl: it cannot be reached",
    ),
    ("name that is not UTF-8", beside_good(no_utf8_name), "its name is not UTF-8"),
    (
        "broken card",
        beside_good(file("README.md", "---\na: [1\n---\n")),
        "front matter is not valid YAML",
    ),
    (
        "card nested without end",
        beside_good(file("README.md", f"---\na: {'[' * 1500}\n---\n")),
        "not valid YAML",
    ),
    (
        "card of another split",
        beside_good(file("README.md", "---\nconfigs:\n- config_name: a\n  data_files: b/*\n---\n")),
        "no split",
    ),
]

COUNTED: list[tuple[str, Case, int, dict[str, int]]] = [
    # what, the folder, rows kept, rows skipped
    (
        "binary column, some not UTF-8",
        parquet(pa.array([b"plain bytes", b"\xff\xfe", "é".encode()])),
        2,
        {"not_utf8": 1},
    ),
    (
        "string column, some not UTF-8",
        parquet(pa.array([b"fine text", b"\xc3\x28"]).view(pa.string())),
        1,
        {"not_utf8": 1},
    ),
    (
        "dictionary of strings",
        parquet(pa.array(["one text", "two texts", "one text"]).dictionary_encode()),
        2,
        {"duplicate_text": 1},
    ),
    (
        "JSON that Python cannot hold",
        file(
            "x.jsonl",
            lines({"text": GOOD[0]})
            + '{"text": "x", "n": '
            + "[" * 10_000
            + "]" * 10_000
            + "}\n"
            + '{"text": "x", "n": '
            + "9" * 5000
            + "}\n"
            + lines({"text": GOOD[1]}),
        ),
        2,
        {"unreadable_json": 2},
    ),
    ("large strings", parquet(pa.array(GOOD, pa.large_string())), 30, {}),
    ("string views", parquet(pa.array(GOOD, pa.string_view())), 30, {}),
    ("some nulls", parquet([GOOD[0], None, GOOD[1]]), 2, {"text_not_string": 1}),
    ("huge text in parquet", parquet([GOOD[0], HUGE[:25_000_000], GOOD[1]]), 2, {"too_long": 1}),
    (
        "huge text in JSON lines",
        file("x.jsonl", lines({"text": GOOD[0]}, {"text": HUGE}, {"text": GOOD[1]})),
        2,
        {"too_long": 1},
    ),
    (
        "huge last line",
        file("x.jsonl", lines({"text": GOOD[0]}) + "x" * (LONGEST_LINE_BYTES + 9_000_000)),
        1,
        {"too_long": 1},
    ),
    (
        "huge text file",
        lambda f: ((f / "a.txt").write_text(HUGE), (f / "b.txt").write_text("short"))[0] and None,
        1,
        {"too_long": 1},
    ),
    (
        "half of a surrogate pair",
        file("x.jsonl", '{"text": "a\\ud800b"}\n{"text": "\\ud83d\\ude00 whole"}\n'),
        1,
        {"lone_surrogate": 1},
    ),
    (
        "NUL in a text",
        file("x.jsonl", lines({"text": "a\0b"}, {"text": "ab"})),
        1,
        {"nul_character": 1},
    ),
    (
        "NaN and numbers as text",
        file("x.jsonl", '{"text": NaN}\n{"text": 1e999}\n{"text": "x"}\n'),
        1,
        {"text_not_string": 2},
    ),
    (
        "huge numbers as id",
        file("x.jsonl", '{"id": 123456789012345678901234567890, "text": "x"}\n'),
        1,
        {},
    ),
    ("mark of UTF-8", file("x.jsonl", b"\xef\xbb\xbf" + good_lines()), 30, {}),
    ("mark of UTF-8 in text", file("x.txt", b"\xef\xbb\xbfText"), 1, {}),
    ("CRLF and blank lines", file("x.jsonl", good_lines().replace(b"\n", b"\r\n\r\n")), 30, {}),
    ("no newline at the end", file("x.jsonl", good_lines()[:-1]), 30, {}),
    (
        "several gzip members",
        file("x.jsonl.gz", gzip.compress(good_lines()[:900]) + gzip.compress(good_lines()[900:])),
        30,
        {},
    ),
    (
        "several zstd frames",
        file("x.jsonl.zst", zstd(good_lines()[:900]) + zstd(good_lines()[900:])),
        30,
        {},
    ),
    ("empty compressed file", beside_good(file("x.jsonl.gz", b"")), 30, {}),
    (
        "repeated ids",
        file("x.jsonl", lines({"id": "a", "text": "one"}, {"id": "a", "text": "two"})),
        2,
        {},
    ),
    ("link to a file elsewhere", outside, 30, {}),
    ("loop of folders", beside_good(lambda f: (f / "loop").symlink_to(f)), 30, {}),
    ("folder named parquet", beside_good(lambda f: (f / "x.parquet").mkdir()), 30, {}),
    (
        "strange names",
        beside_good(file("a #1\n\u2028|ü 'x\".jsonl", lines({"text": "odd"}))),
        31,
        {},
    ),
    (
        "hidden and unknown beside good",
        beside_good(lambda f: ((f / ".x.jsonl").write_text("{"), (f / "x.csv").write_text("1"))[0]),
        30,
        {},
    ),
]


def _import(folder: Path, dataset: Path) -> int:
    return run_command(
        [
            "data",
            "hf-import",
            "--dataset",
            str(dataset),
            "--out",
            str(folder / "out" / "c.txt"),
            "--min-chars",
            "1",
        ]
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("make", "says"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_input_that_cannot_be_used_is_refused_with_its_remedy(
    make: Case, says: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _import(tmp_path, make(data) or data) == 4
    said = capsys.readouterr().err
    assert says in said
    assert "fix: " in said
    assert not (tmp_path / "out" / "documents").exists()


@pytest.mark.parametrize(
    ("make", "kept", "skipped"), [case[1:] for case in COUNTED], ids=[case[0] for case in COUNTED]
)
def test_rows_that_cannot_be_used_are_counted_and_the_rest_is_kept(
    make: Case, kept: int, skipped: dict[str, int], data: Path, tmp_path: Path
) -> None:
    assert _import(tmp_path, make(data) or data) == 0
    report = json.loads((tmp_path / "out" / "hf_import_report.json").read_text())
    assert (report["rows_written"], report["skip_reasons"]) == (kept, skipped)


READ_TOO = [
    case
    for case in (*REFUSED, *COUNTED)
    if case[0] not in {"huge text in parquet", "huge text in JSON lines"}
]


@pytest.mark.parametrize("make", [case[1] for case in READ_TOO], ids=[case[0] for case in READ_TOO])
def test_who_reads_the_files_themselves_gets_rows_with_reasons_or_one_message(
    make: Case, data: Path
) -> None:
    said = "rows"
    try:
        place = make(data) or data
        for listed in list_source_files(place):
            for row in read_source_file(place, listed.name):
                assert (row.problem is None) == bool(row.text)
    except BadInput as error:
        said = error.what
    assert said


def test_mark_is_stripped_and_line_ends_inside_a_text_are_kept(data: Path) -> None:
    (data / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\n")
    (data / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one\\r\\ntwo"}\r\n')
    assert [next(iter(read_source_file(data, name))).text for name in ("a.txt", "b.jsonl")] == [
        "one\r\ntwo\n",
        "one\r\ntwo",
    ]


def test_line_without_end_is_counted_and_never_held() -> None:
    class Endless(io.RawIOBase):
        left = 5 * LONGEST_LINE_BYTES

        def read(self, size: int | None = -1) -> bytes:
            block = b"x" * min(size or 0, self.left)
            self.left -= len(block)
            return block

    tracemalloc.start()
    try:
        rows = [row for batch in read_batches(Endless(), "x.jsonl") for row in batch.rows()]
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [row.text for row in rows] == [TOO_LONG]
    assert peak_bytes < 3.5 * LONGEST_LINE_BYTES
