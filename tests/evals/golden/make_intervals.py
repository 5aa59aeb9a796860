"""The intervals of statsmodels and scipy for many counts: remakes intervals.json, which
tests/evals/test_intervals.py reads.

    pip install scipy statsmodels; python tests/evals/golden/make_intervals.py >
    tests/evals/golden/intervals.json

Neither library is needed to develop or to test, so what they say is kept, with their versions.
"""

import json

import scipy  # pyright: ignore[reportMissingImports]
import statsmodels  # pyright: ignore[reportMissingImports]
from scipy.stats import binomtest, norm  # pyright: ignore[reportMissingImports]
from statsmodels.stats.proportion import proportion_confint  # pyright: ignore[reportMissingImports]

COUNTS = (1, 2, 3, 5, 7, 10, 11, 20, 36, 64, 70, 90, 108, 175, 360, 700, 1_000, 9_876)

rows = []
for count in COUNTS:
    for passed in sorted(
        {
            0,
            1,
            count // 20,
            count // 4,
            count // 3,
            count // 2,
            count - count // 7,
            count - 1,
            count,
        }
    ):
        ours = proportion_confint(passed, count, alpha=0.05, method="wilson")
        scipys = binomtest(passed, count).proportion_ci(0.95, method="wilson")
        rows.append([passed, count, *map(float, ours), float(scipys.low), float(scipys.high)])
head = {
    "scipy": scipy.__version__,
    "statsmodels": statsmodels.__version__,
    "z_95": float(norm.ppf(0.975)),
}
columns = ["passed", "count", "statsmodels_low", "statsmodels_high", "scipy_low", "scipy_high"]
lines = ",\n".join(json.dumps(row) for row in rows)
print(
    f'{{"made_with": {json.dumps(head)},\n"columns": {json.dumps(columns)},\n"rows":'
    f" [\n{lines}\n]}}"
)
