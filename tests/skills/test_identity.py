from __future__ import annotations

from collections import Counter

import pytest

from picochat.skills import identity
from picochat.skills.identity import WayToAsk, ways_to_ask
from picochat.skills.near_duplicates import are_near_duplicates, content_words
from picochat.skills.scoring import score_reply
from picochat.skills.skill import Question, Split
from picochat.skills.task_rows import EvalRow
from tests.skills.rows_builder import eval_row

SPLITS: tuple[Split, ...] = ("sft", "eval")
EVERY = (*ways_to_ask("sft"), *ways_to_ask("eval"))


def row_of(way: WayToAsk | Question) -> EvalRow:
    return eval_row(
        user=way.text if isinstance(way, WayToAsk) else way.prompt,
        category="identity",
        curriculum_stage=way.level,
        must_include_any=[list(group) for group in way.must_include_any],
    )


def eval_rows() -> list[EvalRow]:
    """As many rows as the runbook's 700 have of this skill."""
    return [row_of(question) for question in identity.make(121, "eval", 42, "direct")]


def passed(rows: list[EvalRow], reply: str) -> Counter[str]:
    """How many rows of each level the reply passes."""
    return Counter(row.curriculum_stage or "" for row in rows if score_reply(row, reply).passed)


def test_every_way_to_ask_is_there_once() -> None:
    texts = [way.text for way in EVERY]
    assert len(texts) == len(set(texts)) >= 350


def test_no_item_is_on_both_sides_and_eval_asks_about_each_once() -> None:
    items = {split: [way.item for way in ways_to_ask(split)] for split in SPLITS}
    assert set(items["sft"]).isdisjoint(items["eval"])
    assert len(items["eval"]) == len(set(items["eval"]))


def test_no_near_duplicate_is_on_the_other_side() -> None:
    """Of the phrasings of a fact, and of what is asked about in a yes/no question."""
    found = identity.data()
    trained = {way.item for way in ways_to_ask("sft")}
    asked = {way.item for way in ways_to_ask("eval")}
    things = [
        [(f"identity:{level}:{thing}", thing) for thing in pool]
        for level, pool in (
            ("are_you", (*found.are, *found.are_not)),
            ("can_you", (*found.able, *found.not_able)),
        )
    ]
    things += [[(f"identity:{text}", text) for text in fact.phrasings] for fact in found.open]
    for pool in things:
        for item, text in pool:
            for other_item, other in pool:
                if item in trained and other_item in asked:
                    near = are_near_duplicates(content_words(text), content_words(other))
                    assert not near, (text, other)


def test_yes_and_no_follow_the_thing_that_is_asked() -> None:
    replies = {way.text: way.reply for way in EVERY}
    assert replies["Are you a language model?"].startswith("Yes.")
    assert replies["Can you add two small numbers?"].startswith("Yes.")
    assert replies["Can you see me?"] == (
        "No. I am Picochat, a small text model. I cannot see you."
    )


def test_true_and_false_together_are_answered_by_their_order() -> None:
    found = identity.data()
    seen: Counter[str] = Counter()
    for way in EVERY:
        if not way.kind.startswith("contrast"):
            continue
        joint = " and not " if way.level == "are_you" else " but not "
        first, second = way.text.removesuffix("?").split(" you ", 1)[1].split(joint)
        true = {*found.are, *found.able}
        assert (first in true) == (way.kind == "contrast_yes") == (second not in true)
        assert way.reply.startswith("Yes." if first in true else "No.")
        seen[way.kind] += 1
    assert min(seen.values()) > 80


@pytest.mark.parametrize("split", SPLITS)
def test_yes_is_right_as_often_as_no_and_facts_come_equally_often(split: Split) -> None:
    questions = identity.make(600 if split == "sft" else 121, split, 7, "direct")
    for level in ("are_you", "can_you"):
        first = Counter(q.reply.split(".")[0] for q in questions if q.level == level)
        assert abs(first["Yes"] - first["No"]) <= 1, first
    replies = Counter(question.reply for question in questions if question.level == "open")
    assert len(replies) == len(identity.data().open)
    assert max(replies.values()) - min(replies.values()) <= 1


def test_levels_have_equally_many_rows() -> None:
    levels = Counter(row.curriculum_stage for row in eval_rows())
    assert set(levels) == set(identity.LEVELS)
    assert min(levels.values()) >= 40


def test_no_open_question_can_be_answered_with_yes_or_no() -> None:
    with pytest.raises(ValueError, match="is answered by yes or no"):
        identity.Fact(fact="x", reply="I am.", fits=("x",), phrasings=("Are you alive?",))


def test_what_it_is_and_what_it_is_not_are_two_lists() -> None:
    found = identity.data()
    assert set(found.are).isdisjoint(found.are_not)
    assert set(found.able).isdisjoint(found.not_able)


def test_eval_always_has_an_opener_and_sft_asks_without_one_as_well() -> None:
    assert "" in identity.openers("sft") and "" not in identity.openers("eval")
    openers = identity.openers("eval")
    for question in identity.make(100, "eval", 3, "direct"):
        assert any(question.prompt.startswith(f"{opener} ") for opener in openers)
    bare = {way.text for way in ways_to_ask("sft")}
    assert bare & {question.prompt for question in identity.make(100, "sft", 3, "direct")}


def test_every_reply_passes_and_none_claims_another_identity() -> None:
    for way in EVERY:
        assert "Picochat" in way.reply
        assert score_reply(row_of(way), way.reply).passed, way
        assert not identity.claims_another_identity(way.reply)


@pytest.mark.parametrize(
    "reply",
    [
        "Yes. I am Picochat, a small language model.",
        "No. I am Picochat, a program. I have no body and no feelings.",
        "I am Picochat. I can be wrong, so please check what I say.",
        "Yes. No. I am Picochat.",
        "No, yes: I am Picochat, a small language model of the open project, trained on text.",
    ],
)
def test_no_line_passes_more_than_half_of_a_level(reply: str) -> None:
    rows = eval_rows()
    found = passed(rows, reply)
    levels = Counter(row.curriculum_stage for row in rows)
    assert found["open"] <= 12, found
    for level in ("are_you", "can_you"):
        assert found[level] <= levels[level] / 2, found
    if "Yes. No." in reply or "No, yes" in reply:
        assert found["are_you"] == found["can_you"] == 0


def test_a_line_of_all_phrases_passes_no_more_open_questions_than_another() -> None:
    facts = identity.data().open
    everything = " ".join(phrase for fact in facts for phrase in fact.fits)
    for line in (f"I am Picochat {everything}", *(fact.reply for fact in facts)):
        fitting = [fact.fact for fact in facts if identity.facts().fits(line, fact.fits)]
        assert len(fitting) <= identity.MOST_FACTS


def test_a_short_reply_that_names_what_it_is_passes_where_that_is_asked() -> None:
    by_kind = {way.kind: row_of(way) for way in EVERY if way.level == "open"}
    reply = "I am Picochat, a small language model."
    fitting = {kind for kind, row in by_kind.items() if score_reply(row, reply).passed}
    assert fitting == {"name", "kind", "size"}
