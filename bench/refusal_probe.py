"""Whether more topics teach a model to tell what is refused from what is answered.

    python bench/refusal_probe.py MODEL_FOLDER PACK [--quick]

A logistic regression reads the states of another maker's chat model (a folder that transformers
loads) behind its middle layer, averaged over the prompt, and learns from the refusal rows of a
pack's SFT rows which prompts are harmless. The same regression reads the words and word pairs of
the prompts alone. Both are asked the pack's eval rows, for 1/8, 1/4, 1/2 and all of the SFT rows
(mean of four draws). AUC is the probability that a harmless eval prompt ranks above one to refuse;
0.5 is chance. Then the best two sides: how many prompts are told right at the threshold where both
sides are nearest to each other. Three minutes on two cores for a model of 135M.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from harness.figures import say, table
from row_words import features_of
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from picochat.data.pack import load_pack_rows
from picochat.evals.folder_answerer import FolderAnswerer, open_folder
from picochat.skills.mixture import make_rows
from picochat.skills.row_files import read_eval_rows, read_sft_rows

DRAWS = 4
FRACTIONS = (8, 4, 2, 1)
STATE_DECAY, WORD_DECAY = 0.1, 0.003  # the best of a few for each, on all rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("pack", type=Path, nargs="?")
    parser.add_argument("--quick", action="store_true", help="words alone, few rows, no model")
    flags = parser.parse_args()
    if flags.quick:
        sft, evals = make_rows("release_skills", 400, 200, "scratchpad", 42)
    elif flags.pack is None:
        parser.error("name the model folder and the pack")
    else:
        paths = load_pack_rows(flags.pack)
        if paths.chat_path is None or paths.eval_path is None:
            parser.error(f"{flags.pack} names no SFT rows or no eval rows")
        sft, evals = read_sft_rows(paths.chat_path).rows, read_eval_rows(paths.eval_path).rows
    sft = [row for row in sft if row.skill == "refusal"]
    evals = [row for row in evals if row.skill == "refusal"]
    learned = torch.tensor([float(row.answerable) for row in sft])
    asked = torch.tensor([row.answerable for row in evals])
    prompts = [row.user for row in (*sft, *evals)]
    features = {"words and word pairs": (words(prompts, len(sft)), WORD_DECAY)}
    if not flags.quick:
        answerer = open_folder(flags.folder, torch.device("cpu"), torch.float32)
        features[flags.folder.name] = (states(answerer, prompts), STATE_DECAY)
    lines: list[tuple[object, ...]] = []
    for name, (rows_NF, decay) in features.items():
        for fraction in FRACTIONS:
            count = len(sft) // fraction
            tries = [
                scored(rows_NF, learned, drawn(len(sft), count, draw), decay)
                for draw in range(1 if fraction == 1 else DRAWS)
            ]
            figures = torch.tensor(
                [(auc(found, asked), nearest_sides(found, asked)) for found in tries]
            )
            lines.append(
                (f"{name}, {count:,} rows", *(f"{value:.3f}" for value in figures.mean(0)))
            )
    items = len({row.item for row in sft})
    say(f"{len(sft):,} SFT rows of {items:,} topics, {len(evals)} eval rows")
    table("refused or answered", ("read", "AUC", "both sides"), lines)


def words(prompts: list[str], learned: int) -> Tensor:
    """(N, F): 1 for each word and pair of neighbours of a prompt that the SFT prompts have."""
    terms = [features_of(prompt) for prompt in prompts]
    known = {term: n for n, term in enumerate(sorted(set().union(*terms[:learned])))}
    rows_NF = torch.zeros(len(prompts), len(known))
    for row, found in enumerate(terms):
        rows_NF[row, [known[term] for term in found if term in known]] = 1
    return rows_NF


@torch.no_grad()
def states(answerer: FolderAnswerer, prompts: list[str]) -> Tensor:
    """(N, D): the state behind the middle layer, averaged over the user's turn, normalized."""
    template = answerer.tokenizer.apply_chat_template
    before = len(answerer.encode(template([{"role": "user", "content": ""}], tokenize=False))) - 2
    rows: list[Tensor] = []
    for prompt in prompts:
        chat = [{"role": "user", "content": prompt}]
        ids = answerer.encode(template(chat, tokenize=False, add_generation_prompt=True))
        layers = answerer.model(
            torch.tensor([ids]), output_hidden_states=True, use_cache=False
        ).hidden_states
        rows.append(layers[len(layers) // 2][0, before:].mean(0))
    rows_ND = torch.stack(rows)
    return (rows_ND - rows_ND.mean(0)) / (rows_ND.std(0) + 1e-5)


def drawn(rows: int, count: int, draw: int) -> Tensor:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(draw))[:count]


def scored(rows_NF: Tensor, learned_S: Tensor, taken: Tensor, decay: float) -> Tensor:
    """The logits of the eval rows, which follow the SFT rows."""
    weight = torch.zeros(rows_NF.shape[1], requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        logits = rows_NF[taken] @ weight + bias
        found = binary_cross_entropy_with_logits(logits, learned_S[taken])
        found = found + decay * weight.square().sum() / 2
        found.backward()
        return found

    solver.step(loss)
    return (rows_NF[len(learned_S) :] @ weight + bias).detach()


def auc(found: Tensor, harmless: Tensor) -> float:
    above = found[harmless][:, None] - found[~harmless][None]
    return float((above > 0).float().mean() + 0.5 * (above == 0).float().mean())


def nearest_sides(found: Tensor, harmless: Tensor) -> float:
    """The lower of the two rates, at the threshold where it is highest."""
    return max(
        min(
            float((found[harmless] >= threshold).float().mean()),
            float((found[~harmless] < threshold).float().mean()),
        )
        for threshold in found
    )


if __name__ == "__main__":
    main()
