"""How often `picochat run compare` finds a difference, in simulated runs.

    python bench/compare_power.py

A comparison has five skills of 120 rows each. Rows have difficulties of their own, a seed moves the
logits of a whole skill, and B gains the same in all skills, or nothing. Printed is how often the
whole comparison names a difference: where B gains nothing that is an error, of at most 0.05.
`few` and `many` are the same test with nA + nB - 2 and with Satterthwaite's degrees of freedom,
`one run` compares the first run of each side. Takes a minute on one core.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from picochat.evals.paired_tests import LEVEL, Floats, holm, rows_test, seeds_test
from picochat.evals.student_t import two_sided_p

SKILLS, ROWS, DRAWS = 5, 120, 400
Pair = tuple[Floats, Floats]


def draw(random: np.random.Generator, runs: int, seed_sd: float, gain: float) -> list[Pair]:
    """(A, B) of each skill, both (runs, rows)."""
    found: list[Pair] = []
    for _ in range(SKILLS):
        easiness = random.normal(0.3, 1.5, ROWS)
        a, b = (
            (
                random.random((runs, ROWS))
                < 1 / (1 + np.exp(-easiness - more - random.normal(0, seed_sd, (runs, 1))))
            ).astype(float)
            for more in (0.0, gain)
        )
        found.append((a, b))
    return found


def p_by_degrees(a: Floats, b: Floats) -> tuple[float, float]:
    """The p of `seeds_test` with other degrees of freedom: nA + nB - 2, and Satterthwaite's."""
    few = len(a) + len(b) - 2
    squares = sum(float(((x.mean(1) - x.mean()) ** 2).sum()) for x in (a, b))
    d = b.mean(axis=0) - a.mean(axis=0)
    by_seed = squares / few * (1 / len(a) + 1 / len(b))
    by_rows = float((d**2).sum()) / ROWS**2
    many = (by_seed + by_rows) ** 2 / (by_seed**2 / few + by_rows**2 / (ROWS - 1))
    t = float(d.mean()) / math.sqrt(by_seed + by_rows)
    return two_sided_p(t, few), two_sided_p(t, int(many))


def differs(p_values: Sequence[float]) -> bool:
    return min(holm(p_values)) <= LEVEL


def main() -> None:
    print("| runs a side | sd of the seed, logits | gain of B | found | few | many | one run |")
    print("|---|---|---|---|---|---|---|")
    random, sizes = np.random.default_rng(0), np.ones(ROWS)
    for runs, seed_sd, gain in itertools.product((2, 3, 5), (0.0, 0.2, 0.6), (0.0, 0.8)):
        counts, gained = np.zeros(4), 0.0
        for _ in range(DRAWS):
            pairs = draw(random, runs, seed_sd, gain)
            gained += sum(float(b.mean() - a.mean()) for a, b in pairs) / SKILLS / DRAWS
            few, many = zip(*(p_by_degrees(a, b) for a, b in pairs), strict=True)
            seeds = [seeds_test(a, b, sizes).p for a, b in pairs]
            first = [rows_test(a[0] > 0, b[0] > 0).p for a, b in pairs]
            counts += [differs(p_values) for p_values in (seeds, few, many, first)]
        cells = "".join(f" {count / DRAWS:.3f} |" for count in counts)
        print(f"| {runs} | {seed_sd} | {gained:+.2f} |{cells}")


if __name__ == "__main__":
    main()
