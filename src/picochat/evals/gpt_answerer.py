"""The model of a run as an answerer: GPT, its tokenizer, and the precision of its products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from picochat.evals.answerer import Ids
from picochat.model.gpt import GPT
from picochat.model.sampling import (
    continuation_log_likelihoods,
    greedy_replies,
    option_log_likelihoods,
)
from picochat.skills.task_rows import EvalRow
from picochat.tokens.chat_format import neutral_prompt, row_prompt
from picochat.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class GptAnswerer:
    """An `Answerer`; its methods are described there."""

    model: GPT
    tokenizer: Tokenizer
    dtype: torch.dtype = torch.float32

    @property
    def context(self) -> int:
        return self.model.config.context

    @property
    def vocab_size(self) -> int:
        return self.model.embedding.weight.shape[0]

    @property
    def bos(self) -> int:
        return self.tokenizer.bos

    def row_prompt(self, row: EvalRow) -> list[int]:
        return row_prompt(self.tokenizer, row)

    def neutral_prompt(self) -> list[int]:
        return neutral_prompt(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def decode(self, ids: Ids) -> str:
        return self.tokenizer.decode(ids)

    def greedy_replies(self, prompts: Sequence[Ids], max_new_tokens: int) -> list[list[int]]:
        return greedy_replies(
            self.model,
            prompts,
            end=self.tokenizer.end,
            max_new_tokens=max_new_tokens,
            dtype=self.dtype,
        )

    def option_log_likelihoods(
        self, questions: Sequence[tuple[Ids, Sequence[Ids]]]
    ) -> list[list[float]]:
        return option_log_likelihoods(
            self.model, questions, pad=self.tokenizer.pad, dtype=self.dtype
        )

    def continuation_log_likelihoods(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[float]:
        return continuation_log_likelihoods(self.model, pairs, dtype=self.dtype)
