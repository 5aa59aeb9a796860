"""A pack from files and folders: what it takes, what it leaves, what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from picochat.core.errors import BadInput, WrongUsage
from picochat.data.documents import read_documents, read_source_file
from picochat.data.init_pack import PackInputs, init_pack, pack_inputs
from picochat.data.pack import LoadedPack, load_pack


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder as people have them: sub-folders, markup, code, a picture, a hidden file."""
    folder = tmp_path / "my nötes"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.md", "b.txt", "sub/c.rst", "sub/d.org", "sub/e.tex", "f.MARKDOWN"):
        (folder / name).write_text(f"The text of {name}.")
    (folder / "rows.json").write_text(json.dumps([{"text": "first"}, {"text": "second"}, "third"]))
    (folder / "page.html").write_text("<p>A page.</p>")
    (folder / "code.py").write_text("print('hello')")
    (folder / "picture.png").write_bytes(bytes(range(256)))
    (folder / ".DS_Store").write_bytes(b"\0")
    return folder


def texts(pack: LoadedPack) -> dict[str, str]:
    return {
        row.id: row.text or f"<{row.problem}>"
        for source in pack.sources
        for file in source.files
        for row in read_source_file(source.path, file.name)
    }


def test_a_folder_is_walked_and_every_markup_is_taken(notes: Path, tmp_path: Path) -> None:
    made = init_pack(PackInputs([notes]), tmp_path / "pack")
    found = texts(load_pack(made.path))
    assert set(found) == {
        *("a.md", "b.txt", "f.MARKDOWN", "sub/c.rst", "sub/d.org", "sub/e.tex"),
        *("rows.json#0", "rows.json#1", "rows.json#2"),
    }
    assert found["rows.json#2"] == "third"


def test_what_is_left_out_is_said_with_the_way_to_take_it(notes: Path, tmp_path: Path) -> None:
    made = init_pack(PackInputs([notes]), tmp_path / "pack")
    taken, left = made.lines
    assert "1 .md" in taken and "1 .rst" in taken
    assert "1 .html" in left and "1 .py" in left and "1 .png" in left
    assert "--include" in left


def test_included_files_are_read_as_text_and_others_are_counted(
    notes: Path, tmp_path: Path
) -> None:
    inputs = PackInputs([notes], include=["**/*.py", "**/*.html", "**/*.png"])
    found = texts(load_pack(init_pack(inputs, tmp_path / "pack").path))
    assert found == {
        "code.py": "print('hello')",
        "page.html": "<p>A page.</p>",
        "picture.png": "<not_utf8>",
    }


def test_a_named_file_is_taken_whatever_its_ending(notes: Path, tmp_path: Path) -> None:
    inputs = PackInputs([notes / "code.py", notes / "a.md"])
    pack = load_pack(init_pack(inputs, tmp_path / "pack").path)
    assert list(texts(pack)) == ["code.py", "a.md"]


def test_the_same_command_finds_its_pack_and_another_is_not_lost(
    notes: Path, tmp_path: Path
) -> None:
    first = init_pack(PackInputs([notes]), tmp_path / "pack")
    assert init_pack(PackInputs([notes]), tmp_path / "pack") == first
    with pytest.raises(WrongUsage) as error:
        init_pack(PackInputs([notes / "a.md"]), tmp_path / "pack")
    assert "is another pack" in error.value.what
    assert error.value.fix and error.value.fix.startswith("--force sets it aside")
    assert len(texts(load_pack(first.path))) == 9
    init_pack(PackInputs([notes / "a.md"]), tmp_path / "pack", force=True)
    assert list(texts(load_pack(first.path))) == ["a.md"]


def test_inputs_of_one_name_get_labels_of_their_own(tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place / "notes").mkdir(parents=True)
        (tmp_path / place / "notes/a.txt").write_text(place)
    inputs = PackInputs([tmp_path / "one/notes", tmp_path / "two/notes"])
    pack = load_pack(init_pack(inputs, tmp_path / "pack").path)
    assert [source.label for source in pack.sources] == ["notes", "notes-2"]


def test_rows_and_licence_are_named_in_the_pack(notes: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n')
    made = init_pack(PackInputs([notes], rows, rows, licence="CC0-1.0"), tmp_path / "pack")
    pack = load_pack(made.path)
    assert (pack.chat_path, pack.eval_path) == (rows, rows)
    assert pack.sources[0].licence == "CC0-1.0"


def test_a_run_does_not_read_its_own_folder(notes: Path) -> None:
    with pytest.raises(WrongUsage) as error:
        init_pack(PackInputs([notes]), notes / "run/pack", of_run=notes / "run")
    assert "its own files would be read" in error.value.what


@pytest.mark.parametrize("name", ["absent", "absent.txt"])
def test_an_input_that_does_not_exist_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as error:
        init_pack(PackInputs([tmp_path / name]), tmp_path / "pack")
    assert "does not exist" in error.value.what
    assert not (tmp_path / "pack").exists()


def test_a_folder_without_text_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(b"\x89PNG")
    with pytest.raises(BadInput) as error:
        init_pack(PackInputs([tmp_path / "pictures"]), tmp_path / "pack")
    assert "it has 1 .png" in error.value.what


def test_rows_without_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUsage):
        pack_inputs(None, tmp_path / "chat.jsonl", None, None, None)
    assert pack_inputs([], None, None, None, None) is None


# ---- documents in one text file ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("one", {"a.txt": "one"}),
        ("one<|endoftext|>two", {"a.txt": "one", "a.txt#1": "two"}),
        ("one\n<|endoftext|>\ntwo<|endoftext|>\n", {"a.txt": "one\n", "a.txt#1": "\ntwo"}),
        ("\ufeffone<|endoftext|>two", {"a.txt": "one", "a.txt#1": "two"}),
    ],
)
def test_endoftext_separates_documents(content: str, found: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(content, encoding="utf-8")
    assert {d.id: d.text for d in read_documents(tmp_path / "a.txt", "a")} == found


def test_a_separator_across_two_blocks_is_seen(tmp_path: Path) -> None:
    one = "x" * ((4 << 20) - 5)
    (tmp_path / "a.txt").write_text(f"{one}<|endoftext|>two")
    assert [len(d.text) for d in read_documents(tmp_path / "a.txt", "a")] == [len(one), 3]


@pytest.mark.parametrize(
    ("content", "texts_found"),
    [
        ('[{"text": "a"}, {"text": "b"}]', ["a", "b"]),
        ('{"text": "a",\n "more": 1}', ["a"]),
        ('{"text": "a"}\n{"text": "b"}\n', ["a", "b"]),
        ('\ufeff["a", "b"]', ["a", "b"]),
    ],
)
def test_a_json_file_holds_a_list_one_object_or_lines(
    content: str, texts_found: list[str], tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    assert [d.text for d in read_documents(tmp_path / "a.json", "a")] == texts_found


@pytest.mark.parametrize("content", [b"caf\xe9 au lait", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_utf8_text_is_a_row_without_text(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    (row,) = read_source_file(tmp_path, "a.txt")
    assert row.problem == "not_utf8"
