"""JSON Schemas of chat rows and eval rows, in every form that `row_forms.py` reads.

Editors check files with them. The part for picochat's own form is made from the records. What only
reading says: a row that fits a form and holds no reply to train on is left out and counted.
"""

from __future__ import annotations

from typing import Any

from picochat.core.records import Record, json_schema, schema_text
from picochat.skills.row_forms import ANSWERS, EVAL_RULES, REPLIES, ROLES
from picochat.skills.task_rows import EvalRow, SftRow

TEXT_PART = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["text"],
}
CONTENT = {
    "description": "a text, or a list of text parts, which are put together",
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"anyOf": [{"type": "string"}, TEXT_PART]}},
    ],
}


def chat_row_schema() -> str:
    """The schema of one line of a pack's `chat` file, as JSON text."""
    return _row_schema(SftRow, "chat row", {}, needs_reply=True)


def eval_row_schema() -> str:
    """The schema of one line of a pack's `eval` file, as JSON text."""
    properties = EvalRow.model_json_schema()["properties"]
    rules = {name: properties[name] for name in EVAL_RULES}
    return _row_schema(EvalRow, "eval row", rules, needs_reply=False)


def _row_schema(
    model: type[Record], title: str, rules: dict[str, Any], *, needs_reply: bool
) -> str:
    own = json_schema(model, title)
    definitions = {**own.pop("$defs", {}), "OtherMessage": _message()}
    # Keys that begin so are tags of the row; every other unknown key is refused.
    own["patternProperties"] = {"^mixture_": {}}
    own["required"] = [name for name in own["required"] if name != "id"]
    head = {key: own.pop(key) for key in ("$schema", "$comment", "title")}
    return schema_text({**head, "anyOf": [own, *_forms(rules, needs_reply)], "$defs": definitions})


def _message() -> dict[str, Any]:
    role = {"enum": sorted(ROLES), "description": "who speaks; capitals do not matter"}
    return {
        "type": "object",
        "properties": {"role": role, "from": role, "content": CONTENT, "value": CONTENT},
        "anyOf": [
            {"required": [who, what]} for who in ("role", "from") for what in ("content", "value")
        ],
    }


def _forms(rules: dict[str, Any], needs_reply: bool) -> list[dict[str, Any]]:
    turns = {"type": "array", "items": {"$ref": "#/$defs/OtherMessage"}}
    side = {"anyOf": [{"type": "string"}, turns]}
    pairs = {"type": "array", "items": {"type": "array", "minItems": 2, "maxItems": 2}}
    alpaca = {
        "instruction": {"type": "string"},
        "input": {"type": ["string", "null"]},
        "output": side,
        "history": {"anyOf": [pairs, {"type": "null"}]},
    }
    forms: list[tuple[str, dict[str, Any], str, tuple[str, ...]]] = [
        ("messages", {"messages": turns}, "messages", ()),
        ("ShareGPT conversations", {"conversations": turns}, "conversations", ()),
        ("Alpaca", alpaca, "instruction", ("output", "response")),
        ("prompt and completion", {"prompt": side}, "prompt", REPLIES),
        ("question and answer", {"question": side}, "question", ANSWERS),
    ]
    found: list[dict[str, Any]] = []
    for about, properties, key, replies in forms:
        form: dict[str, Any] = {
            "description": f"the form: {about}",
            "type": "object",
            "properties": {**rules, **dict.fromkeys(replies, side), **properties},
            "required": [key],
            "not": {"required": ["user"]},
        }
        if needs_reply and replies:
            form["anyOf"] = [{"required": [reply]} for reply in replies]
        found.append(form)
    return found
