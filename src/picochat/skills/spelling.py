"""The skill "spelling": counting the letters of a word, its first and last letter, its letters in
order and in reverse.

An item is a word, real or made up of syllables; a held-out word is in no SFT row of this skill.
Letters are answered with a space between them, so that each is a token of its own. Only the letters
a to z.
"""

from __future__ import annotations

import random
from functools import lru_cache

from picochat.skills.question import (
    AnswerStyle,
    Question,
    Split,
    draw,
    seeded,
    share_rows,
    side_of,
    with_final_answer,
)
from picochat.skills.words import WORDS

HELD_OUT_SHARE = 0.3
STAGES: dict[str, float] = {
    "count": 0.24,
    "first": 0.22,
    "last": 0.22,
    "spaced": 0.16,
    "reverse": 0.16,
}
PSEUDO_WORDS = 400
PSEUDO_WORD_SHARE = 0.2
ONSETS = (
    "b",
    "bl",
    "br",
    "c",
    "cl",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "pr",
    "r",
    "s",
    "sk",
    "sp",
    "st",
    "t",
    "tr",
    "v",
    "w",
    "z",
)
VOWELS = ("a", "e", "i", "o", "u")
CODAS = ("", "n", "r", "l", "m", "t", "s")

WORDINGS: dict[Split, dict[str, tuple[str, ...]]] = {
    "sft": {
        "count": (
            "How many letters are in the word {word}?",
            "Count the letters of {word}.",
            "How long is the word {word}?",
            "How many letters does {word} have?",
            "Please count the letters in {word}.",
            "Say how many letters you find in {word}.",
            "Tell me the length of {word} in letters.",
            "Of how many letters is {word} made?",
            "Can you count the letters of {word}?",
            "I need the count of letters for {word}.",
            "If you count each letter of {word}, where do you end?",
            "Give the number of letters that {word} has.",
            "The word {word}: how many letters is it long?",
            "Letter by letter, how far can you count in {word}?",
            "I would like to know how long {word} is in letters.",
            "Please say of how many letters {word} consists.",
        ),
        "first": (
            "What is the first letter of {word}?",
            "Which letter does {word} start with?",
            "Give the first letter of {word}.",
            "How does {word} begin?",
            "With which letter does {word} begin?",
            "Tell me the first letter of {word}.",
            "Which letter stands first in {word}?",
            "Name the letter at the start of {word}.",
            "Can you say the first letter of {word}?",
            "I need the letter that {word} begins with.",
            "Of all the letters in {word}, which one is at the front?",
            "The word {word} has which letter at its start?",
            "If I spell {word}, which letter do I say first?",
            "Just the first letter of {word}, please.",
            "I would like to know with what {word} starts.",
            "Please say which letter opens {word}.",
        ),
        "last": (
            "What is the last letter of {word}?",
            "Which letter does {word} end with?",
            "Give the last letter of {word}.",
            "How does {word} end?",
            "With which letter does {word} stop?",
            "Tell me the last letter of {word}.",
            "Which letter stands last in {word}?",
            "Name the letter at the end of {word}.",
            "Can you say the last letter of {word}?",
            "I need the letter that {word} ends on.",
            "Of all the letters in {word}, which one is at the back?",
            "The word {word} has which letter at its end?",
            "If I spell {word}, which letter do I say last?",
            "Just the last letter of {word}, please.",
            "I would like to know with what {word} ends.",
            "Please say which letter closes {word}.",
        ),
        "spaced": (
            "Spell the word {word}.",
            "Write {word} with spaces between the letters.",
            "Spell {word} letter by letter.",
            "Put a space between the letters of {word}.",
            "Please spell {word} for me.",
            "How is {word} spelled?",
            "Can you spell out {word}?",
            "Tell me the letters of {word} in order.",
            "Say {word} one letter at a time.",
            "I need {word} spelled with spaces.",
            "After each letter of {word} leave a space.",
            "Every letter of {word}, one after the other, please.",
            "The word {word}: how is it spelled out?",
            "Go through {word} and say each letter.",
            "I would like to have {word} spelled, all of it.",
            "What are the letters of {word}, from the first to the last?",
        ),
        "reverse": (
            "Spell {word} backwards.",
            "Write the letters of {word} in reverse.",
            "Reverse the word {word}, with spaces.",
            "Give the letters of {word} from last to first.",
            "Please spell {word} from the end.",
            "How is {word} spelled backwards?",
            "Can you spell {word} in reverse?",
            "Tell me the letters of {word} backwards.",
            "Say {word} one letter at a time, last letter first.",
            "I need {word} spelled backwards with spaces.",
            "After each letter of {word} leave a space, and begin at the end.",
            "Every letter of {word}, from the back to the front, please.",
            "The word {word}: how is it spelled in reverse?",
            "Go through {word} backwards and say each letter.",
            "I would like to have {word} spelled the other way round.",
            "What are the letters of {word}, from the last to the first?",
        ),
    },
    "eval": {
        "count": (
            "Please tell me how many letters {word} has.",
            "What is the number of letters in {word}?",
            "I want to know how many letters make up {word}.",
        ),
        "first": (
            "Please tell me which letter comes first in {word}.",
            "The word {word} starts with what letter?",
            "I want to know the first letter in {word}.",
        ),
        "last": (
            "Please tell me which letter comes last in {word}.",
            "The word {word} ends with what letter?",
            "I want to know the last letter in {word}.",
        ),
        "spaced": (
            "Please spell {word} with a space after each letter.",
            "How do you spell {word}, letter by letter?",
            "I want the letters of {word} with spaces.",
        ),
        "reverse": (
            "Please spell {word} backwards with a space after each letter.",
            "How do you spell {word} backwards, letter by letter?",
            "I want the letters of {word} in reverse, with spaces.",
        ),
    },
}


def make(count: int, split: Split, seed: int, answer_style: AnswerStyle) -> list[Question]:
    """`count` questions over the stages; in eval no word is asked twice.

    Raises WrongUsage where words run out.
    """
    questions: list[Question] = []
    words = _words(split, seed)
    start = 0
    for stage, rows in share_rows(count, STAGES).items():
        # Each stage begins where the one before ended, so that stages share no word until the words
        # run out.
        turned = words[start:] + words[:start] if split == "sft" else words[start:]
        usable = [word for word in turned if word[0] != word[-1]]
        taken = usable[:rows] if split == "eval" or rows <= len(usable) else usable
        wordings = WORDINGS[split][stage]
        questions += draw(
            rows,
            stage,
            split,
            taken,
            len(wordings),
            seed,
            lambda word, n, s=stage, w=wordings: _ask(word, s, w[n], answer_style),
        )
        start = (words.index(taken[-1]) + 1) % len(words) if taken else start
    return questions


def practise(rng: random.Random, word: str) -> tuple[str, str]:
    """(prompt, reply with its working) about a word of the SFT side: the hard stages more often,
    wordings evenly.
    """
    stage = rng.choices(_STAGE_NAMES, PRACTISED)[0]
    prompt = rng.choice(WORDINGS["sft"][stage]).format(word=word)
    return prompt, with_final_answer(working(word, stage), final_answer(word, stage), "scratchpad")


def drill(word: str, numbered: bool) -> str:
    """A word and its letters in as few tokens as they can be said: `garden is g a r d e n`, or
    `garden is g1 a2 r3 d4 e5 n6`.
    """
    return f"{word} is {_letters(word, numbered)}"


_STAGE_NAMES = tuple(STAGES)
PRACTISED = (
    0.18,
    0.12,
    0.12,
    0.26,
    0.32,
)  # of the stages in their order: whole words in order and in reverse come hardest


def is_practised(word: str) -> bool:
    """Whether a word, of the list or any other, is on the SFT side."""
    return side_of(f"spelling:{word}", HELD_OUT_SHARE) == "sft"


def made_up_word(rng: random.Random) -> str:
    """Two or three syllables and perhaps an end, four to eight letters or a little more.

    May be a real word by chance.
    """
    syllables = [rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(rng.choice((2, 2, 3)))]
    return "".join(syllables) + rng.choice(CODAS)


def _words(split: Split, seed: int) -> list[str]:
    """The words of one side, shuffled: one made-up word to four real ones, for as long as both
    last.
    """
    rng = seeded("spelling words", split, seed)
    real = [word for word in WORDS if side_of(f"spelling:{word}", HELD_OUT_SHARE) == split]
    made = [word for word in pseudo_words() if side_of(f"spelling:{word}", HELD_OUT_SHARE) == split]
    rng.shuffle(real)
    rng.shuffle(made)
    mixed: list[str] = []
    every = round(1 / PSEUDO_WORD_SHARE)
    while real or made:
        source = made if made and (len(mixed) % every == every - 1 or not real) else real
        mixed.append(source.pop())
    return mixed


@lru_cache
def pseudo_words() -> tuple[str, ...]:
    """Made-up words of two or three syllables that are no word of the list; the same for every
    seed.
    """
    rng = seeded("pseudo words")
    known, found = set(WORDS), dict[str, None]()
    while len(found) < PSEUDO_WORDS:
        word = made_up_word(rng)
        if 4 <= len(word) <= 8 and word not in known:
            found[word] = None
    return tuple(found)


def _ask(word: str, stage: str, wording: str, style: AnswerStyle) -> Question:
    answer = final_answer(word, stage)
    reply = with_final_answer(working(word, stage), answer, style)
    return Question(
        f"spelling:{word}",
        f"bench_spelling_{stage}",
        stage,
        wording.format(word=word),
        reply,
        final_answer=answer,
    )


def final_answer(word: str, stage: str) -> str:
    if stage == "count":
        return str(len(word))
    if stage in ("first", "last"):
        return word[0] if stage == "first" else word[-1]
    return " ".join(word if stage == "spaced" else reversed(word))


def working(word: str, stage: str) -> str:
    """The word letter by letter, each letter behind a space, as in the answers; numbered where
    letters are counted.
    """
    return f"It is {_letters(word, stage == 'count')}."


def _letters(word: str, numbered: bool) -> str:
    return (
        " ".join(f"{letter}{n}" for n, letter in enumerate(word, start=1))
        if numbered
        else " ".join(word)
    )
