"""The skill "spelling": counting letters, first and last letter, spelling forwards and backwards.

An item is a word, real or made up of syllables; a held-out word is in no SFT row of this skill.
Letters are answered with a space between them, so that each is a token of its own. Only the letters
a to z.
"""

from __future__ import annotations

import random
from collections import defaultdict
from functools import lru_cache
from itertools import zip_longest
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
KINDS: dict[str, float] = {
    "count": 0.20,
    "first": 0.15,
    "last": 0.15,
    "spaced": 0.25,
    "reverse": 0.25,
}
# The kinds that are scored together: a letter or a number, or the whole word.
LEVEL_OF = {
    "count": "letter",
    "first": "letter",
    "last": "letter",
    "spaced": "whole",
    "reverse": "whole",
}
# Of the kinds in their order, among the skill exercises: whole words, forwards and backwards, are
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
    """data/spelling.toml: words as one text, the parts of made-up words, and wordings by kind."""

    words: Annotated[tuple[Word, ...], BeforeValidator(_split), AfterValidator(distinct)]
    made_up: Syllables
    wordings: Wordings


@lru_cache
def data() -> SpellingData:
    return read_skill_data("spelling.toml", SpellingData)


# ---- questions -----------------------------------------------------------------------------------


def make(count: int, split: Split, seed: int, answer_style: AnswerStyle) -> list[Question]:
    """`count` questions over the kinds; in eval no word is asked twice.

    Raises WrongUsage where words run out.
    """
    questions: list[Question] = []
    # First and last letter differ, so that the one is never right where the other is asked.
    words = [word for word in _words(split, seed) if word[0] != word[-1]]
    used: set[str] = set()
    for kind, rows in divide_rows(count, KINDS).items():
        fresh = [word for word in words if word not in used]
        if split == "sft" and rows > len(fresh):
            fresh, used = words, set()
        taken = (_by_turns_of_length(fresh) if kind == "count" else fresh)[:rows]
        used.update(taken)
        wordings = wordings_of(kind)[split]
        questions += draw(
            rows,
            kind,
            split,
            taken,
            len(wordings),
            seed,
            lambda word, n, kind=kind, wordings=wordings: _ask(
                word, kind, wordings[n], answer_style
            ),
        )
    return questions


def _by_turns_of_length(words: list[str]) -> list[str]:
    """The words by turns of each length, so that no number of letters is more common.

    A length whose words run out is passed over.
    """
    by_length: defaultdict[int, list[str]] = defaultdict(list)
    for word in words:
        by_length[len(word)].append(word)
    turns = zip_longest(*(by_length[length] for length in sorted(by_length)))
    return [word for turn in turns for word in turn if word]


def wordings_of(kind: str) -> Sides:
    return getattr(data().wordings, kind)


def _ask(word: str, kind: str, wording: str, style: AnswerStyle) -> Question:
    answer = final_answer(word, kind)
    return Question(
        f"spelling:{word}",
        f"bench_spelling_{kind}",
        LEVEL_OF[kind],
        wording.format(word=word),
        with_final_answer(working(word, kind), answer, style),
        final_answer=answer,
    )


def final_answer(word: str, kind: str) -> str:
    if kind == "count":
        return str(len(word))
    if kind in ("first", "last"):
        return word[0] if kind == "first" else word[-1]
    return " ".join(word if kind == "spaced" else reversed(word))


def working(word: str, kind: str) -> str:
    """The word letter by letter, each letter behind a space; numbered where letters are counted."""
    return f"It is {_letters(word, kind == 'count')}."


def _letters(word: str, numbered: bool) -> str:
    if numbered:
        return " ".join(f"{letter}{n}" for n, letter in enumerate(word, start=1))
    return " ".join(word)


# ---- words ---------------------------------------------------------------------------------------


def is_practised(word: str) -> bool:
    """Whether a word may be spelled in SFT and exercises: it is none that eval asks with any seed.

    Eval asks the words of the list and the made-up ones; every other word is practised.
    """
    return word not in askable() or side_of(f"spelling:{word}", HELD_OUT_FRACTION) == "sft"


@lru_cache
def askable() -> frozenset[str]:
    return frozenset({*data().words, *made_up_words()})


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
    kind = rng.choices(tuple(KINDS), PRACTISED)[0]
    prompt = rng.choice(wordings_of(kind).sft).format(word=word)
    return prompt, with_final_answer(working(word, kind), final_answer(word, kind), "scratchpad")


def drill(word: str, numbered: bool) -> str:
    """A word and its letters: `garden is g a r d e n`, or `garden is g1 a2 r3 d4 e5 n6`."""
    # No wording stands around it: what teaches is the number of spelled words in a token budget.
    return f"{word} is {_letters(word, numbered)}"


SKILL = Skill(
    name="spelling",
    make=make,
    chance=0.0,
    levels=tuple(dict.fromkeys(LEVEL_OF.values())),
    category_prefixes=("bench_spelling", "spelling"),
    weights={"release_skills": 0.20, "behavior": 0.20, "weak_skills": 0.28, "full": 0.20},
    eval_weights={"release_skills": 0.145},
    claim=Claim(order=5, pass_rate=0.40, level_pass_rate=0.30, first_release=False),
)
