"""What single words give away about the rows of the skills identity and refusal.

    python bench/row_words.py [--quick]

A logistic regression over the words and word pairs of a prompt is trained on the SFT rows of the
runbook's pack and asked about its eval rows: is the answer yes or no, is the topic refused or
answered. It knows no words but those of the rows. AUC is the probability that it ranks an eval row
of the one kind above one of the other; 0.5 is chance. In addition: the best reply that is the same
to every row, of all SFT replies of the skill. Takes half a minute on one core.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from picochat.honesty.normalize import words_of
from picochat.skills.mixture import make_rows
from picochat.skills.scoring import score_reply
from picochat.skills.task_rows import EvalRow, SftRow

PAIRS = (
    # skill, the kinds that are compared: of identity the level, of refusal the kind of topic
    ("identity", ("are_you",)),
    ("identity", ("can_you",)),
    ("refusal", ("unsafe", "benign_wish")),
    ("refusal", ("private", "benign_thing")),
    ("refusal", ("unknowable", "benign_question")),
)
STEPS, RATE, DECAY = 500, 5.0, 0.01


def kind_of(row: SftRow | EvalRow) -> str:
    level = row.curriculum_stage or ""
    return (row.item or "").split(":")[1] if row.skill == "refusal" else level


def is_positive(row: SftRow | EvalRow) -> bool:
    """Yes of yes and no, answered of answered and refused."""
    if row.skill == "refusal":
        return row.answerable
    reply = row.assistant if isinstance(row, SftRow) else row.reference_answer
    return (reply or "").startswith("Yes")


def features_of(prompt: str) -> set[str]:
    words = words_of(prompt)
    return {*words, *(" ".join(pair) for pair in pairwise(words))}


def matrix(prompts: Sequence[str], columns: dict[str, int]) -> npt.NDArray[np.float64]:
    found = np.zeros((len(prompts), len(columns) + 1))
    found[:, -1] = 1
    for row, prompt in enumerate(prompts):
        found[row, [columns[name] for name in features_of(prompt) if name in columns]] = 1
    return found


def auc_of_words(sft: Sequence[SftRow], evals: Sequence[EvalRow]) -> float:
    counts = Counter(name for row in sft for name in features_of(row.user))
    seen_twice = (name for name, count in counts.items() if count > 1)
    columns = {name: number for number, name in enumerate(seen_twice)}
    known = matrix([row.user for row in sft], columns)
    wanted = np.array([is_positive(row) for row in sft], dtype=np.float64)
    weights = np.zeros(known.shape[1])
    for _ in range(STEPS):
        off = 1 / (1 + np.exp(-known @ weights)) - wanted
        weights -= RATE * known.T @ off / len(wanted) + DECAY * weights
    scores = matrix([row.user for row in evals], columns) @ weights
    positive = np.array([is_positive(row) for row in evals])
    above = scores[positive][:, None] - scores[~positive][None, :]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def best_constant(skill: str, sft: Sequence[SftRow], evals: Sequence[EvalRow]) -> str:
    rows = [row for row in evals if row.skill == skill]
    best = (0, "")
    for reply in sorted({row.assistant for row in sft if row.skill == skill}):
        best = max(best, (sum(score_reply(row, reply).passed for row in rows), reply))
    return f"{best[0]} of {len(rows)}: {best[1]!r}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    tenth = 10 if parser.parse_args().quick else 1
    sft, evals = make_rows("release_skills", 2800 // tenth, 700 // tenth, "scratchpad", 42)
    for skill, kinds in PAIRS:
        mine = [row for row in sft if row.skill == skill and kind_of(row) in kinds]
        asked = [row for row in evals if row.skill == skill and kind_of(row) in kinds]
        auc = auc_of_words(mine, asked)
        print(f"{skill}, {' and '.join(kinds)}: AUC {auc:.2f} of {len(asked)} eval rows")
    for skill in ("identity", "refusal"):
        print(f"{skill}, best constant reply: {best_constant(skill, sft, evals)}")


if __name__ == "__main__":
    main()
