from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picochat.facts import FindingRecord, RunFacts
from picochat.gate.bounds import at_least, exactly
from picochat.gate.decide import (
    ADVICE,
    ALWAYS,
    RELEASE,
    SKILL_ADVICE,
    SKILL_ONLY,
    Row,
    Strictness,
    decide,
    verdict,
)
from picochat.gate.preflight import CHECKS
from picochat.gate.release import RULES
from tests.builders import make_config, make_evidence

EVIDENCE = RunFacts(config=make_config())
STRICT = Strictness("skill_release", softened=False)
SOFT = Strictness("skill_release", softened=True)


def row(number: float | None, **changes: object) -> Row:
    made = Row(
        name="row",
        reading="a number",
        unit="units",
        measure=lambda _: number,
        warn=at_least(10),
        block=at_least(5),
        severity=RELEASE,
        why="why",
        fix="do this",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "strictness", "status"),
    [
        (10, STRICT, "pass"),
        (9, STRICT, "warn"),
        (4, STRICT, "block"),
        (None, STRICT, "block"),
        (10, SOFT, "pass"),
        (4, SOFT, "warn"),
        (None, SOFT, "unmeasured"),
        (4, Strictness("research", softened=True), "warn"),
        (None, Strictness("research", softened=False), "unmeasured"),
    ],
)
def test_a_number_is_judged_by_the_stricter_bound_that_it_misses(
    number: float, strictness: Strictness, status: str
) -> None:
    assert decide([row(number)], EVIDENCE, strictness)[0].status == status


def test_rows_that_always_block_keep_their_strength_in_short_runs() -> None:
    assert decide([row(4, severity=ALWAYS)], EVIDENCE, SOFT)[0].status == "block"
    assert decide([row(None, severity=ALWAYS)], EVIDENCE, SOFT)[0].status == "unmeasured"


def test_the_printed_bound_is_the_one_that_was_missed() -> None:
    assert [decide([row(n)], EVIDENCE, STRICT)[0].bound for n in (12, 9, 4)] == [
        ">= 10",
        ">= 10",
        ">= 5",
    ]


def test_rows_of_one_name_make_one_finding_the_worst() -> None:
    second = row(1, reading="another number", block=exactly(0), warn=None, fix="do that")
    finding = decide([row(9), second], EVIDENCE, STRICT)
    assert len(finding) == 1
    assert (finding[0].status, finding[0].measured) == ("block", 1)
    assert "a number: 9 units" in finding[0].message
    assert "another number: 1 units" in finding[0].message
    assert finding[0].fix == "do that; do this"


def test_rows_that_are_off_or_do_not_apply_give_no_finding() -> None:
    rows = [row(1, severity=SKILL_ONLY), row(1, name="other", applies=lambda _: False)]
    assert decide(rows, EVIDENCE, Strictness("first_release", softened=False)) == []


def test_no_row_at_all_blocks() -> None:
    assert verdict([]) == "block"


def test_an_unmeasured_row_is_at_most_a_warning() -> None:
    findings = decide([row(12), row(None, name="other", severity=ADVICE)], EVIDENCE, STRICT)
    assert [finding.status for finding in findings] == ["pass", "unmeasured"]
    assert verdict(findings) == "warn"


@given(st.lists(st.sampled_from(["pass", "warn", "block", "unmeasured"]), min_size=1))
def test_a_verdict_passes_only_where_every_finding_does(statuses: list[str]) -> None:
    findings = [
        FindingRecord(
            name="n", status=status, measured=None, unit="", bound="", message="", fix=None
        )  # type: ignore[arg-type]
        for status in statuses
    ]
    assert (verdict(findings) == "pass") == (set(statuses) == {"pass"})
    assert (verdict(findings) == "block") == ("block" in statuses)


@pytest.mark.parametrize("table", [CHECKS, RULES], ids=["CHECKS", "RULES"])
def test_no_row_passes_where_its_number_is_missing(table: tuple[Row, ...]) -> None:
    for profile, softened, number in product(
        ("research", "first_release", "skill_release"),
        (True, False),
        (None, float("nan"), float("inf")),
    ):
        blind = [replace(one, measure=lambda _, n=number: n) for one in table]
        findings = decide(blind, make_evidence(), Strictness(profile, softened))
        assert findings
        assert "pass" not in {finding.status for finding in findings}
        assert not {finding.measured for finding in findings} - {None}


@pytest.mark.parametrize("table", [CHECKS, RULES], ids=["CHECKS", "RULES"])
def test_every_row_can_fail_and_says_why_and_what_to_do(table: tuple[Row, ...]) -> None:
    for one in table:
        assert one.warn or one.block
        assert one.why
        assert one.fix
        assert one.reading
        assert one.unit
        assert one.severity not in (ADVICE, SKILL_ADVICE) or one.block is None
