import ast
import inspect
import math

import pytest

from picochat.gate import measures, preflight, release
from picochat.gate.plan import needed_disk_bytes, sft_epochs
from tests.builders import (
    EVAL_ROWS,
    make_config,
    make_conversations_facts,
    make_corpus_facts,
    make_evidence,
    make_honesty_facts,
    make_rows_facts,
)


def test_every_measure_is_used_by_a_row() -> None:
    public = {
        name
        for name, value in vars(measures).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    public = {name for name in public if getattr(measures, name).__module__ == measures.__name__}
    tables = ast.parse(inspect.getsource(preflight)), ast.parse(inspect.getsource(release))
    used = {
        node.attr for table in tables for node in ast.walk(table) if isinstance(node, ast.Attribute)
    }
    used_elsewhere = {
        "judged_skills",
        "ratio",
        "provenance_gaps",
        "compared_licences",
        "counted_levels",
        "power_of",
        "tested_skills",
        "most_trivial_skill",
        "trivial_reach",
    }
    assert public - used - used_elsewhere == set()


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [(1, 4, 0.25), (1, 0, None), (None, 4, None), (1, None, None), (0, 4, 0)],
)
def test_a_ratio_without_both_parts_is_missing(
    part: float | None, whole: float | None, expected: float | None
) -> None:
    assert measures.ratio(part, whole) == expected


def test_the_half_width_is_wilsons_at_one_half() -> None:
    rows = make_rows_facts(eval_items_by_skill={**EVAL_ROWS, "refusal": 24})
    half, n, z = measures.widest_half_interval(make_evidence(rows=rows)), 24, 1.959964
    assert half == pytest.approx(z * math.sqrt(0.25 / n + z * z / (4 * n * n)) / (1 + z * z / n))


def test_items_count_where_rows_repeat_them() -> None:
    repeated = make_rows_facts(eval_items_by_skill={**EVAL_ROWS, "identity": 15})
    many, few = (
        measures.widest_half_interval(make_evidence()),
        measures.widest_half_interval(make_evidence(rows=repeated)),
    )
    assert many is not None
    assert few is not None
    assert few > 0.2 > many


def test_sft_passes_count_the_rows_that_fit() -> None:
    evidence = make_evidence(conversations=make_conversations_facts(rows_over_context=240))
    assert sft_epochs(evidence) == pytest.approx(400 * 32 / 2_000)


def test_planned_tokens_and_parameters_are_the_runbooks() -> None:
    numbers = make_evidence().preflight_report
    assert numbers
    assert numbers.plan.parameters == 106_969_856
    assert numbers.plan.planned_tokens == 2_162_688_000


def test_the_scan_is_measured_against_the_corpus_and_not_against_itself() -> None:
    short = make_honesty_facts(scanned_text_bytes=1_000, corpus_text_bytes=1_000)
    assert measures.scanned_fraction(make_evidence(honesty=short)) == pytest.approx(
        1_000 / 4_300_000_000
    )


def test_a_local_source_needs_no_import_report_but_a_licence() -> None:
    source = (
        make_corpus_facts().sources[0].model_copy(update={"kind": "files", "import_report": False})
    )
    assert measures.provenance_gaps(source) == []
    assert measures.provenance_gaps(source.model_copy(update={"licence": None})) == ["licence"]
    assert measures.provenance_gaps(source.model_copy(update={"kind": "hub"})) == ["import report"]


def test_the_disk_need_grows_with_tokens_and_parameters() -> None:
    small = make_evidence(config=make_config("tiny"))
    large, little = needed_disk_bytes(make_evidence()), needed_disk_bytes(small)
    assert large is not None
    assert little is not None
    assert large - little == pytest.approx(80 * (106_969_856 - 2_061_120), rel=0.2)


def test_a_baseline_that_saw_less_than_its_due_measures_nothing() -> None:
    """Otherwise a setting would lower the bar: anything beats a 5-gram model of ten tokens."""
    evidence = make_evidence()
    assert measures.bits_over_baseline(evidence) is not None
    weak = make_config(evals={"ngram_train_tokens": 10})
    assert measures.bits_over_baseline(make_evidence(config=weak)) is None
    assert evidence.preflight_report
    small = evidence.preflight_report.model_copy(
        update={"plan": evidence.preflight_report.plan.model_copy(update={"train_tokens": 10})}
    )
    assert (
        measures.bits_over_baseline(make_evidence(config=weak, preflight_report=small)) is not None
    )
