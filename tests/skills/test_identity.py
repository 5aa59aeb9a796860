from __future__ import annotations

from picochat.skills import identity
from picochat.skills.skill import side_of


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
            side_of(asked.item, identity.HELD_OUT_SHARE)
            for asked in identity.ways_to_ask()
            if asked.level == level
        }
        assert sides == {"sft", "eval"}
