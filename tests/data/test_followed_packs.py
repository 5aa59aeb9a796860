"""A pack that is refused, its remedy done as it is written, and the same thing asked again."""

from __future__ import annotations

import json
import os
import pydoc_data.topics
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from picochat.cli.main import run_command
from picochat.config import DataConfig
from picochat.core.errors import BadInput, WrongUsage
from picochat.data.corpus.reader import read_split
from picochat.data.document_shards import write_documents
from picochat.data.documents import read_documents
from picochat.data.importing.hf_import import import_dataset
from picochat.data.init_pack import PackInputs, init_pack
from picochat.data.pack import load_pack
from picochat.facts import CorpusFacts, facts_of
from tests.data.builders import make_corpus, prose, request, write
from tests.data.test_followed_imports import fix_of
from tests.run.test_own_data import SMALL

COMMAND = [sys.executable, "-m", "picochat.cli.main"]


class Folder:
    """A pack of one source `text`, with a file of many documents."""

    def __init__(self, root: Path) -> None:
        self.root, self.pack, self.recipe = root, root / "dataset_pack.json", root / "recipe.json"
        (root / "text").mkdir(parents=True)
        self.builds = 0
        self.source: dict[str, Any] = {"path": "text"}
        self.rows([{"text": prose(number)} for number in range(20)])
        write(self.pack, {"corpus": {"recipe": "recipe.json"}})
        self.told()

    def rows(self, rows: list[dict[str, object]]) -> None:
        (self.root / "text/rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))

    def told(self, *sources: dict[str, Any], **recipe: object) -> None:
        write(self.recipe, {"sources": [self.source, *sources], **recipe})

    def built(self, data: DataConfig | None = None) -> CorpusFacts:
        # Each time at another place, because unfinished work of an equal key goes on.
        self.builds += 1
        place = self.root / f"corpus-{self.builds}"
        return facts_of(make_corpus(self.pack, place, data), CorpusFacts)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "a pack")


Change = Callable[[Folder], object]


def keys(**changes: object) -> Change:
    """Other keys of the source."""

    def change(folder: Folder) -> None:
        folder.source |= changes
        folder.told()

    return change


def of_rows(*rows: dict[str, object]) -> Change:
    return lambda folder: folder.rows(list(rows))


def texts(count: int = 20, **more: object) -> list[dict[str, object]]:
    return [{"text": prose(number), **more} for number in range(count)]


def excluding(*ids: str) -> Change:
    return lambda folder: folder.told(exclude_documents=list(ids))


def another_source(folder: Folder) -> None:
    write_documents(folder.root / "more", iter([("1", prose(1)), ("2", prose(2))]))
    folder.told({"path": "more"})


def labelled(first: str, second: str) -> Change:
    return lambda folder: folder.told(
        {"path": "text", "label": second, "weight": 2}, **{"name": first}
    )


BODIES = [{"body": prose(number), "n": number} for number in range(20)]
EMPTY: list[tuple[str, Change, str, Change]] = [
    # what, the situation, the remedy has, what is done
    ("no rows", of_rows(), "add text to it", of_rows(*texts())),
    (
        "another key",
        of_rows(*BODIES),
        'name the column of the text: "text_column"',
        keys(text_column="body"),
    ),
    (
        "a key of numbers",
        lambda folder: [of_rows(*BODIES)(folder), keys(text_column="n")(folder)],
        'name a column of text: "text_column"',
        keys(text_column="body"),
    ),
    ("short texts", keys(min_chars=9_999), "lower min_chars of the sources", keys(min_chars=1)),
    ("tiny weights", keys(weight=1e-9), "raise the weights", keys(weight=1.0)),
    (
        "everything left out",
        excluding(*(f"text:rows.jsonl#{number}" for number in range(20))),
        "take documents out of exclude_documents",
        excluding("text:rows.jsonl#0"),
    ),
    ("everything left out, again", keys(min_chars=9_999), "or name sources with", another_source),
    ("a place for an id", excluding("rows.jsonl#3"), "LABEL:ID", excluding("text:rows.jsonl#3")),
    ("no file", keys(include=["*.md"]), "change include and exclude", keys(include=["*.jsonl"])),
    ("no file, again", keys(include=["*.md"]), "add files to it", keys(include=["*.*"])),
    ("one label twice", labelled("a", "text"), "its own label", labelled("a", "more")),
    (
        "a key that no recipe has",
        lambda folder: folder.told(soruces=[]),
        "keys of a recipe: name, description, sources",
        lambda folder: folder.told(description="x"),
    ),
    (
        "a key that no pack has",
        lambda folder: write(folder.pack, {"corups": "text"}),
        "keys of a pack: name, description, corpus",
        lambda folder: write(folder.pack, {"corpus": "text"}),
    ),
]


@pytest.mark.parametrize(
    ("situation", "has", "repair"), [each[1:] for each in EMPTY], ids=[each[0] for each in EMPTY]
)
def test_a_pack_that_is_mended_as_told_makes_a_corpus(
    situation: Change, has: str, repair: Change, folder: Folder
) -> None:
    situation(folder)
    with pytest.raises(BadInput) as caught:
        folder.built()
    assert has in "\n".join(caught.value.lines())
    repair(folder)
    assert folder.built().documents > 1


def test_texts_that_are_too_short_by_a_setting_are_read_with_a_lower_one(folder: Folder) -> None:
    with pytest.raises(BadInput) as caught:
        folder.built(DataConfig(min_chars=9_999))
    assert "--set data.min_chars=1" in str(caught.value.fix)
    assert folder.built(DataConfig(min_chars=1)).documents == 20


def test_documents_that_were_damaged_are_imported_again(folder: Folder) -> None:
    wanted = request(folder.root, dataset=str(folder.root / "text"), config=None)
    import_dataset(wanted)
    folder.told({"path": "documents"})
    shard = next((folder.root / "documents").glob("shard-*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-9])
    with pytest.raises(BadInput) as caught:
        load_pack(folder.pack)
    assert "import the source again with --force" in "\n".join(caught.value.lines())
    import_dataset(wanted, force=True)
    shard.write_bytes(whole[:5] + bytes([whole[5] ^ 1]) + whole[6:])
    folder.source = {"path": "documents"}
    folder.told()
    with pytest.raises(BadInput):
        folder.built()
    import_dataset(wanted, force=True)
    assert folder.built().documents == 20


def test_a_source_that_changed_is_put_back_or_makes_a_new_corpus(folder: Folder) -> None:
    corpus = make_corpus(folder.pack, folder.root / "corpus")
    path = folder.root / "text/rows.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.upper())
    with pytest.raises(BadInput) as caught:
        list(read_split(corpus, "train"))
    assert str(caught.value.fix).startswith("put the file back, or run again")
    path.write_bytes(whole)
    assert len(list(read_split(corpus, "train"))) == 19
    folder.rows(texts(30))
    assert len(list(read_split(make_corpus(folder.pack, folder.root / "new"), "train"))) == 29


def test_documents_are_written_to_another_folder(tmp_path: Path) -> None:
    documents = [("1", prose(1))]
    write_documents(tmp_path / "a", iter(documents))
    with pytest.raises(BadInput) as caught:
        write_documents(tmp_path / "a", iter(documents))
    assert caught.value.fix == "name another folder"
    assert len(write_documents(tmp_path / "b", iter(documents)).shards) == 1


def pipe(folder: Folder) -> str:
    os.mkfifo(folder.root / "pipe")
    return "pipe"


def to_a_file(folder: Folder, fix: str) -> str:
    (folder.root / "text.txt").write_text(prose(1))
    return "text.txt"


def no_text(folder: Folder) -> str:
    (folder.root / "report.pdf").write_bytes(b"%PDF")
    return "report.pdf"


FILES: list[tuple[Callable[[Folder], str], str, Callable[[Folder, str], str]]] = [
    (pipe, "name a file or a folder; what comes through a pipe", to_a_file),
    (no_text, "make text or JSON lines of it", to_a_file),
]


@pytest.mark.parametrize(("situation", "begins", "repair"), FILES)
def test_a_file_of_a_source_is_made_one_that_is_read(
    situation: Callable[[Folder], str],
    begins: str,
    repair: Callable[[Folder, str], str],
    folder: Folder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    preview = ["data", "preview", "--dataset-pack", str(folder.pack), "--no-html"]
    folder.told({"path": situation(folder)})
    assert run_command(preview) == 4
    fix = fix_of(capsys.readouterr().err)
    assert fix.startswith(begins)
    folder.told({"path": repair(folder, fix)})
    assert run_command(preview) == 0, capsys.readouterr().err


def test_a_text_of_another_encoding_is_converted_by_the_command(tmp_path: Path) -> None:
    source = tmp_path / "a café.txt"
    source.write_bytes("Füße und Äpfel".encode("latin-1"))
    with pytest.raises(BadInput) as caught:
        list(read_documents(source, "web"))
    command = str(caught.value.fix).partition(", with")[0].replace("NEW", "new.txt")
    subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True)
    (document,) = read_documents(tmp_path / "new.txt", "web")
    assert document.text == "Füße und Äpfel"


# ---- packs of files and folders ------------------------------------------------------------------


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "my notes").mkdir()
    for number, text in enumerate(list(pydoc_data.topics.topics.values())[:40]):
        (tmp_path / f"my notes/{number}.txt").write_text(text)
    return tmp_path / "my notes"


def test_another_pack_is_set_aside_or_left_for_another_folder(
    notes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ["data", "init-pack", "--input", str(notes), "--out-dir", str(tmp_path / "pack")]
    assert run_command(made) == 0
    recipe = tmp_path / "pack/corpus_recipe.json"
    edited = recipe.read_text().replace('"label"', '"reason": "mine", "label"')
    recipe.write_text(edited)
    capsys.readouterr()
    assert run_command(made) == 2
    fix = fix_of(capsys.readouterr().err)
    assert fix == "--force sets it aside, or name another folder with --out-dir"
    assert recipe.read_text() == edited
    assert run_command([*made, "--out-dir", str(tmp_path / "other")]) == 0
    assert run_command([*made, "--force"]) == 0
    assert (tmp_path / "pack/corpus_recipe.json.superseded-1").read_text() == edited


def test_a_run_takes_an_edited_pack_or_makes_its_own(
    notes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*SMALL, "--preflight-only", "--out-dir", str(tmp_path / "the run")]
    command = ["run", "tiny", "--input", str(notes), *settings]
    assert run_command(command) in (0, 3)
    recipe = tmp_path / "the run/pack/corpus_recipe.json"
    edited = recipe.read_text().replace('"label"', '"reason": "mine", "label"')
    recipe.write_text(edited)
    capsys.readouterr()
    assert run_command(command) == 2
    takes, makes = fix_of(capsys.readouterr().err).split("; ")
    option = shlex.split(takes)[:2]
    assert option[0] == "--dataset-pack"
    assert run_command(["run", "tiny", *option, *settings]) in (0, 3)
    subprocess.run(["bash", "-ec", makes.partition(" lets")[0]], check=True)
    assert run_command(command) in (0, 3)
    assert (tmp_path / "the run/pack.moved/corpus_recipe.json").read_text() == edited


def test_rows_beside_no_text_go_into_a_pack(
    notes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"user": "a?", "assistant": "b"}\n')
    settings = [*SMALL, "--preflight-only", "--out-dir", str(tmp_path / "run")]
    assert run_command(["run", "tiny", "--chat", str(rows), *settings]) == 2
    fix = fix_of(capsys.readouterr().err)
    words = shlex.split(fix.partition(": picochat ")[2])
    named = {"FOLDER": str(notes), "FILE": str(rows), "PACK": str(tmp_path / "pack")}
    assert run_command([named.get(word, word) for word in words]) == 0
    made = load_pack(tmp_path / "pack")
    assert (made.chat_path, made.eval_path) == (rows, rows)
    both = ["--input", str(notes), "--chat", str(rows)]
    assert run_command(["run", "tiny", *both, *settings]) in (0, 3)


Inputs = Callable[[Path], tuple[PackInputs, Path | None]]
INPUTS: list[tuple[str, Inputs, Inputs]] = [
    # the remedy begins with, the wrong inputs and the run folder that they are for, the right ones
    (
        "name a file or a folder of text",
        lambda notes: (PackInputs([notes / "gone"]), None),
        lambda notes: (PackInputs([notes]), None),
    ),
    (
        "--include '**/*.html' reads those as text",
        lambda notes: (PackInputs([notes.with_name("pages")]), None),
        lambda notes: (PackInputs([notes.with_name("pages")], include=["**/*.html"]), None),
    ),
    (
        "name a folder with files of these endings",
        lambda notes: (PackInputs([notes.with_name("pictures")]), None),
        lambda notes: (PackInputs([notes]), None),
    ),
    (
        "name a file of rows, .jsonl or .json",
        lambda notes: (PackInputs([notes], chat=notes), None),
        lambda notes: (PackInputs([notes], chat=notes.with_name("rows.jsonl")), None),
    ),
    (
        "name a run folder outside of it with --out-dir",
        lambda notes: (PackInputs([notes]), notes / "run"),
        lambda notes: (PackInputs([notes]), notes.with_name("run")),
    ),
]


@pytest.mark.parametrize(
    ("begins", "wrong", "right"), INPUTS, ids=[each[0][:20] for each in INPUTS]
)
def test_inputs_that_are_mended_as_told_make_a_pack(
    begins: str, wrong: Inputs, right: Inputs, notes: Path, tmp_path: Path
) -> None:
    for name, file in (("pages", "a.html"), ("pictures", "a.png")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("x")
    (tmp_path / "rows.jsonl").write_text("{}\n")
    inputs, run = wrong(notes)
    with pytest.raises((BadInput, WrongUsage)) as caught:
        init_pack(inputs, tmp_path / "pack", of_run=run)
    assert str(caught.value.fix).startswith(begins)
    inputs, run = right(notes)
    assert load_pack(init_pack(inputs, tmp_path / "pack", of_run=run).path).sources


# ---- modes ---------------------------------------------------------------------------------------


def without_override(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command as a person runs it, whom the modes of files stop; root is stopped by none."""
    prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    whole = [*(prefix if os.geteuid() == 0 else []), *COMMAND, *command]
    return subprocess.run(whole, cwd=cwd, capture_output=True, text=True, check=False)


MODES = [
    # what may not be read or written, its mode, the command, the remedy begins with
    ("dataset_pack.json", 0o000, ["data", "preview", "--pack", ".", "--no-html"], "chmod u+r "),
    ("text/rows.jsonl", 0o000, ["data", "preview", "--pack", ".", "--no-html"], "chmod u+r "),
    ("text/below", 0o000, ["data", "preview", "--pack", ".", "--no-html"], "chmod u+rx "),
    ("text/rows.jsonl", 0o000, ["data", "honesty", "--pack", "."], "chmod u+r "),
    ("eval.jsonl", 0o000, ["data", "honesty", "--pack", "."], "chmod u+r "),
]


@pytest.mark.skipif(
    os.geteuid() == 0 and not Path("/usr/bin/setpriv").exists(), reason="root needs setpriv"
)
@pytest.mark.parametrize(("name", "mode", "command", "begins"), MODES)
def test_what_may_not_be_read_is_read_after_the_chmod_of_the_remedy(
    name: str, mode: int, command: list[str], begins: str, folder: Folder
) -> None:
    (folder.root / "eval.jsonl").write_text(
        '{"user": "What is it, and when was it?", "reference_answer": "It."}\n'
    )
    write(folder.pack, {"corpus": {"recipe": "recipe.json"}, "eval": "eval.jsonl"})
    (folder.root / "text/below").mkdir()
    (folder.root / name).chmod(mode)
    done = without_override(command, folder.root)
    assert done.returncode == 4, done.stderr
    fix = fix_of(done.stderr)
    assert fix.startswith(begins)
    subprocess.run(["bash", "-ec", fix.partition(", or")[0]], cwd=folder.root, check=True)
    done = without_override(command, folder.root)
    assert done.returncode in (0, 3), done.stderr


PLACES = [
    # the command, the option of its place, the remedy
    (["data", "preview", "--pack", "."], "--html", "choose another folder, or change its mode"),
    (
        ["data", "init-pack", "--input", "text"],
        "--out-dir",
        "choose another folder, or change its owner or mode",
    ),
]


@pytest.mark.skipif(
    os.geteuid() == 0 and not Path("/usr/bin/setpriv").exists(), reason="root needs setpriv"
)
@pytest.mark.parametrize(("command", "option", "fix"), PLACES)
def test_what_may_not_be_written_there_is_written_elsewhere_or_with_another_mode(
    command: list[str], option: str, fix: str, folder: Folder
) -> None:
    (folder.root / "closed").mkdir(mode=0o500)
    there = [*command, option, "closed/new"]
    done = without_override(there, folder.root)
    assert done.returncode == 4, done.stderr
    assert fix_of(done.stderr) == fix
    assert without_override([*command, option, "open/new"], folder.root).returncode == 0
    (folder.root / "closed").chmod(0o700)
    assert without_override(there, folder.root).returncode == 0
