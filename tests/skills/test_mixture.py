import pytest

from picochat.honesty.normalize import normalized_text, words_of
from picochat.skills.mixture import make_rows
from picochat.skills.scoring import can_fail, score_reply
from picochat.skills.skill import Skill
from picochat.skills.skill_table import PROFILES, SKILLS
from picochat.skills.task_rows import as_eval_row, eval_row, sft_row
from tests.skills.rows_builder import release_rows


@pytest.mark.parametrize("seed", [1, 42, 1234])
def test_sft_and_eval_share_no_item_and_no_prompt_even_across_seeds(seed: int) -> None:
    sft, _ = release_rows(2800, 240, seed=seed)
    items, prompts = {row.item for row in sft}, {normalized_text(row.user) for row in sft}
    for other in (seed, seed + 1):
        _, evals = release_rows(100, 700, seed=other)
        assert items.isdisjoint(row.item for row in evals)
        assert prompts.isdisjoint(normalized_text(row.user) for row in evals)


def test_every_eval_prompt_is_long_enough_to_be_looked_for_as_a_whole() -> None:
    _, evals = release_rows(100, 700)
    assert all(len(words_of(row.user)) >= 6 for row in evals)


@pytest.mark.parametrize("skill", SKILLS, ids=[skill.name for skill in SKILLS])
def test_every_skill_keeps_its_sides_apart_and_passes_its_own_rules(skill: Skill) -> None:
    sft = [
        sft_row(q, n, "scratchpad") for n, q in enumerate(skill.make(40, "sft", 5, "scratchpad"))
    ]
    evals = [
        eval_row(q, n, "scratchpad") for n, q in enumerate(skill.make(20, "eval", 6, "scratchpad"))
    ]
    assert {row.item for row in sft}.isdisjoint({row.item for row in evals})
    assert len({normalized_text(row.user) for row in (*sft, *evals)}) == 60
    for row in [*map(as_eval_row, sft), *evals]:
        assert row.skill == skill.name and row.curriculum_stage in skill.levels
        assert score_reply(row, row.reference_answer or "").passed, row
        assert can_fail(row) and not score_reply(row, row.user).passed, row


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_every_profile_gives_its_rows(profile: str) -> None:
    sft, evals = make_rows(profile, 200, 60, "direct", 3)
    assert (len(sft), len(evals)) == (200, 60)
    assert {row.skill for row in sft} == set(PROFILES[profile])


def test_profiles_weigh_known_skills_and_add_up_to_one() -> None:
    for weights in PROFILES.values():
        assert set(weights) <= {skill.name for skill in SKILLS}
        assert abs(sum(weights.values()) - 1) < 1e-9
