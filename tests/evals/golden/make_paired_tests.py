"""The tests of scipy and statsmodels for many tables: remakes paired_tests.json, which
tests/evals/test_paired_tests.py reads.

    pip install scipy statsmodels; python tests/evals/golden/make_paired_tests.py >
    tests/evals/golden/paired_tests.json

Neither library is needed to develop or to test, so what they say is kept, with their versions.
"""

import json

import scipy  # pyright: ignore[reportMissingImports]
import statsmodels  # pyright: ignore[reportMissingImports]
from scipy.stats import binomtest, t  # pyright: ignore[reportMissingImports]
from statsmodels.stats.multitest import multipletests  # pyright: ignore[reportMissingImports]

DISCORDANT = ((0, 1), (0, 5), (0, 6), (3, 9), (9, 3), (17, 41), (60, 60), (61, 90), (480, 520))
POINTS = (0.0, 0.3, 1.0, 2.0, 2.776445, 4.5, 12.7, 60.0)
DEGREES = (1, 2, 3, 4, 5, 8, 13, 30, 101)
FAMILIES = ([0.01, 0.04, 0.03, 0.005], [0.2], [0.5, 0.001, 0.001, 0.9, 0.012], [0.01] * 5)

found = {
    "made_with": {"scipy": scipy.__version__, "statsmodels": statsmodels.__version__},
    "mcnemar": [[a, b, float(binomtest(a, a + b, 0.5).pvalue)] for a, b in DISCORDANT],
    "two_sided_t": [[x, df, float(2 * t.sf(x, df))] for df in DEGREES for x in POINTS],
    "t_975": [[df, float(t.ppf(0.975, df))] for df in DEGREES],
    "holm": [[ps, multipletests(ps, method="holm")[1].tolist()] for ps in FAMILIES],
}
print("{" + ",\n".join(f'"{name}": {json.dumps(value)}' for name, value in found.items()) + "}")
