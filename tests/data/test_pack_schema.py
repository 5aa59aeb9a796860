import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from picochat.core.errors import BadInput
from picochat.core.records import Record, parse_record
from picochat.data.document_shards import write_documents
from picochat.data.pack import CorpusRecipe, DatasetPack, load_pack
from picochat.data.pack_schema import corpus_recipe_schema, dataset_pack_schema
from tests.data.builders import prose

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

DOCS = Path(__file__).parents[2] / "docs"
SCHEMAS: dict[str, tuple[type[Record], str]] = {
    "dataset_pack": (DatasetPack, dataset_pack_schema()),
    "corpus_recipe": (CorpusRecipe, corpus_recipe_schema()),
}
PACKS: tuple[object, ...] = (
    {"corpus": "text.txt"},
    {"corpus": {"input": "text.txt"}},
    {"corpus": {"recipe": "r.json", "input": None}, "chat": None, "name": None},
    {"corpus": "text.txt", "chat_input": "c.jsonl", "eval_input": "e.jsonl"},
    {"corpus": "text.txt", "chat": "c.jsonl", "chat_input": "c.jsonl"},
    {"corpus": "text.txt", "name": "n", "description": "d", "chat": "c", "eval": "e"},
    {},
    [],
    {"corpus": {}},
    {"corpus": None},
    {"corpus": 5},
    {"corpus": {"input": "a", "recipe": "b"}},
    {"corpus": {"recipe": 3}},
    {"corpus": {"inptu": "a"}},
    {"corups": "a"},
    {"corpus": "a", "name": 3},
    {"corpus": "a", "description": None},
    {"corpus": "a", "chat": ["c"]},
    {"corpus": "a", "$schema": "x"},
)
SOURCES: tuple[object, ...] = (
    {"path": "a"},
    {
        "path": "a",
        "label": "web-2.0_x",
        "include": ["*.md"],
        "exclude": [],
        "reason": "r",
        "weight": 2,
        "min_chars": 1,
    },
    {"path": "a", "label": None, "include": None, "min_chars": None, "reason": None},
    {"path": "a", "weight": 0.25},
    {},
    {"label": "x"},
    {"path": 1},
    {"path": "a", "label": "has space"},
    {"path": "a", "label": ""},
    {"path": "a", "label": "-x"},
    {"path": "a", "label": "x" * 81},
    {"path": "a", "weight": 0},
    {"path": "a", "weight": 101},
    {"path": "a", "weight": "2"},
    {"path": "a", "weight": True},
    {"path": "a", "min_chars": 0},
    {"path": "a", "min_chars": 1.5},
    {"path": "a", "include": "*.md"},
    {"path": "a", "exclude": None},
    {"path": "a", "weigth": 1},
    "a",
)
RECIPES: tuple[object, ...] = (
    *({"sources": [source]} for source in SOURCES),
    {"sources": []},
    {"sources": {"path": "a"}},
    {
        "name": "n",
        "description": "d",
        "exclude": ["**/.git/**"],
        "sources": [{"path": "a"}, {"path": "b"}],
    },
    {"sources": [{"path": "a"}], "exclude": "x"},
    {"sources": [{"path": "a"}], "source": []},
    {},
)
CASES = [
    *(("dataset_pack", value) for value in PACKS),
    *(("corpus_recipe", value) for value in RECIPES),
]


def _parses(model: type[Record], value: object) -> bool:
    try:
        parse_record(model, value, "value")
    except BadInput:
        return False
    return True


@pytest.mark.parametrize(
    ("kind", "value"), CASES, ids=[f"{kind}-{json.dumps(value)[:60]}" for kind, value in CASES]
)
def test_schema_takes_what_loading_takes_and_nothing_else(kind: str, value: object) -> None:
    model, schema = SCHEMAS[kind]
    assert jsonschema.Draft202012Validator(json.loads(schema)).is_valid(value) is _parses(
        model, value
    )


@pytest.mark.parametrize("kind", SCHEMAS)
def test_schema_is_one_and_describes_every_field(kind: str) -> None:
    schema = json.loads(SCHEMAS[kind][1])
    jsonschema.Draft202012Validator.check_schema(schema)
    for part in (schema, *schema["$defs"].values()):
        for name, value in part["properties"].items():
            assert value.get("description"), name


@pytest.mark.parametrize(
    "path",
    sorted((DOCS / "examples").rglob("*.json")),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_example_files_follow_their_schema(path: Path) -> None:
    schema = json.loads((DOCS / "schemas" / f"{path.stem}.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(json.loads(path.read_text()))


@pytest.mark.parametrize("name", sorted(path.name for path in (DOCS / "examples").iterdir()))
def test_example_packs_load(name: str, tmp_path: Path) -> None:
    shutil.copytree(DOCS / "examples" / name, tmp_path / "pack")
    recipe: dict[str, Any] = json.loads((tmp_path / "pack" / "corpus_recipe.json").read_text())
    for source in recipe["sources"]:
        _make_source((tmp_path / "pack" / source["path"]).resolve(), source)
    for rows in ("chat.jsonl", "eval.jsonl"):
        (tmp_path / "pack" / rows).touch()
    loaded = load_pack(tmp_path / "pack")
    assert [source.label for source in loaded.sources] == [
        source["label"] for source in recipe["sources"]
    ]
    for source in loaded.sources:
        names = [file.name for file in source.files]
        assert names
        assert not {"CHANGELOG.md", "drafts/plan.md", "notes.jsonl"} & set(names)


def _make_source(path: Path, source: dict[str, Any]) -> None:
    """Make what the recipe names.

    That is a file, a folder of documents, or a folder of files of which some are left out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix:
        path.write_text(json.dumps({"text": prose(1)}) + "\n")
    elif "include" in source:
        for name in ("guide.md", "deep/notes.txt", "CHANGELOG.md", "drafts/plan.md", "notes.jsonl"):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(prose(2))
    else:
        write_documents(path, iter([("1", prose(3))]))
