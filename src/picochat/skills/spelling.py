"""The skill "spelling": counting letters, first and last letter, spelling forwards and backwards.

An item is a word, real or made up of syllables; a held-out word is in no SFT row of this skill.
Letters are answered with a space between them, so that each is a token of its own. Only the letters
a to z.
"""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, StringConstraints

from picochat.core.records import Record
from picochat.skills.skill import (
    AnswerStyle,
    Claim,
    Question,
    Skill,
    Split,
    divide_rows,
    draw,
    seeded,
    side_of,
    with_final_answer,
)
from picochat.skills.skill_data import (
    ApartSides,
    Sides,
    Texts,
    distinct,
    read_skill_data,
    with_slots,
)

HELD_OUT_FRACTION = 0.3
LEVELS: dict[str, float] = {
    "count": 0.24,
    "first": 0.22,
    "last": 0.22,
    "spaced": 0.16,
    "reverse": 0.16,
}
# Of the levels in their order, among the skill exercises: whole words, forwards and backwards, are
# the hardest to learn.
PRACTISED = (0.18, 0.12, 0.12, 0.26, 0.32)
MADE_UP_WORDS = 400
MADE_UP_SHARE = 0.2  # of the words that are asked

Word = Annotated[str, StringConstraints(pattern=r"^[a-z]{3,8}$")]
WordWordings = Annotated[ApartSides, AfterValidator(with_slots("word"))]


def _split(text: object) -> object:
    return tuple(text.split()) if isinstance(text, str) else text


class Syllables(Record):
    onsets: Texts
    vowels: Texts
    codas: tuple[str, ...]


class Wordings(Record):
    count: WordWordings
    first: WordWordings
    last: WordWordings
    spaced: WordWordings
    reverse: WordWordings


class SpellingData(Record):
    """data/spelling.toml: words as one text, the parts of made-up words, and wordings by level."""

    words: Annotated[tuple[Word, ...], BeforeValidator(_split), AfterValidator(distinct)]
    made_up: Syllables
    wordings: Wordings


@lru_cache
def data() -> SpellingData:
    return read_skill_data("spelling.toml", SpellingData)


# ---- questions -----------------------------------------------------------------------------------


def make(count: int, split: Split, seed: int, answer_style: AnswerStyle) -> list[Question]:
    """`count` questions over the levels; in eval no word is asked twice.

    Raises WrongUsage where words run out.
    """
    questions: list[Question] = []
    words = _words(split, seed)
    start = 0
    for level, rows in divide_rows(count, LEVELS).items():
        # Each level begins where the one before ended, so that levels share no word until the words
        # run out.
        turned = words[start:] + words[:start] if split == "sft" else words[start:]
        # First and last letter differ, so that the one is never right where the other is asked.
        usable = [word for word in turned if word[0] != word[-1]]
        taken = usable[:rows] if split == "eval" or rows <= len(usable) else usable
        wordings = wordings_of(level)[split]
        questions += draw(
            rows,
            level,
            split,
            taken,
            len(wordings),
            seed,
            lambda word, n, level=level, wordings=wordings: _ask(
                word, level, wordings[n], answer_style
            ),
        )
        start = (words.index(taken[-1]) + 1) % len(words) if taken else start
    return questions


def wordings_of(level: str) -> Sides:
    return getattr(data().wordings, level)


def _ask(word: str, level: str, wording: str, style: AnswerStyle) -> Question:
    answer = final_answer(word, level)
    return Question(
        f"spelling:{word}",
        f"bench_spelling_{level}",
        level,
        wording.format(word=word),
        with_final_answer(working(word, level), answer, style),
        final_answer=answer,
    )


def final_answer(word: str, level: str) -> str:
    if level == "count":
        return str(len(word))
    if level in ("first", "last"):
        return word[0] if level == "first" else word[-1]
    return " ".join(word if level == "spaced" else reversed(word))


def working(word: str, level: str) -> str:
    """The word letter by letter, each letter behind a space; numbered where letters are counted."""
    return f"It is {_letters(word, level == 'count')}."


def _letters(word: str, numbered: bool) -> str:
    if numbered:
        return " ".join(f"{letter}{n}" for n, letter in enumerate(word, start=1))
    return " ".join(word)


# ---- words ---------------------------------------------------------------------------------------


def is_practised(word: str) -> bool:
    """Whether a word, of the list or any other, is on the SFT side."""
    return side_of(f"spelling:{word}", HELD_OUT_FRACTION) == "sft"


def _words(split: Split, seed: int) -> list[str]:
    """The words of one side, shuffled: a made-up word to four real ones, while both last."""
    rng = seeded("spelling words", split, seed)
    real = [word for word in data().words if is_practised(word) == (split == "sft")]
    made = [word for word in made_up_words() if is_practised(word) == (split == "sft")]
    rng.shuffle(real)
    rng.shuffle(made)
    mixed: list[str] = []
    every = round(1 / MADE_UP_SHARE)
    while real or made:
        source = made if made and (len(mixed) % every == every - 1 or not real) else real
        mixed.append(source.pop())
    return mixed


@lru_cache
def made_up_words() -> tuple[str, ...]:
    """Made-up words that are not in the word list; the same for every seed."""
    rng = seeded("pseudo words")
    known, found = set(data().words), dict[str, None]()
    while len(found) < MADE_UP_WORDS:
        word = made_up_word(rng)
        if 4 <= len(word) <= 8 and word not in known:
            found[word] = None
    return tuple(found)


def made_up_word(rng: random.Random) -> str:
    """Two or three syllables and perhaps a coda, four to eight letters or a little more.

    May be a real word by chance.
    """
    parts = data().made_up
    count = rng.choice((2, 2, 3))
    syllables = [rng.choice(parts.onsets) + rng.choice(parts.vowels) for _ in range(count)]
    return "".join(syllables) + rng.choice(parts.codas)


# ---- skill exercises -----------------------------------------------------------------------------


def practise(rng: random.Random, word: str) -> tuple[str, str]:
    """A (prompt, reply with its working) about a word of the SFT side."""
    level = rng.choices(tuple(LEVELS), PRACTISED)[0]
    prompt = rng.choice(wordings_of(level).sft).format(word=word)
    return prompt, with_final_answer(working(word, level), final_answer(word, level), "scratchpad")


def drill(word: str, numbered: bool) -> str:
    """A word and its letters: `garden is g a r d e n`, or `garden is g1 a2 r3 d4 e5 n6`."""
    # No wording stands around it: what teaches is the number of spelled words in a token budget.
    return f"{word} is {_letters(word, numbered)}"


SKILL = Skill(
    name="spelling",
    make=make,
    chance=0.0,
    levels=tuple(LEVELS),
    category_prefixes=("bench_spelling", "spelling"),
    weights={"release_skills": 0.25, "behavior": 0.20, "weak_skills": 0.28, "full": 0.20},
    eval_weights={"release_skills": 0.19},
    claim=Claim(order=5, pass_rate=0.40, level_pass_rate=0.30, first_release=False),
)
