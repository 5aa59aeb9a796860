import pytest

from picochat.core.errors import WrongUsage
from picochat.honesty.normalize import normalized_text, words_of
from picochat.skills import choice
from picochat.skills.mixture import make_rows, rows_by_skill, weights_of
from picochat.skills.scoring import can_fail, score_reply
from picochat.skills.skill import (
    FINAL_ANSWER,
    LONGEST_REPLY_WORDS,
    PROFILES,
    AnswerStyle,
    Profile,
    Skill,
    Split,
)
from picochat.skills.skill_table import SKILLS
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


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_gives_its_rows(profile: Profile) -> None:
    sft, evals = make_rows(profile, 200, 60, "direct", 3)
    assert (len(sft), len(evals)) == (200, 60)
    assert {row.skill for row in sft} == {s.name for s in SKILLS if profile in s.weights}


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_weigh_known_skills_and_add_up_to_one(profile: Profile) -> None:
    weights = weights_of(profile, None)
    assert set(weights) <= {skill.name for skill in SKILLS}
    assert abs(sum(weights.values()) - 1) < 1e-9
    assert min(weights.values()) > 0


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_gives_each_skill_its_weight_of_the_sum_in_the_order_of_the_table(
    profile: Profile,
) -> None:
    stated = {s.name: s.weights[profile] for s in SKILLS if profile in s.weights}
    weights = weights_of(profile, None)
    assert list(weights) == list(stated)
    total = sum(stated.values())
    assert weights == pytest.approx({name: part / total for name, part in stated.items()})


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("count", [1, 60, 700])
def test_the_parts_of_both_splits_add_up(profile: Profile, count: int) -> None:
    for split in ("sft", "eval"):
        parts = rows_by_skill(profile, count, split)
        assert sum(parts.values()) == count
        assert list(parts) == list(weights_of(profile, None))


def test_the_runbooks_eval_rows_ask_every_held_out_fact() -> None:
    _, evals = release_rows(100, 700)
    asked = {row.item for row in evals if row.skill == "choice"}
    assert asked == {fact.item for fact in choice.all_facts() if fact.side == "eval"}


HALVES = {"choice": 0.5, "math": 0.5}


def test_a_part_beyond_the_items_of_a_skill_goes_to_the_others_unless_weights_are_given() -> None:
    assert rows_by_skill("full", 10_000, "eval")["choice"] == choice.SKILL.eval_items()
    assert rows_by_skill("full", 10_000, "eval", HALVES)["choice"] == 5_000
    with pytest.raises(WrongUsage) as error:
        make_rows("full", 100, 700, "direct", 1, HALVES)
    assert any("choice, choice: 350 eval rows" in each.what for each in error.value.problems)


@pytest.mark.parametrize("split", ["sft", "eval"])
@pytest.mark.parametrize("skill", SKILLS, ids=[skill.name for skill in SKILLS])
def test_every_skill_gives_just_as_many_questions_as_it_is_asked_for(
    skill: Skill, split: Split
) -> None:
    for count in (0, 1, 7, 33):
        assert len(skill.make(count, split, 11, "direct")) == count


@pytest.mark.parametrize("skill", SKILLS, ids=[skill.name for skill in SKILLS])
def test_the_seed_decides_which_questions_are_asked_and_nothing_else_does(skill: Skill) -> None:
    first = skill.make(30, "eval", 1, "direct")
    assert skill.make(30, "eval", 1, "direct") == first
    assert [q.prompt for q in skill.make(30, "eval", 2, "direct")] != [q.prompt for q in first]
    other_style = skill.make(30, "eval", 1, "scratchpad")
    assert [q.prompt for q in other_style] == [q.prompt for q in first]


@pytest.mark.parametrize("style", ["direct", "scratchpad"])
def test_a_reply_has_a_working_in_scratchpad_style_alone(style: AnswerStyle) -> None:
    sft, _ = make_rows("release_skills", 200, 40, style, 3)
    scored = [row for row in sft if row.expected_final_answer is not None]
    assert {row.skill for row in scored} == {
        skill.name
        for skill in SKILLS
        if "release_skills" in skill.weights
        and any(question.final_answer for question in skill.make(20, "sft", 3, style))
    }
    for row in scored:
        last = row.assistant.splitlines()[-1]
        if style == "direct":
            assert row.assistant == row.expected_final_answer
        else:
            assert last == f"{FINAL_ANSWER} {row.expected_final_answer}"
            assert len(row.assistant.splitlines()) == 2
            assert len(row.assistant.split()) < LONGEST_REPLY_WORDS
