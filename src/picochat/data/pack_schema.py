"""JSON Schemas of `dataset_pack.json` and `corpus_recipe.json`, made from their records.

Editors complete and check the files with them. `load_pack` parses exactly the files that the
schemas accept; in addition it checks that paths exist and that labels differ.
"""

from __future__ import annotations

from typing import Any

from picochat.core.records import json_schema, schema_text
from picochat.data.pack import CorpusRecipe, DatasetPack, PackCorpus

OLD_NAMES = (("chat_input", "chat"), ("eval_input", "eval"))


def dataset_pack_schema() -> str:
    """The schema of a pack, as JSON text."""
    schema = json_schema(DatasetPack, "dataset_pack.json")
    properties = schema["properties"]
    about = properties["corpus"].pop("description")
    # A path alone is short for {"input": path}, and an object has exactly one of the two keys.
    corpus = schema["$defs"][PackCorpus.__name__]
    corpus["oneOf"] = [_given("input", "recipe"), _given("recipe", "input")]
    properties["corpus"] = {
        "description": about,
        "anyOf": [{"type": "string"}, {"$ref": f"#/$defs/{PackCorpus.__name__}"}],
    }
    for old, new in OLD_NAMES:
        properties[old] = {
            **properties[new],
            "description": f"the older name of `{new}`",
            "deprecated": True,
        }
    # A name and its older name exclude each other.
    schema["allOf"] = [{"not": {"required": [old, new]}} for old, new in OLD_NAMES]
    return schema_text(schema)


def corpus_recipe_schema() -> str:
    """The schema of a recipe, as JSON text."""
    return schema_text(json_schema(CorpusRecipe, "corpus_recipe.json"))


def _given(key: str, other: str) -> dict[str, Any]:
    return {"required": [key], "properties": {key: {"type": "string"}, other: {"type": "null"}}}
