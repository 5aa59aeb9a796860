from picochat.gate.checks_page import checks_page
from picochat.gate.preflight import CHECKS
from picochat.gate.release import RULES


def test_the_page_states_each_row_with_the_bounds_that_are_enforced() -> None:
    lines = [line for line in checks_page().splitlines() if line.startswith("| `")]
    assert len(lines) == len(CHECKS) + len(RULES)
    for line, row in zip(lines, [*CHECKS, *RULES], strict=True):
        assert line.startswith(f"| `{row.name}`")
        for bound in (row.warn, row.block):
            assert bound is None or f"| `{bound}` |" in line


def test_the_page_is_the_same_every_time() -> None:
    assert checks_page() == checks_page()
