"""The SFT and eval rows of a profile, or of given weights of the skills.

The same arguments give the same rows. Each eval row has an item of its own, so a request for more
eval rows than items is refused. `task_pack.py` writes the rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from picochat.core.errors import Problem, WrongUsage, did_you_mean
from picochat.skills.skill import AnswerStyle, Profile, Question, Split, divide_rows, seeded
from picochat.skills.skill_table import SKILLS
from picochat.skills.task_rows import EvalRow, SftRow, eval_row, sft_row


def weights_of(profile: Profile, given: str | None, split: Split = "sft") -> dict[str, float]:
    """The fraction of each skill in the rows, in the order of SKILLS. The sum is 1.

    given: weights instead of the profile's, such as `math=.3,spelling=.2`, for both splits. A skill
    that it does not name gets no rows. Raises WrongUsage that lists every wrong part of it.
    """
    if given is None:
        weights = {s.name: s.weights[profile] for s in SKILLS if profile in s.weights}
        if split == "eval":
            weights |= {
                s.name: s.eval_weights[profile] for s in SKILLS if profile in s.eval_weights
            }
    else:
        weights = _parse_weights(given)
    total = sum(weights.values())
    return {skill.name: weights[skill.name] / total for skill in SKILLS if weights.get(skill.name)}


def _parse_weights(text: str) -> dict[str, float]:
    names = [skill.name for skill in SKILLS]
    weights: dict[str, float] = {}
    problems: list[Problem] = []
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        weight = _weight(number)
        if name not in names:
            problems.append(
                Problem(
                    f"{part.strip()!r}: no skill{did_you_mean(name, names)}",
                    fix=f"one of: {', '.join(names)}",
                )
            )
        elif name in weights:
            problems.append(Problem(f"{name} is given twice"))
        elif weight is None:
            problems.append(Problem(f"{name}: {number!r} is no weight of 0 or more"))
        else:
            weights[name] = weight
    if not problems and not sum(weights.values()):
        problems.append(Problem("all weights are 0"))
    if problems:
        fix = "--skill-weights math=.3,spelling=.25,identity=.25,choice=.1,refusal=.1"
        raise WrongUsage(f"--skill-weights {text}: not usable", problems=problems, fix=fix)
    return weights


def _weight(text: str) -> float | None:
    try:
        weight = float(text)
    except ValueError:
        return None
    return weight if 0 <= weight < math.inf else None


def weights_text(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items())


def rows_by_skill(
    profile: Profile, count: int, split: Split, given: Mapping[str, float] | None = None
) -> dict[str, int]:
    """`count` rows divided among the skills of a profile, or by given weights.

    In a profile's eval, a skill whose part exceeds its items gets all of them, and the others
    divide the rest.
    """
    weights = given or weights_of(profile, None, split)
    rows = divide_rows(count, weights)
    if split == "sft" or given:
        return rows
    most = {skill.name: skill.eval_items() for skill in SKILLS if skill.eval_items}
    full = {name: most[name] for name in rows if rows[name] > most.get(name, count)}
    others = {name: weight for name, weight in weights.items() if name not in full}
    if not others:
        return rows
    divided = {**full, **divide_rows(count - sum(full.values()), others)}
    return {name: divided[name] for name in rows}


def make_rows(
    profile: Profile,
    sft_rows: int,
    eval_rows: int,
    style: AnswerStyle,
    seed: int,
    weights: Mapping[str, float] | None = None,
) -> tuple[list[SftRow], list[EvalRow]]:
    """Shuffled SFT and eval rows of all skills of a profile. weights: instead of the profile's.

    Raises WrongUsage that lists every level with too few items.
    """
    sft = [
        sft_row(question, number, style)
        for number, question in _questions(profile, sft_rows, "sft", style, seed, weights)
    ]
    evals = [
        eval_row(question, number, style)
        for number, question in _questions(profile, eval_rows, "eval", style, seed, weights)
    ]
    return sft, evals


def _questions(
    profile: Profile,
    count: int,
    split: Split,
    style: AnswerStyle,
    seed: int,
    given: Mapping[str, float] | None,
) -> list[tuple[int, Question]]:
    # Every skill is tried before the request is refused, so that the error lists all short levels.
    problems: list[Problem] = []
    questions: list[tuple[int, Question]] = []
    rows = rows_by_skill(profile, count, split, given)
    for skill in SKILLS:
        try:
            questions += enumerate(skill.make(rows.get(skill.name, 0), split, seed, style))
        except WrongUsage as error:
            problems += [Problem(f"{skill.name}, {problem.what}") for problem in error.problems]
    if problems:
        flag = "--sft-rows" if split == "sft" else "--eval-rows"
        raise WrongUsage(
            f"the skills cannot give {count} {split} rows without repeating themselves"
            f" ({weights_text(given or weights_of(profile, None, split))})",
            problems=problems,
            fix=f"a smaller {flag}, or other --skill-weights",
        )
    seeded("mixture", split, seed).shuffle(questions)
    return questions
