"""A folder that transformers loads as an answerer: stock classes, no code from the folder.

Prompts follow the folder's own chat template, with whatever it adds, such as a system prompt. The
folder's limits and rules of generation are replaced by greedy decoding; only the tokens that end a
reply are taken from it. An option is encoded alone, without special tokens, as the model would
generate it: no merge reaches over the end of the prompt. Text that spells a special token becomes
that token, as the folder's tokenizer has it. Batches are padded; in bf16 rounding may then decide
a near tie differently.

Shape suffixes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from picochat.core.errors import BadInput
from picochat.evals.answerer import Ids
from picochat.skills.task_rows import EvalRow
from picochat.tokens.chat_format import neutral_messages, prompt_messages

LONGEST_CONTEXT = 1_000_000
"""Tokens. A tokenizer without a limit of its own states an astronomic one."""
MOST_LOGITS = 1 << 27
"""Numbers in the logits of one forward pass: half a gigabyte in float32."""
INSTALL = "pip install 'picochat[hf]'"
RUN_FILES = ("run.json", "model.json")


@dataclass(frozen=True)
class FolderAnswerer:
    """An `Answerer`; its methods are described there. ends: the tokens that end a reply."""

    model: Any
    tokenizer: Any
    context: int
    ends: tuple[int, ...]

    @property
    def vocab_size(self) -> int:
        return self.model.get_input_embeddings().weight.shape[0]

    @property
    def bos(self) -> int | None:
        return self.tokenizer.bos_token_id

    def row_prompt(self, row: EvalRow) -> list[int]:
        """Raises BadInput where the chat template does not take the turns of the row."""
        try:
            return self._rendered(prompt_messages(row))
        except Exception as error:
            if not type(error).__module__.startswith("jinja2"):
                raise
            raise BadInput(
                f"the chat template of the folder does not take row {row.id}: {error}",
                fix="leave `system` and `history` out of the eval rows",
            ) from None

    def neutral_prompt(self) -> list[int]:
        return self._neutral

    @cached_property
    def _neutral(self) -> list[int]:
        return self._rendered(neutral_messages())

    def _rendered(self, messages: Sequence[Any]) -> list[int]:
        text = self.tokenizer.apply_chat_template(
            [message.model_dump() for message in messages],
            tokenize=False,
            add_generation_prompt=True,
        )
        return self.encode(text)  # the template has written the special tokens itself

    def encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def decode(self, ids: Ids) -> str:
        return self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    @torch.no_grad()
    def greedy_replies(self, prompts: Sequence[Ids], max_new_tokens: int) -> list[list[int]]:
        # A prompt with less room is asked alone: beside others it would be read beyond its context.
        together = [n for n, ids in enumerate(prompts) if self._room(ids) >= max_new_tokens]
        groups = [together, *([n] for n in range(len(prompts)) if n not in set(together))]
        replies: list[list[int]] = [[] for _ in prompts]
        for group in filter(None, groups):
            some = [prompts[n] for n in group]
            limit = min(max_new_tokens, *map(self._room, some))
            for n, reply in zip(group, self._generated(some, limit), strict=True):
                replies[n] = reply
        return replies

    def _room(self, prompt: Ids) -> int:
        return self.context - len(prompt)

    def _generated(self, prompts: Sequence[Ids], limit: int) -> list[list[int]]:
        from transformers import GenerationConfig

        ends = list(self.ends)
        ids_BT, mask_BT = self._padded(prompts, left=True)
        settings = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=limit,
            eos_token_id=ends or None,
            pad_token_id=self._pad,
        )
        whole_BT = self.model.generate(ids_BT, attention_mask=mask_BT, generation_config=settings)
        return [_up_to(reply, ends) for reply in whole_BT[:, ids_BT.shape[1] :].tolist()]

    def option_log_likelihoods(
        self, questions: Sequence[tuple[Ids, Sequence[Ids]]]
    ) -> list[list[float]]:
        pairs = [(prompt, option) for prompt, options in questions for option in options]
        sums = iter(self.continuation_log_likelihoods(pairs))
        return [[next(sums) for _ in options] for _, options in questions]

    @torch.no_grad()
    def continuation_log_likelihoods(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[float]:
        # The last token is a target alone. What the model reads for one pair may begin with all
        # that it reads for another, as with options of one token; then it reads once for both.
        read = [(*prompt, *continuation)[:-1] for prompt, continuation in pairs]
        by_prompt: dict[tuple[int, ...], list[int]] = {}
        for number, (prompt, _) in enumerate(pairs):
            by_prompt.setdefault(tuple(prompt), []).append(number)
        waiting: dict[tuple[int, ...], list[int]] = {}
        for numbers in by_prompt.values():
            for number in sorted(numbers, key=lambda number: -len(read[number])):
                ids = read[number]
                longer = (read[n] for n in numbers if read[n][: len(ids)] == ids)
                waiting.setdefault(max(longer, key=len), []).append(number)
        found = [0.0] * len(pairs)
        in_order = sorted(waiting, key=lambda ids: (-len(ids), ids))
        while in_order:
            rows = max(1, MOST_LOGITS // (len(in_order[0]) * self.vocab_size))
            some, in_order = in_order[:rows], in_order[rows:]
            ids_BT, mask_BT = self._padded(some, left=False)
            logits_BTV = self.model(ids_BT, attention_mask=mask_BT, use_cache=False).logits
            for row, ids in enumerate(some):
                for number in waiting[ids]:
                    prompt, continuation = pairs[number]
                    first = len(prompt) - 1
                    logits_TV = logits_BTV[row, first : first + len(continuation)].float()
                    targets_T = torch.tensor(list(continuation), device=logits_TV.device)
                    loss_T = torch.nn.functional.cross_entropy(
                        logits_TV, targets_T, reduction="none"
                    )
                    found[number] = float(-loss_T.double().sum())
        return found

    @property
    def _pad(self) -> int:
        """Any token: what is padding is masked."""
        known = (self.tokenizer.pad_token_id, *self.ends, 0)
        return next(token for token in known if token is not None)

    def _padded(self, rows: Sequence[Ids], *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
        longest = max(map(len, rows))
        ids: list[list[int]] = []
        mask: list[list[int]] = []
        for row in rows:
            pad = longest - len(row)
            ids.append([self._pad] * pad + list(row) if left else list(row) + [self._pad] * pad)
            mask.append([0] * pad + [1] * len(row) if left else [1] * len(row) + [0] * pad)
        device = self.model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _up_to(reply: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The tokens before the first that ends a reply; generate fills up behind it."""
    return list(reply[: next((n for n, token in enumerate(reply) if token in ends), len(reply))])


# ---- opening a folder ----------------------------------------------------------------------------


def require_model_folder(folder: Path) -> None:
    """Raise BadInput where it is no folder that transformers can load; reads no weights."""
    has_config = (folder / "config.json").is_file()
    gguf = folder if folder.suffix == ".gguf" else next(folder.glob("*.gguf"), None)
    if gguf is not None and not has_config:
        raise BadInput(
            f"{gguf} is a GGUF file, and a transformers folder is asked",
            fix=f"python bench/gguf_folder.py {quote(str(gguf))} OUT makes a folder of it",
        )
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise BadInput(
            f"model folder {folder} {state}",
            fix="name a folder with config.json, weights and tokenizer; nothing is downloaded",
        )
    if has_config:
        return
    if any((folder / name).is_file() for name in RUN_FILES):
        raise BadInput(
            f"{folder} is of a picochat run, and not a folder that transformers loads",
            fix=(
                "picochat export hf --checkpoint RUN/sft/checkpoint --tokenizer RUN/tokenizer.json"
                " --out-dir OUT; picochat run show RUN has the scores of the run itself"
            ),
        )
    raise BadInput(
        f"{folder} is no model folder: it has no config.json",
        fix="name a folder with config.json, weights and tokenizer; nothing is downloaded",
    )


def require_transformers() -> None:
    """Raise BadInput where transformers is not installed."""
    if importlib.util.find_spec("transformers") is None:
        raise BadInput("a model folder needs transformers, which is not installed", fix=INSTALL)


def open_folder(folder: Path, device: torch.device, dtype: torch.dtype) -> FolderAnswerer:
    """Load tokenizer and weights. Raises BadInput where transformers cannot, or a part is missing.

    Nothing is fetched from the network, and no code of the folder is run.
    """
    require_model_folder(folder)
    require_transformers()
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    load: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = _loaded(
        folder, "tokenizer", lambda: transformers.AutoTokenizer.from_pretrained(folder, **load)
    )
    if tokenizer.chat_template is None:
        raise BadInput(
            f"{folder} has no chat template: a base model cannot be asked as a chat model",
            fix="name the folder of the chat model, or put its chat_template.jinja there",
        )
    model = _loaded(
        folder,
        "model",
        lambda: transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **load),
    )
    ends = _ends(model, tokenizer)
    # `generate` takes what a call leaves open from here, such as a penalty on repetition.
    model.generation_config = transformers.GenerationConfig()
    return FolderAnswerer(
        model.to(device).eval(), tokenizer, _context(folder, model, tokenizer), ends
    )


def _loaded(folder: Path, what: str, load: Any) -> Any:
    try:
        return load()
    # Many kinds of errors: a missing or torn file, an unknown class, a library that a tokenizer
    # needs, code in the folder that is not to be run.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise BadInput(
            f"transformers cannot load the {what} of {folder}: {reason}",
            fix=(
                "check that the folder is whole and that this loads it:"
                f" transformers.{_AUTO[what]}.from_pretrained(FOLDER)"
            ),
        ) from None


_AUTO = {"tokenizer": "AutoTokenizer", "model": "AutoModelForCausalLM"}


def _ends(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokens that end a reply: those of generation_config, else the tokenizer's."""
    stated = getattr(model.generation_config, "eos_token_id", None)
    found = tokenizer.eos_token_id if stated is None else stated
    return () if found is None else tuple(found) if isinstance(found, list) else (found,)


def _context(folder: Path, model: Any, tokenizer: Any) -> int:
    config = model.config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        stated = getattr(config, name, None)
        if isinstance(stated, int) and stated > 0:
            return stated
    if 0 < tokenizer.model_max_length <= LONGEST_CONTEXT:
        return int(tokenizer.model_max_length)
    raise BadInput(
        f"{folder} does not say how many tokens the model reads",
        fix='write "max_position_embeddings": N into its config.json',
    )
