"""The sentences that a verdict comes to."""

from __future__ import annotations

from typing import Any

import pytest

from picochat.facts import FindingRecord
from picochat.gate.conclusion import conclusion, is_near
from picochat.gate.release import decide_release
from tests.builders import make_evidence


def finding(name: str, status: str = "block", **fields: Any) -> FindingRecord:
    values = {"measured": 0.1, "unit": "of rows", "bound": ">= 0.6", "message": "m", "fix": "f"}
    return FindingRecord.model_validate(
        {"name": name, "status": status, "on_host": False, **values, **fields}
    )


@pytest.mark.parametrize(
    ("measured", "bound", "near"),
    [
        (0.45, ">= 0.6", True),
        (0.44, ">= 0.6", False),
        (0.0, "> 0", True),
        (None, ">= 0.6", False),
        (0.5, "<= 0.1", False),
    ],
)
def test_near_is_three_quarters_of_a_lower_bound(
    measured: float | None, bound: str, near: bool
) -> None:
    assert is_near(finding("x", measured=measured, bound=bound)) == near


def test_a_verdict_without_a_miss_says_so() -> None:
    assert conclusion(decide_release(make_evidence()).findings) == "Every rule passes."


def test_fifteen_rows_about_skills_are_one_sentence() -> None:
    found = conclusion(
        [
            finding("skill_release_eval_math", measured=0.1, bound=">= 0.3"),
            finding("skill_release_eval_spelling", measured=0.1, bound=">= 0.4"),
            finding("skill_release_stage_spelling", measured=0.0, bound=">= 0.3"),
            finding("skill_release_eval_identity", measured=0.55, bound=">= 0.6"),
            finding("skill_release_eval_refusal", measured=0.7, bound=">= 0.75"),
        ]
    )
    assert found == (
        "Math and spelling are far from the bound, identity and refusal are near it: train SFT"
        " longer (--sft-steps N) or with more rows (--sft-rows N of task-pack)."
    )


def test_the_base_model_comes_first_and_warnings_wait_for_blocks() -> None:
    found = conclusion(
        [
            finding("sft_fit", "warn"),
            finding("skill_release_eval_identity", measured=0.5, bound=">= 0.6"),
            finding("base_beats_baseline"),
            finding("export_parity"),
        ]
    )
    assert found.startswith("The base model predicts text hardly better")
    assert "Identity is near the bound: train SFT longer (--sft-steps N)." in found
    assert found.endswith("Also fail: export_parity.")
    assert "sft_fit" not in found


def test_what_was_not_measured_is_named_where_nothing_fails() -> None:
    assert conclusion([finding("external_eval", "unmeasured")]) == "Not measured: external_eval."
