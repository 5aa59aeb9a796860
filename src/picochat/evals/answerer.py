"""What a model must offer so that the evaluator can ask it: prompts, replies, likelihoods.

The evaluator knows no class of models. `GptAnswerer` (gpt_answerer.py) answers for the model of a
run, `FolderAnswerer` (folder_answerer.py) for any folder that transformers loads. Importing this
module needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from picochat.skills.scoring import choice_candidates
from picochat.skills.task_rows import EvalRow
from picochat.tokens.chat_format import fits_context

Ids = Sequence[int]


class Answerer(Protocol):
    """A model with its tokenizer and its chat format. Ids are those of its own vocabulary."""

    @property
    def context(self) -> int:
        """The most tokens that prompt and reply have together."""
        ...

    @property
    def vocab_size(self) -> int:
        """How many logits the model gives for each token."""
        ...

    @property
    def bos(self) -> int | None:
        """What stands before plain text; None where the model knows no such token."""
        ...

    def encode(self, text: str) -> list[int]:
        """The ids of the text alone, without special tokens."""
        ...

    def row_prompt(self, row: EvalRow) -> list[int]:
        """The ids of a row as a conversation, up to where the assistant's reply begins."""
        ...

    def neutral_prompt(self) -> list[int]:
        """The ids of a question that makes no answer likelier than another."""
        ...

    def decode(self, ids: Ids) -> str:
        """The text of the ids, without special tokens."""
        ...

    def greedy_replies(self, prompts: Sequence[Ids], max_new_tokens: int) -> list[list[int]]:
        """For each prompt the greedy reply, without the token that ended it.

        It also ends after `max_new_tokens`, and where the context is full.
        """
        ...

    def option_log_likelihoods(
        self, questions: Sequence[tuple[Ids, Sequence[Ids]]]
    ) -> list[list[float]]:
        """For each (prompt, options) the summed log-probability of each option, in nats."""
        ...

    def continuation_log_likelihoods(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[float]:
        """For each (prompt, continuation) the summed log-probability of the latter, in nats."""
        ...


def fits(answerer: Answerer, row: EvalRow) -> bool:
    """Whether the row fits the answerer's context, by the rule of `fits_context`."""
    options = choice_candidates(row) if row.choice_labels else []
    return fits_context(
        answerer.context,
        answerer.row_prompt(row),
        answerer.neutral_prompt(),
        [answerer.encode(option) for option in options],
    )
