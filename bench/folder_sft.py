"""Trains the top layers of another maker's chat model on the SFT rows of a pack.

    python bench/folder_sft.py MODEL_FOLDER PACK OUT [--layers 8] [--epochs 2] [--rate 2e-4]

What a public model reaches on a pack's eval rows by its own words says little about rows that ask
for a form. This teaches it the form: `OUT` is a folder for `picochat eval OUT --dataset-pack PACK`.
Conversations follow the folder's own chat template; the loss counts the assistant's tokens. Layers
below the trained ones run once, and what they give is kept (float32, about 0.5 GB for 2,800 rows
and a width of 576). Only Llama classes, because the layers are called one by one. Needs
`pip install 'picochat[hf]'`.

Shape suffixes: B rows, T positions, D width.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from picochat.data.pack import load_pack_rows
from picochat.evals.folder_answerer import FolderAnswerer, open_folder
from picochat.model.gpt import IGNORED_TARGET
from picochat.skills.row_files import read_sft_rows
from picochat.tokens.chat_format import EncodedChat, row_messages

BATCH_ROWS = 32
WARMUP_FRACTION = 0.05
"""Of the steps. The rate then falls to a tenth along a cosine."""
MAX_NORM = 1.0


def chat_of(answerer: FolderAnswerer, turns: list[dict[str, str]]) -> EncodedChat:
    """Each reply is encoded apart from what stands before it, as it is when it is generated."""

    def rendered(until: int, **more: Any) -> str:
        template = answerer.tokenizer.apply_chat_template
        return template(turns[:until], tokenize=False, **more)

    ids: list[int] = []
    targets: list[bool] = []
    done = ""
    for number, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        prompt = rendered(number, add_generation_prompt=True)
        whole = rendered(number + 1)
        if not (prompt.startswith(done) and whole.startswith(prompt)):
            sys.exit("the chat template of the folder changes earlier turns when one is added")
        for text, is_reply in ((prompt[len(done) :], False), (whole[len(prompt) :], True)):
            piece = answerer.encode(text)
            ids += piece
            targets += [is_reply] * len(piece)
        done = whole
    return EncodedChat(ids, targets)


def padded(chats: list[EncodedChat], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids_BT, targets_BT); IGNORED_TARGET where nothing is learned. Padding is on the right."""
    length = max(len(chat.ids) for chat in chats)
    ids_BT = torch.full((len(chats), length), pad)
    targets_BT = torch.full((len(chats), length), IGNORED_TARGET)
    for row, chat in enumerate(chats):
        ids_T = torch.tensor(chat.ids)
        ids_BT[row, : len(ids_T)] = ids_T
        trained_T = torch.tensor(chat.targets)
        targets_BT[row, : len(ids_T)] = torch.where(trained_T, ids_T, IGNORED_TARGET)
    return ids_BT, targets_BT


def run_layers(
    model: Any, hidden_BTD: torch.Tensor, layers: Any, positions: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    # Padding on the right is after every trained token, so the causal mask alone is enough.
    for layer in layers:
        result = layer(hidden_BTD, attention_mask=None, position_embeddings=positions)
        hidden_BTD = result[0] if isinstance(result, tuple) else result
    return hidden_BTD


def rotary(model: Any, hidden_BTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    ids_BT = torch.arange(hidden_BTD.shape[1])[None]
    return model.model.rotary_emb(hidden_BTD, ids_BT)


@dataclass(frozen=True)
class Settings:
    """layers: how many are trained, the last ones and the norm behind them. rate: the peak."""

    layers: int
    epochs: int
    rate: float
    seed: int


def train(model: Any, chats: list[EncodedChat], pad: int, settings: Settings) -> None:
    """Train in place."""
    below = model.model.layers[: len(model.model.layers) - settings.layers]
    above = model.model.layers[len(below) :]
    by_length = sorted(chats, key=lambda chat: len(chat.ids))
    batches = [by_length[n : n + BATCH_ROWS] for n in range(0, len(by_length), BATCH_ROWS)]
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    begun = time.perf_counter()
    with torch.no_grad():
        for batch in batches:
            ids_BT, targets_BT = padded(batch, pad)
            hidden_BTD = model.model.embed_tokens(ids_BT)
            hidden_BTD = run_layers(model, hidden_BTD, below, rotary(model, hidden_BTD))
            kept.append((hidden_BTD, targets_BT))
    print(f"{len(below)} layers ran once in {time.perf_counter() - begun:.0f} s", flush=True)

    model.requires_grad_(False)
    parameters = [*above.parameters(), *model.model.norm.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    print(f"{sum(p.numel() for p in parameters):,} parameters are trained", flush=True)
    optimizer = torch.optim.AdamW(parameters, settings.rate, betas=(0.9, 0.95), weight_decay=0.0)
    steps = settings.epochs * len(kept)
    warmup = max(1, round(WARMUP_FRACTION * steps))
    shuffled = random.Random(settings.seed)
    step = 0
    for epoch in range(settings.epochs):
        order = list(range(len(kept)))
        shuffled.shuffle(order)
        nats, targets = 0.0, 0
        for number in order:
            progress = max(0.0, (step - warmup) / max(1, steps - warmup))
            fraction = min((step + 1) / warmup, 0.55 + 0.45 * math.cos(math.pi * progress))
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * fraction
            hidden_BTD, targets_BT = kept[number]
            hidden_BTD = run_layers(model, hidden_BTD, above, rotary(model, hidden_BTD))
            is_target_BT = targets_BT[:, 1:] != IGNORED_TARGET
            last_ND = model.model.norm(hidden_BTD[:, :-1][is_target_BT])
            wanted_N = targets_BT[:, 1:][is_target_BT]
            loss = cross_entropy(model.lm_head(last_ND), wanted_N)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            nats += loss.item() * len(wanted_N)
            targets += len(wanted_N)
            step += 1
        seconds = time.perf_counter() - begun
        print(f"epoch {epoch + 1}: {nats / targets:.3f} nats a target, {seconds:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("pack", type=Path, nargs="?")
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--quick", action="store_true", help="train new weights of a small shape")
    flags = parser.parse_args()
    if flags.quick:
        quick()
        return
    if flags.out is None:
        parser.error("name the model folder, the pack and the folder to write")
    if flags.out.exists():
        parser.error(f"{flags.out} exists")
    answerer = open_folder(flags.folder, torch.device("cpu"), torch.float32)
    if type(answerer.model).__name__ != "LlamaForCausalLM":
        parser.error(f"{flags.folder} holds a {type(answerer.model).__name__}")
    path = load_pack_rows(flags.pack).chat_path
    if path is None:
        parser.error(f"{flags.pack} names no SFT rows")
    rows = read_sft_rows(path).rows
    chats = [
        chat_of(answerer, [turn.model_dump() for turn in row_messages(row.model_dump())])
        for row in rows
    ]
    tokens = sum(len(chat.ids) for chat in chats)
    print(f"{len(chats):,} conversations, {tokens:,} tokens", flush=True)
    pad = answerer.ends[0] if answerer.ends else 0
    train(answerer.model, chats, pad, Settings(flags.layers, flags.epochs, flags.rate, flags.seed))
    flags.out.mkdir(parents=True)
    answerer.model.save_pretrained(flags.out)
    answerer.tokenizer.save_pretrained(flags.out)
    print(f"next: picochat eval {flags.out} --dataset-pack {flags.pack}")


def quick() -> None:
    """Two random conversations must be learned by the last layer of new weights."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, tie_word_embeddings=True, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(42)
    model = transformers.LlamaForCausalLM(config)
    chats = [EncodedChat([1, 5, 9, 12, 2], [False, False, False, True, True])] * 8
    chats += [EncodedChat([1, 7, 20, 2], [False, False, True, True])] * 8
    train(model, chats, 2, Settings(layers=1, epochs=3, rate=2e-4, seed=42))


if __name__ == "__main__":
    main()
