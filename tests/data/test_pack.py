import json
import os
import shutil
from pathlib import Path

import pytest

from picochat.core.errors import BadInput
from picochat.data.pack import load_pack, promote
from picochat.facts import RowSource
from tests.data.builders import make_pack, prose, write


def _documents(first: int = 0, count: int = 10) -> list[tuple[str, str]]:
    return [(str(number), prose(number)) for number in range(first, first + count)]


def _problems(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        load_pack(path)
    return "\n".join(caught.value.lines())


def test_runbook_pack_and_recipe_load_as_written(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, {"fineweb-edu-dedup": _documents(), "cosmopedia-v2": _documents(50)})
    write(
        pack,
        {
            "name": "smollm-100m-public-v1",
            "description": "Bounded SmolLM-Corpus pack for the Picochat 100M public proof run.",
            "corpus": {"recipe": "corpus_recipe.json"},
            "chat": "chat.jsonl",
            "eval": "eval.jsonl",
        },
    )
    recipe = json.loads((pack.parent / "corpus_recipe.json").read_text())
    write(
        pack.parent / "corpus_recipe.json",
        {**recipe, "exclude": ["**/.DS_Store", "**/.git/**", "**/__pycache__/**"]},
    )
    (pack.parent / "eval.jsonl").touch()
    loaded = load_pack(pack)
    assert [source.label for source in loaded.sources] == ["fineweb-edu-dedup", "cosmopedia-v2"]
    assert loaded.name == "smollm-100m-public-v1"
    assert (loaded.chat_path, loaded.eval_path) == (
        pack.parent / "chat.jsonl",
        pack.parent / "eval.jsonl",
    )
    assert load_pack(pack.parent).path == pack


@pytest.mark.parametrize("corpus", ["text.txt", {"input": "text.txt"}])
def test_corpus_may_be_one_path_and_rows_may_have_their_old_names(
    corpus: object, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("some text")
    (tmp_path / "rows.jsonl").touch()
    pack = write(
        tmp_path / "dataset_pack.json",
        {"corpus": corpus, "chat_input": "rows.jsonl", "eval_input": "rows.jsonl"},
    )
    loaded = load_pack(pack)
    assert (loaded.name, loaded.sources[0].label) == ("dataset_pack", "text.txt")
    assert loaded.chat_path == loaded.eval_path == tmp_path / "rows.jsonl"


@pytest.mark.parametrize(
    ("pack", "says"),
    [
        ({"corups": {"input": "t.txt"}}, "corups: unknown key, did you mean corpus?"),
        ({}, "corpus: is missing"),
        ({"corpus": {}}, 'exactly one of "input" and "recipe"'),
        ({"corpus": {"input": "t.txt", "recipe": "r.json"}}, 'exactly one of "input" and "recipe"'),
        ({"corpus": 5}, "found 5"),
        ({"corpus": "t.txt", "name": 3}, "name: input should be a valid string, found 3"),
        ({"corpus": "absent.txt"}, "does not exist"),
        ({"corpus": "t.txt", "chat": "absent.jsonl"}, "picochat data task-pack --dataset-pack"),
        ({"corpus": "t.txt", "eval": "."}, "is a folder"),
        ({"corpus": {"recipe": "absent.json"}}, "recipe of pack"),
        ([], "dataset_pack.json is not usable"),
    ],
)
def test_wrong_pack_is_refused_with_what_is_wrong(pack: object, says: str, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("text")
    assert says in _problems(write(tmp_path / "dataset_pack.json", pack))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"path": "docs", "weigth": 2}, "did you mean weight?"),
        ({"path": "docs", "weight": 0}, "weight"),
        ({"path": "docs", "label": "has space"}, "label"),
        ({"label": "x"}, "path: is missing"),
        ({"path": "dcos"}, "did you mean docs?"),
        ({"path": "docs", "include": ["*.md"]}, "holds no document file"),
        ({"path": "image.png"}, "its ending says nothing"),
    ],
)
def test_wrong_source_is_refused_with_what_is_wrong(
    source: dict[str, object], says: str, tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("text")
    (tmp_path / "image.png").write_bytes(b"x")
    pack = write(tmp_path / "dataset_pack.json", {"corpus": {"recipe": "r.json"}})
    write(tmp_path / "r.json", {"sources": [source]})
    assert says in _problems(pack)


def test_all_problems_of_pack_and_sources_come_at_once(tmp_path: Path) -> None:
    pack = write(
        tmp_path / "dataset_pack.json",
        {"corpus": {"recipe": "r.json"}, "chat": "c.jsonl", "eval": "e.jsonl"},
    )
    (tmp_path / "two.work").mkdir()
    (tmp_path / "three.txt").write_text("text")
    sources = [{"path": "one"}, {"path": "two"}, {"path": "three.txt"}, {"path": "three.txt"}]
    write(tmp_path / "r.json", {"sources": sources})
    found = _problems(pack)
    for part in (
        "one does not exist",
        "its import was interrupted",
        "another source has the label 'three.txt'",
        "c.jsonl",
        "e.jsonl",
    ):
        assert part in found


def test_recipe_without_sources_is_refused(tmp_path: Path) -> None:
    pack = write(tmp_path / "dataset_pack.json", {"corpus": {"recipe": "r.json"}})
    write(tmp_path / "r.json", {"sources": []})
    assert "sources" in _problems(pack)


def test_content_digest_follows_text_and_treatment_not_place_or_rows(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "here", {"web": _documents(), "books": _documents(50)})
    digest = load_pack(pack).content_digest()
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    moved = tmp_path / "there" / "pack" / "dataset_pack.json"
    (moved.parent / "chat.jsonl").write_text('{"user": "x"}\n')
    assert load_pack(moved).content_digest() == digest
    recipe = json.loads((moved.parent / "corpus_recipe.json").read_text())
    recipe["sources"][0]["weight"] = 2.0
    write(moved.parent / "corpus_recipe.json", recipe)
    assert load_pack(moved).content_digest() != digest
    other = make_pack(tmp_path / "other", {"web": _documents(), "books": _documents(51)})
    assert load_pack(other).content_digest() != digest


def test_promotion_changes_the_rows_alone(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, {"web": _documents()})
    before = json.loads(pack.read_text())
    write(
        pack,
        {
            **{key: value for key, value in before.items() if key != "chat"},
            "chat_input": "chat.jsonl",
        },
    )
    (pack.parent / "new").mkdir()
    for name in ("sft.jsonl", "eval.jsonl"):
        (pack.parent / "new" / name).touch()
    promote(pack, pack.parent / "new" / "sft.jsonl", pack.parent / "new" / "eval.jsonl", {})
    after = json.loads(pack.read_text())
    assert after == {
        **before,
        "chat": "new/sft.jsonl",
        "eval": "new/eval.jsonl",
        "rows_from": "task-pack",
    }
    assert load_pack(pack).eval_path == pack.parent / "new" / "eval.jsonl"


def test_promotion_states_the_sources_of_the_new_rows_and_of_kept_ones(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, {"web": _documents()})
    chats = {"label": "chats", "licence": "cc-by-4.0"}
    write(pack, {**json.loads(pack.read_text()), "row_sources": [chats]})
    rows, arc = pack.parent / "rows.jsonl", RowSource(label="arc", licence="cc-by-sa-4.0")
    rows.touch()
    digest = load_pack(pack).rows_digest()
    promote(pack, rows, rows, {"chat": rows}, [arc])
    assert [each.label for each in load_pack(pack).row_sources] == ["chats", "arc"]
    assert load_pack(pack).rows_digest() != digest
    promote(pack, rows, rows, {})
    assert load_pack(pack).row_sources == []
    write(pack, {**json.loads(pack.read_text()), "row_sources": [chats, chats]})
    assert "two of them have one label" in _problems(pack)


def test_everything_wrong_with_a_recipe_is_named_with_file_field_value_and_remedy(
    tmp_path: Path,
) -> None:
    (tmp_path / "t.txt").write_text("text")
    pack = write(tmp_path / "dataset_pack.json", {"corpus": {"recipe": "r.json"}})
    wrong = {
        "path": "t.txt",
        "label": "has space",
        "weight": "2",
        "incldue": ["a"],
        "min_chars": 0,
        "exclude": "x",
    }
    write(
        tmp_path / "r.json",
        {"sources": [wrong, {"path": 5, "weight": 0}], "nmae": "x", "exclude": [1]},
    )
    found = _problems(pack)
    assert str(tmp_path / "r.json") in found
    for part in (
        "sources.0.label: string should match pattern",
        'found "has space"',
        'sources.0.weight: input should be a valid number, found "2"',
        "sources.0.incldue: unknown key, did you mean include?",
        "sources.0.min_chars: input should be greater than or equal to 1, found 0",
        'sources.0.exclude: input should be a valid array, found "x"',
        "sources.1.path: input should be a valid string, found 5",
        "sources.1.weight: input should be greater than 0, found 0",
        "nmae: unknown key, did you mean name?",
        "exclude.0: input should be a valid string, found 1",
        (
            "fix: keys of a recipe: name, description, sources, exclude, exclude_documents; of a"
            " source: path, label, include"
        ),
    ):
        assert part in found, part


def test_a_wrong_pack_names_the_keys_there_are(tmp_path: Path) -> None:
    found = _problems(write(tmp_path / "dataset_pack.json", {"corpora": "t.txt", "chat": 5}))
    assert str(tmp_path / "dataset_pack.json") in found
    assert "chat: input should be a valid string, found 5" in found
    assert "corpora: unknown key, did you mean corpus?" in found
    assert (
        "fix: keys of a pack: name, description, corpus, chat, eval, rows_from, own_chat," in found
    )


def test_a_source_that_cannot_be_read_has_a_remedy(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, files in (("pages", ["a.html", "b.html"]), ("tables", ["a.csv"]), ("empty", [])):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("x")
    sources = ("pipe", "pages", "tables", "empty", "paegs", "away")
    recipe = {"sources": [{"path": name} for name in sources]}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    pack = tmp_path / "dataset_pack.json"
    pack.write_text(json.dumps({"corpus": {"recipe": "recipe.json"}}))
    with pytest.raises(BadInput) as caught:
        load_pack(pack)
    fixes = {name: found.fix for name, found in zip(sources, caught.value.problems, strict=True)}
    assert "must be written to a file" in str(fixes["pipe"])
    assert (
        fixes["pages"] == '"include": ["**/*.html"] of the source in a recipe reads those as text'
    )
    assert (
        fixes["tables"]
        == fixes["empty"]
        == ("add files to it, or change include and exclude in the recipe")
    )
    assert fixes["paegs"] == "correct the path, did you mean pages?"
    assert "picochat data hf-import --dataset OWNER/NAME --out" in str(fixes["away"])
    pages = {"path": "pages", "include": ["**/*.html"]}
    (tmp_path / "recipe.json").write_text(json.dumps({"sources": [pages]}))
    assert [file.name for file in load_pack(pack).sources[0].files] == ["a.html", "b.html"]
