"""Rows as the field writes them, turned into the fields of picochat's own rows.

A chat row is recognised by its keys:

    messages        {"messages": [{"role": "user", "content": "..."}, ...]}
    conversations   {"conversations": [{"from": "human", "value": "..."}, ...]}    (ShareGPT)
    instruction     {"instruction": "...", "input": "...", "output": "..."}         (Alpaca)
    prompt          {"prompt": "...", "completion": "..."}, texts or lists of messages
    question        {"question": "...", "answer": "..."}
    own             {"user": "...", "assistant": "...", "system": "..."}

An eval row may have the same forms; its last assistant turn is then the reference answer. A row of
another maker may hold keys that picochat does not read. They are dropped and counted. Rows of
picochat's own form are not changed here. The fields of a row are checked in `task_rows.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

Form = Literal["own", "messages", "conversations", "instruction", "prompt", "question"]

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
"""What the sides of a conversation are called, in lower case."""

TURN_LISTS = ("messages", "conversations", "conversation")
REPLIES = ("completion", "response", "chosen")
ANSWERS = ("answer", "reference_answer", "expected")
KEPT = ("id", "category", "skill", "group", "item", "tags")
"""Keys that every form may have and that are kept as they are."""
EVAL_RULES = (
    "reference_answer",
    "regex",
    "must_include",
    "must_include_any",
    "must_not_include",
    "required_entities",
    "expected",
    "normalized_answer",
    "normalized_answers",
    "final_answer",
    "aliases",
    "choice_labels",
    "choice_options",
    "correct_choice",
    "min_words",
    "max_words",
    "min_chars",
    "max_chars",
    "answerable",
)
"""Keys of an eval row that decide about a reply. A row of another form may have them."""


class Unusable(Exception):
    """Why a row of another maker cannot become a row of ours, in a few words."""


@dataclass(frozen=True)
class Converted:
    """The fields of a row in picochat's own form.

    dropped: the keys of the row that picochat does not read.
    """

    form: Form
    fields: dict[str, Any]
    dropped: tuple[str, ...] = ()


def form_of(row: Mapping[str, Any]) -> Form:
    """The form of a row, by its keys."""
    if "user" in row:
        return "own"
    for key in TURN_LISTS:
        if isinstance(row.get(key), list):
            return "messages" if key == "messages" else "conversations"
    if "instruction" in row:
        return "instruction"
    if "prompt" in row:
        return "prompt"
    return "question" if "question" in row else "own"


def sft_fields(row: Mapping[str, Any]) -> Converted:
    """The fields of an SFT row; raises Unusable with the reason."""
    form = form_of(row)
    if form == "own":
        return Converted("own", dict(row))
    turns = _turns(row, form)
    while turns and turns[-1]["role"] != "assistant":
        turns.pop()  # nobody answers it, so nothing would be trained after it
    if not turns:
        raise Unusable("no turn of the assistant")
    if any(turn["role"] == "assistant" and not turn["content"].strip() for turn in turns):
        raise Unusable("a turn of the assistant has no text")
    reply = turns.pop()["content"]
    fields = {**_question(turns), "assistant": reply}
    return _converted(row, form, fields, ())


def eval_fields(row: Mapping[str, Any]) -> Converted:
    """The fields of an eval row; raises Unusable with the reason.

    The last turn of the assistant, or the row's answer, becomes the reference answer.
    """
    form = form_of(row)
    if form == "own":
        return Converted("own", dict(row))
    turns = _turns(row, form, needs_reply=False)
    fields: dict[str, Any] = {}
    if turns and turns[-1]["role"] == "assistant":
        fields["reference_answer"] = turns.pop()["content"]
    fields |= _question(turns)
    # A column without a value, as tables have it, is no rule.
    rules = {key: row[key] for key in EVAL_RULES if row.get(key) is not None}
    return _converted(row, form, {**fields, **rules}, EVAL_RULES)


def _converted(
    row: Mapping[str, Any], form: Form, fields: dict[str, Any], read: Sequence[str]
) -> Converted:
    kept = {key: row[key] for key in KEPT if row.get(key) is not None}
    if not isinstance(kept.get("id", ""), str):
        kept["id"] = str(kept["id"])
    dropped = [key for key in row if key not in (*READ[form], *KEPT, *read)]
    return Converted(form, {**kept, **fields}, tuple(dropped))


READ: dict[Form, tuple[str, ...]] = {
    "own": (),
    "messages": ("messages", "system"),
    "conversations": ("conversations", "conversation", "system"),
    "instruction": ("instruction", "input", "output", "response", "system", "history"),
    "prompt": ("prompt", *REPLIES, "system"),
    "question": ("question", *ANSWERS, "system"),
}


# ---- turns ---------------------------------------------------------------------------------------


def _turns(row: Mapping[str, Any], form: Form, *, needs_reply: bool = True) -> list[dict[str, str]]:
    """The turns of a row in order, each with a known role and its text."""
    if form == "instruction":
        turns = _instruction(row, needs_reply)
    elif form in ("prompt", "question"):
        replies = REPLIES if form == "prompt" else ANSWERS
        turns = _side(row[form], "user", form)
        key = next((key for key in replies if row.get(key) is not None), None)
        if key is not None:
            turns += _side(row[key], "assistant", key)
        elif needs_reply:
            raise Unusable(f"{form} without {' or '.join(replies)}")
    else:
        key = next(key for key in TURN_LISTS if isinstance(row.get(key), list))
        turns = [_turn(turn, key) for turn in cast("list[object]", row[key])]
    system = row.get("system")
    if isinstance(system, str) and system.strip() and not (turns and turns[0]["role"] == "system"):
        turns.insert(0, {"role": "system", "content": system})
    return turns


def _instruction(row: Mapping[str, Any], needs_reply: bool) -> list[dict[str, str]]:
    """Alpaca: the input stands below the instruction; `history` has the exchanges before it."""
    turns: list[dict[str, str]] = []
    history = row.get("history") or []
    if not isinstance(history, list):
        raise Unusable("history is no list of pairs")
    for pair in cast("list[object]", history):
        if not isinstance(pair, list) or len(cast("list[object]", pair)) != 2:
            raise Unusable("history is no list of pairs")
        asked, said = cast("list[object]", pair)
        turns += [*_side(asked, "user", "history"), *_side(said, "assistant", "history")]
    given = row.get("input")
    texts = [row["instruction"], *([given] if isinstance(given, str) and given.strip() else [])]
    if not all(isinstance(text, str) for text in texts):
        raise Unusable("instruction is no text")
    turns.append({"role": "user", "content": "\n\n".join(texts)})
    reply = row.get("output", row.get("response"))
    if reply is not None:
        turns += _side(reply, "assistant", "output")
    elif needs_reply:
        raise Unusable("instruction without output")
    return turns


def _side(value: object, role: str, key: str) -> list[dict[str, str]]:
    """One side of an exchange: a text, or a list of messages as TRL has it."""
    if isinstance(value, list):
        return [_turn(turn, key) for turn in cast("list[object]", value)]
    if not isinstance(value, str):
        raise Unusable(f"{key} is neither text nor a list of messages")
    return [{"role": role, "content": value}]


def _turn(turn: object, key: str) -> dict[str, str]:
    if not isinstance(turn, Mapping):
        raise Unusable(f"{key} holds something that is no message")
    message = cast("Mapping[str, object]", turn)
    said = message.get("role", message.get("from"))
    role = ROLES.get(said.lower()) if isinstance(said, str) else None
    if role is None:
        raise Unusable(f"a turn of the role {said!r}" if said is not None else "a turn has no role")
    if message.get("tool_calls"):
        raise Unusable("a turn calls a tool")
    return {"role": role, "content": _text(message.get("content", message.get("value")))}


def _text(content: object) -> str:
    """The text of a message: a text, or a list of text parts that are put together."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Unusable("a turn has no text")
    parts: list[str] = []
    for part in cast("list[object]", content):
        if isinstance(part, str):
            parts.append(part)
            continue
        fields = cast("Mapping[str, object]", part) if isinstance(part, Mapping) else {}
        text = fields.get("text")
        if fields.get("type", "text") != "text" or not isinstance(text, str):
            raise Unusable(f"a turn has a part of the type {fields.get('type')!r}")
        parts.append(text)
    return "".join(parts)


def _question(turns: Sequence[dict[str, str]]) -> dict[str, Any]:
    """`system`, `history` and `user` of the turns before a reply."""
    left = list(turns)
    if not left or left[-1]["role"] != "user":
        raise Unusable("no turn of the user before the last turn of the assistant")
    fields: dict[str, Any] = {"user": left.pop()["content"]}
    if left and left[0]["role"] == "system":
        fields["system"] = left.pop(0)["content"]
    if left:
        fields["history"] = left
    return fields
