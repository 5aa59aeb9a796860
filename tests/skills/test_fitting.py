from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from picochat.skills.fitting import Topics

TOPICS = (
    ("ball", "net", "arm"),
    ("ball", "rod", "worm"),
    ("egg", "pan", "hot water"),
    ("egg", "cup"),
    ("tent", "rope"),
)
FITTING = Topics(TOPICS, most=2)


def test_a_reply_fits_by_one_of_its_phrases() -> None:
    assert FITTING.fits("Hold the rope.", TOPICS[4])
    assert FITTING.fits("Put it in Hot Water!", TOPICS[2])
    assert not FITTING.fits("Put hot coals in water.", TOPICS[2])
    assert not FITTING.fits("I am a dog.", TOPICS[4])
    assert not FITTING.fits("", TOPICS[4])


def test_a_word_of_two_topics_fits_both_and_one_more_word_decides() -> None:
    assert FITTING.fits("Take the ball.", TOPICS[0]) and FITTING.fits("Take the ball.", TOPICS[1])
    assert not FITTING.fits("Take the ball, the net and the egg.", TOPICS[2])


def test_a_phrase_of_one_topic_says_more_than_one_of_many() -> None:
    assert FITTING.fits("Take a ball, an egg and the rope.", TOPICS[4])
    assert not FITTING.fits("Take a ball, an egg and the rope.", TOPICS[3])


def test_a_phrase_of_no_topic_counts_for_the_row_that_asks_for_it() -> None:
    assert FITTING.fits("Use a lantern.", ["lantern"])


WORDS = sorted({phrase for topic in TOPICS for phrase in topic})


@given(st.lists(st.sampled_from(WORDS), max_size=40))
def test_no_line_fits_more_topics_than_the_limit(said: list[str]) -> None:
    assert sum(FITTING.fits(" ".join(said), topic) for topic in TOPICS) <= FITTING.most
