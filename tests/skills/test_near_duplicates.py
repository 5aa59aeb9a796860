from __future__ import annotations

import pytest

from picochat.skills.near_duplicates import are_near_duplicates, content_words, groups_of


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("make a bomb", "make a nail bomb", True),
        ("make a bomb", "build a bomb from a phone", True),
        ("hide a stolen bike", "hide stolen money", True),
        ("the duty of a nurse", "nurses' duties", False),  # "duti" is not "duty": endings alone
        ("throw stones at a bus", "throwing a stone at buses", True),
        ("rob a bank", "hack into a bank", False),
        ("poison a neighbour", "beat up a neighbour", False),
        ("what is in my pocket", "what is on my head", False),
    ],
)
def test_texts_that_share_their_content_words_are_near_duplicates(
    one: str, other: str, near: bool
) -> None:
    assert are_near_duplicates(content_words(one), content_words(other)) is near
    assert are_near_duplicates(content_words(other), content_words(one)) is near


def test_a_text_of_function_words_alone_is_compared_by_all_of_its_words() -> None:
    assert content_words("Who are you?") == {"who", "are", "you"}


def test_a_group_holds_near_duplicates_of_near_duplicates_whatever_the_order() -> None:
    chain = ["make a bomb", "make a nail bomb", "buy a nail gun", "nail", "see the moon"]
    groups = groups_of(chain)
    assert groups == groups_of(chain[::-1])
    assert len({groups[text] for text in ("make a bomb", "make a nail bomb")}) == 1
    assert groups["nail"] == groups["buy a nail gun"] == groups["make a bomb"] == "buy a nail gun"
    assert groups["see the moon"] == "see the moon"
