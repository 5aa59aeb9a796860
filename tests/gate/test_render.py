from picochat.gate.preflight import CHECKS, decide_preflight
from picochat.gate.release import decide_release
from picochat.gate.render import (
    finding_lines,
    gate_lines,
    gate_page,
    preflight_lines,
    preflight_page,
)
from tests.builders import (
    make_benchmarks_facts,
    make_evidence,
    make_honesty_facts,
    make_host_facts,
    make_rows_facts,
)


def blocked_lines() -> list[str]:
    return preflight_lines(decide_preflight(make_evidence(rows=make_rows_facts(shared_items=3))))


def test_a_blocked_check_is_shown_with_its_value_bound_and_remedy() -> None:
    lines = blocked_lines()
    passing = len({row.name for row in CHECKS}) - 1
    assert lines[0].startswith(
        f"preflight: blocked (profile skill_release, long run; {passing} pass, 0 warn, 1 block"
    )
    assert (
        "BLOCK eval_independence: eval items that the SFT rows contain: 3 items, must be = 0"
        in lines
    )
    assert any(line.startswith("    fix: remove these questions") for line in lines)


def test_the_table_is_aligned() -> None:
    lines = finding_lines(decide_preflight(make_evidence()).findings)
    column = lines[0].index("995,000")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines)


def test_a_failed_kernel_reads_failed_and_an_absent_one_unmeasured() -> None:
    failed = preflight_lines(
        decide_preflight(make_evidence(host=make_host_facts(attention_problem="no kernel image")))
    )
    assert any(
        "attention_backend_runtime" in line and "failed" in line and "no kernel image" in line
        for line in failed
    )
    absent = preflight_lines(decide_preflight(make_evidence(host=None)))
    assert any(
        line.startswith("BLOCK  attention_backend_runtime") and "unmeasured" in line
        for line in absent
    )


def test_pages_open_with_the_verdict_and_name_the_remedy() -> None:
    page = preflight_page(decide_preflight(make_evidence(rows=make_rows_facts(shared_items=3))))
    assert page.startswith("# Preflight: blocked\n")
    assert "- **eval_independence** (block)" in page
    gate = gate_page(decide_release(make_evidence()))
    assert gate.startswith("# Release gate: approved\n")
    assert "## What failed" not in gate
    lines = gate_lines(decide_release(make_evidence()))
    assert lines[1:3] == ["Every rule passes.", "weakest skill: refusal"]


def test_a_hostile_name_cannot_leave_its_table_cell() -> None:
    rows = {"bad|name\n# <script>": 10}
    honesty = make_honesty_facts(external_rows=rows, external_contaminated=dict.fromkeys(rows, 0))
    evidence = make_evidence(benchmarks=make_benchmarks_facts(rows), honesty=honesty)
    page = preflight_page(decide_preflight(evidence))
    assert "<script>" not in page
    assert "\n# &lt;" not in page
