from __future__ import annotations

from picochat.skills import identity
from picochat.skills.scoring import score_reply
from picochat.skills.skill import side_of
from tests.skills.rows_builder import eval_row


def test_every_way_to_ask_is_there_once() -> None:
    items = [asked.item for asked in identity.ways_to_ask()]
    assert len(items) == len(set(items)) >= 350


def test_every_reply_names_picochat_and_nothing_else() -> None:
    for asked in identity.ways_to_ask():
        assert "Picochat" in asked.reply


def test_yes_and_no_follow_the_thing_that_is_asked() -> None:
    replies = {asked.text: asked.reply for asked in identity.ways_to_ask()}
    assert replies["Are you a language model?"].startswith("Yes.")
    assert replies["Are you ChatGPT?"].startswith("No.")
    assert replies["Can you browse the web?"].startswith("No.")
    assert replies["Can you add two small numbers?"].startswith("Yes.")


def test_both_sides_have_ways_to_ask_of_every_level() -> None:
    for level in identity.LEVELS:
        sides = {
            side_of(asked.item, identity.HELD_OUT_FRACTION)
            for asked in identity.ways_to_ask()
            if asked.level == level
        }
        assert sides == {"sft", "eval"}


def test_an_act_is_asked_for_me_and_answered_for_you() -> None:
    replies = {way.text: way.reply for way in identity.ways_to_ask()}
    assert "I cannot pay your bills." in replies["Can you pay my bills?"]
    assert "I cannot see you." in replies["Can you see me?"]


def test_what_it_is_and_what_it_is_not_are_two_lists() -> None:
    found = identity.data()
    assert set(found.are).isdisjoint(found.are_not)
    assert set(found.able).isdisjoint(found.not_able)


def test_eval_always_has_an_opener_and_sft_asks_without_one_as_well() -> None:
    assert "" in identity.openers("sft") and "" not in identity.openers("eval")
    openers = identity.openers("eval")
    for question in identity.make(100, "eval", 3, "direct"):
        assert any(question.prompt.startswith(f"{opener} ") for opener in openers)
    bare = {way.text for way in identity.ways_to_ask()}
    assert bare & {question.prompt for question in identity.make(100, "sft", 3, "direct")}


def test_every_reply_passes_and_none_claims_another_identity() -> None:
    for way in identity.ways_to_ask():
        groups = [list(group) for group in way.must_include_any]
        row = eval_row(user=way.text, category="identity", must_include_any=groups)
        assert score_reply(row, way.reply).passed, way
        assert not identity.claims_another_identity(way.reply)


def test_the_reply_to_one_open_question_seldom_answers_another() -> None:
    """Else one sentence, learned by heart, would pass the level."""
    groups = identity.data().open
    for reply in {group.reply for group in groups}:
        passed = 0
        for group in groups:
            row = eval_row(
                category="identity", must_include_any=[list(g) for g in group.must_include_any]
            )
            passed += score_reply(row, reply).passed
        assert passed <= len(groups) / 2, reply
