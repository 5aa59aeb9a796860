"""The chat format: encodes conversations, with a mask of the tokens that are trained on.

    <|bos|> <|system|> text <|end|> <|user|> text <|end|> <|assistant|> reply <|end|>

The marks are ids that code inserts. Text that spells a mark stays text. `chat_template.jinja`
describes the same format for other programs, and a test compares the two. Never cuts a
conversation: training leaves out one that does not fit the context, and the facts count it.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from picochat.config import ModelConfig, RunConfig
from picochat.core.errors import BadInput, Problem
from picochat.core.publish import Artifact, StagingFolder
from picochat.core.records import read_jsonl, to_jsonable
from picochat.facts import ConversationsFacts
from picochat.skills.scoring import choice_candidates
from picochat.skills.task_rows import EvalRow, Message, read_published_rows
from picochat.tokens.tokenizer import Tokenizer

Split = Literal["train", "held_out"]
PROMPT_FIELDS = {"system", "history", "user"}
MOST_PROBLEMS = 20  # of one file, reported at once
ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can hold: equal rows give equal bytes


class EncodedChat(NamedTuple):
    """One conversation. targets[i]: whether the model is trained to predict ids[i]."""

    ids: list[int]
    targets: list[bool]


def encode_messages(tokenizer: Tokenizer, messages: Sequence[Message]) -> EncodedChat:
    """The ids of a conversation, and which of them are targets.

    Targets are the assistant's replies and the end of turn after each.
    """
    marks = {"system": tokenizer.system, "user": tokenizer.user, "assistant": tokenizer.assistant}
    ids, targets = [tokenizer.bos], [False]
    for message in messages:
        content = tokenizer.encode(message.content)
        # <|end|> is a target too: otherwise the model would not learn to stop.
        ids += [marks[message.role], *content, tokenizer.end]
        targets += [False] + [message.role == "assistant"] * (len(content) + 1)
    return EncodedChat(ids, targets)


def render_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The ids to generate a reply from: the conversation, then <|assistant|>."""
    return [*encode_messages(tokenizer, messages).ids, tokenizer.assistant]


def row_messages(row: Mapping[str, Any]) -> list[Message]:
    """The conversation of one row: `system`, `history`, `user` and `assistant`, as it has them."""
    turns = [{"role": "system", "content": row.get("system")}, *(row.get("history") or [])]
    turns += [{"role": role, "content": row.get(role)} for role in ("user", "assistant")]
    return [Message.model_validate(turn) for turn in turns if turn["content"] is not None]


def row_prompt(tokenizer: Tokenizer, row: EvalRow) -> list[int]:
    """The ids of an eval row as a conversation, up to where the assistant's reply begins."""
    return render_prompt(tokenizer, prompt_messages(row))


def prompt_messages(row: EvalRow) -> list[Message]:
    """The turns of an eval row, of which the last is the user's."""
    return row_messages(row.model_dump(include=PROMPT_FIELDS))


def neutral_prompt(tokenizer: Tokenizer) -> list[int]:
    """The ids of a question that makes no answer likelier than another."""
    return render_prompt(tokenizer, neutral_messages())


def neutral_messages() -> list[Message]:
    """The turn of that question."""
    return [Message(role="user", content="What is the answer?")]


def reply_room(context: int) -> int:
    """Tokens of the context that a prompt must leave for the reply: an eighth of it."""
    return max(1, context // 8)


def fits_context(
    context: int, prompt: Sequence[int], neutral: Sequence[int], options: Sequence[Sequence[int]]
) -> bool:
    """Whether an eval row fits the context: prompt and reply, or prompt and longest option.

    A row that does not fit is not asked and counts as failed. It is never cut: a question without
    its beginning is another question. neutral: the neutral question. options: as ids; empty where
    text is generated.
    """
    if not options:
        return len(prompt) + reply_room(context) <= context
    # Options are also read after the neutral question, which may be longer than the row's.
    return max(len(prompt), len(neutral)) + max(map(len, options)) <= context


def is_askable(tokenizer: Tokenizer, row: EvalRow, context: int) -> bool:
    """Whether an eval row fits the context, by the rule of `fits_context`."""
    options = choice_candidates(row) if row.choice_labels else []
    encoded = [tokenizer.encode(option) for option in options]
    return fits_context(context, row_prompt(tokenizer, row), neutral_prompt(tokenizer), encoded)


# ---- the rows of a run, encoded once -------------------------------------------------------------


@dataclass(frozen=True)
class Conversations:
    """Encoded rows in the order of their file. Row i is tokens[offsets[i]:offsets[i + 1]]."""

    tokens: npt.NDArray[np.uint16]
    targets: npt.NDArray[np.bool_]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def ids(self, row: int) -> npt.NDArray[np.uint16]:
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

    def mask(self, row: int) -> npt.NDArray[np.bool_]:
        """mask(i)[t]: whether ids(i)[t] is a target."""
        return self.targets[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.offsets)


def join_conversations(chats: Sequence[EncodedChat]) -> Conversations:
    lengths = [len(chat.ids) for chat in chats]
    return Conversations(
        tokens=np.array([token for chat in chats for token in chat.ids], dtype=np.uint16),
        targets=np.array([target for chat in chats for target in chat.targets], dtype=np.bool_),
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
    )


def read_chats(path: Path, tokenizer: Tokenizer) -> list[EncodedChat]:
    """Every row of a jsonl file, encoded. Raises BadInput that lists the rows that lack a text."""
    chats: list[EncodedChat] = []
    problems: list[Problem] = []
    for line, row in read_jsonl(path, "rows"):
        wrong = [key for key in ("user", "assistant") if not isinstance(row.get(key), str)]
        wrong += ["system"] if not isinstance(row.get("system"), (str, type(None))) else []
        if wrong:
            problems.append(Problem(f"line {line}: {', '.join(wrong)} must be text"))
        else:
            chats.append(encode_messages(tokenizer, row_messages(row)))
    if problems:
        shown, more = problems[:MOST_PROBLEMS], len(problems) - MOST_PROBLEMS
        if more > 0:
            shown.append(Problem(f"and {more} more"))
        raise BadInput(f"rows {path} cannot be encoded", problems=shown)
    return chats


def fitting(chats: Iterable[EncodedChat], context: int) -> list[EncodedChat]:
    """The conversations of at most `context` tokens."""
    return [chat for chat in chats if len(chat.ids) <= context]


def encode_conversations(
    rows: Artifact, tokenizer: Artifact, model: ModelConfig, staging: StagingFolder
) -> None:
    """Write train.npz and held_out.npz: the SFT rows that fit the context, as ids and masks."""
    words = Tokenizer.load(tokenizer.path("tokenizer.json"))
    train_chats = read_chats(rows.path("sft_train.jsonl"), words)
    held_out_chats = read_chats(rows.path("sft_held_out.jsonl"), words)
    write_conversations(
        staging.path("train.npz"), join_conversations(fitting(train_chats, model.context))
    )
    write_conversations(
        staging.path("held_out.npz"), join_conversations(fitting(held_out_chats, model.context))
    )
    staging.facts = to_jsonable(_facts(staging.folder, rows, words, model.context))


def facts_from(
    files: Path, inputs: Mapping[str, Artifact], config: RunConfig
) -> ConversationsFacts:
    """Facts of the rows, from train.npz and from the rows encoded again.

    inputs: rows, tokenizer.
    """
    words = Tokenizer.load(inputs["tokenizer"].path("tokenizer.json"))
    return _facts(files, inputs["rows"], words, config.model.context)


def _facts(files: Path, rows: Artifact, words: Tokenizer, context: int) -> ConversationsFacts:
    kept = read_conversations(files / "train.npz")
    chats = read_chats(rows.path("sft_train.jsonl"), words)
    too_long = Counter(
        row.skill
        for row in read_published_rows(rows.path("eval.jsonl"), EvalRow)
        if not is_askable(words, row, context)
    )
    return ConversationsFacts(
        rows=len(chats),
        tokens=len(kept.tokens),
        target_tokens=int(kept.targets.sum()),
        longest_row_tokens=max((len(chat.ids) for chat in chats), default=0),
        rows_over_context=len(chats) - len(kept),
        eval_rows_over_context=dict(sorted(too_long.items())),
    )


def write_conversations(path: Path, rows: Conversations) -> None:
    """Write an .npz file whose bytes depend on the rows alone."""
    # numpy.savez leaves the dates of the entries to the zip library. A date from the clock would
    # change the artifact's digest with every run.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in ("tokens", "targets", "offsets"):
            buffer = io.BytesIO()
            np.save(buffer, getattr(rows, name), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", ZIP_DATE), buffer.getvalue())


def open_conversations(conversations: Artifact, split: Split) -> Conversations:
    """The encoded rows of one split. Raises BadInput as `read_conversations` does."""
    return read_conversations(conversations.path(f"{split}.npz"))


def read_conversations(path: Path) -> Conversations:
    """The rows that `write_conversations` wrote. Raises BadInput where they cannot be read."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return Conversations(arrays["tokens"], arrays["targets"], arrays["offsets"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BadInput(f"conversations {path} cannot be read: {error}") from None
