"""Twelve ways in which a row may stand in a text otherwise than it was written.

The same seed gives the same text. A disguise returns None where it would change nothing: such a row
would only show that an exact copy is found. promised: the scan says that it finds all of these; of
the others it says how many.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import NamedTuple

# A row of so many words is planted as its middle half; half of a shorter one would fit many rows.
PART_OF_WORDS = 26
PARAGRAPH = (
    "The committee met again in spring and agreed, after some hours, that nothing further could be"
    " done about it."
)
APART_WORDS = 30  # each half is then longer than a run that is a hit
QUOTES = str.maketrans({"'": "\u2019", '"': "\u201d", "-": "\u2013"})
SPACES = (" ", "  ", "\t", " \t ", "\u00a0", "\u2009", "\u3000")
SHAPELESS = ("\u00ad", "\u200b", "\u200d", "\u2060", "\ufeff", "&shy;", "&#8203;")
LOOK_ALIKE = str.maketrans(
    "aceopxyABCEHIKMOPTX",
    "\u0430\u0441\u0435\u043e\u0440\u0445\u0443\u0391\u0392\u0421\u0415\u041d\u0406\u039a\u041c\u039f\u0420\u0422\u03a7",
)
ENTITIES = {
    "&": ("&amp;", "&#38;"),
    "'": ("&#39;", "&apos;", "&#x27;"),
    '"': ("&quot;", "&#34;"),
    " ": ("&nbsp;", "&#160;", "&emsp;"),
    "<": ("&lt;",),
    ">": ("&gt;",),
    "-": ("&ndash;", "&#8211;"),
    "?": ("&#63;", "&quest;"),
    ".": ("&#46;", "&period;"),
    "\xe9": ("&eacute;", "&#233;"),
    "\xfc": ("&uuml;", "&#xfc;"),
}
SYNONYM_PAIRS = (
    "many:numerous big:large large:big small:little little:small fast:quick quick:fast "
    "slow:sluggish tell:inform say:state make:create give:provide get:obtain find:discover "
    "show:display use:employ need:require want:wish help:assist ask:enquire answer:reply "
    "begin:start start:begin end:finish buy:purchase choose:select pick:select keep:retain "
    "look:gaze think:believe know:understand see:observe put:place take:grab happen:occur "
    "happens:occurs increase:rise increases:rises decrease:fall decreases:falls more:additional "
    "right:correct correct:right wrong:incorrect easy:simple hard:difficult difficult:hard "
    "happy:glad sad:unhappy important:significant whole:entire often:frequently also:too "
    "very:extremely people:persons person:human children:kids man:gentleman woman:lady house:home "
    "car:automobile road:street city:town country:nation water:liquid money:cash job:occupation "
    "work:labour school:academy teacher:instructor student:pupil doctor:physician "
    "friend:companion question:query letters:characters letter:character word:term words:terms "
    "number:figure numbers:figures total:sum following:subsequent statement:claim "
    "conclusion:inference please:kindly write:note spell:orthograph backwards:reversed "
    "first:initial last:final only:solely which:what because:since while:whereas when:whenever "
    "between:amid about:regarding if:provided likely:probable will:shall can:may should:ought "
    "older:elder bigger:larger smaller:littler higher:taller lower:lesser hot:warm cold:chilly "
    "old:aged new:fresh good:fine bad:poor reveal:disclose hide:conceal private:personal "
    "name:title called:named made:built built:made live:dwell lives:dwells"
)
SYNONYMS = dict(pair.split(":") for pair in SYNONYM_PAIRS.split())
ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen"
)
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"


class Disguise(NamedTuple):
    name: str
    change: Callable[[str, random.Random], str | None]
    promised: bool


def letter_case(text: str, draw: random.Random) -> str | None:
    return _if_other(draw.choice([text.upper(), text.lower(), text.title(), text.swapcase()]), text)


def punctuation(text: str, draw: random.Random) -> str | None:
    """Marks dropped, made spaces, made typographic, or more of them between the words."""
    changed = draw.choice(
        [
            re.sub(r"[^\w\s]", "", text),
            re.sub(r"[^\w\s]", " ", text),
            text.translate(QUOTES),
            re.sub(
                r"(?<=\w) (?=\w)", lambda _: draw.choice([" ", ", ", " - ", "; ", " (", '" ']), text
            ),
        ]
    )
    return _if_other(changed, text)


def white_space(text: str, draw: random.Random) -> str | None:
    return _if_other(re.sub(" ", lambda _: draw.choice(SPACES), text), text)


def line_breaks(text: str, draw: random.Random) -> str | None:
    return _if_other(
        re.sub(r"\s+", lambda _: draw.choice([" ", "\n", "\r\n", " \n  "]), text), text
    )


def paragraphs(text: str, draw: random.Random) -> str | None:
    """Two or three paragraphs; between the halves of a longer row stands one that is not of it."""
    words = text.split(" ")
    if len(words) >= APART_WORDS:
        first, second = (
            " ".join(part) for part in (words[: len(words) // 2], words[len(words) // 2 :])
        )
        return f"{first}\n\n{PARAGRAPH}\n\n{second}"
    cuts = {draw.randrange(1, len(words)) for _ in range(2)} if len(words) > 1 else set()
    return _if_other(
        "".join(("\n\n" if n in cuts else " ") + word for n, word in enumerate(words)).strip(), text
    )


def html_entities(text: str, draw: random.Random) -> str | None:
    """Marks, some spaces and some letters as entities of any kind, some of them escaped twice."""
    changed = "".join(_entity(character, draw) for character in text)
    return _if_other(changed, text)


def shapeless(text: str, draw: random.Random) -> str | None:
    """Characters that nobody sees, inside of words."""
    return _if_other(
        re.sub(
            r"(?<=\w)(?=\w)", lambda _: draw.choice(SHAPELESS) if draw.random() < 0.2 else "", text
        ),
        text,
    )


def look_alikes(text: str, draw: random.Random) -> str | None:
    """Half of the letters that Cyrillic or Greek has too."""
    return _if_other(
        "".join(letter.translate(LOOK_ALIKE) if draw.random() < 0.5 else letter for letter in text),
        text,
    )


def part(text: str, draw: random.Random) -> str | None:
    """The middle half of the row; only letters and digits make a word."""
    places = [(found.start(), found.end()) for found in re.finditer(r"[^\W_]+", text)]
    if len(places) < PART_OF_WORDS:
        return None
    first = len(places) // 4
    return text[places[first][0] : places[first + (len(places) + 1) // 2 - 1][1]]


def numbers_as_words(text: str, draw: random.Random) -> str | None:
    return _if_other(re.sub(r"\d+", lambda found: number_in_words(int(found[0])), text), text)


def synonyms(text: str, draw: random.Random) -> str | None:
    """Every word that the table knows is exchanged."""
    return _if_other(re.sub(r"[A-Za-z]+", lambda found: _synonym(found[0]), text), text)


def paraphrase(text: str, draw: random.Random) -> str | None:
    """Sentences in another order, with other words, each turned around at its middle."""
    sentences = re.split(r"(?<=[.?!:;])\s+|\n+", text)
    turned = [
        " ".join([*words[len(words) // 2 :], "then", *words[: len(words) // 2]])
        for words in map(str.split, sentences)
    ]
    return synonyms(" ".join(reversed(turned)), draw) or " ".join(reversed(turned))


DISGUISES: tuple[Disguise, ...] = (
    Disguise("letter case", letter_case, True),
    Disguise("punctuation", punctuation, True),
    Disguise("white space", white_space, True),
    Disguise("line breaks", line_breaks, True),
    Disguise("split over paragraphs", paragraphs, True),
    Disguise("HTML entities", html_entities, True),
    Disguise("characters without a shape", shapeless, True),
    Disguise("look-alike letters", look_alikes, True),
    Disguise("part of the row", part, True),
    Disguise("numbers as words", numbers_as_words, False),
    Disguise("synonyms", synonyms, False),
    Disguise("paraphrase", paraphrase, False),
)


def number_in_words(number: int) -> str:
    """British or American readers agree on these up to the `and`: 305 is three hundred and five."""
    if number < 20:
        return ONES.split()[number]
    if number < 100:
        return TENS.split()[number // 10 - 2] + (
            f"-{ONES.split()[number % 10]}" if number % 10 else ""
        )
    for size, name, joint in (
        (1_000_000, "million", " "),
        (1_000, "thousand", " "),
        (100, "hundred", " and "),
    ):
        if number >= size:
            rest = joint + number_in_words(number % size) if number % size else ""
            return (
                f"{number_in_words(number // size)} {name}{rest}"
                if number < 10**12
                else str(number)
            )
    raise AssertionError("unreachable")


def _entity(character: str, draw: random.Random) -> str:
    known = ENTITIES.get(character)
    if known and draw.random() < (0.3 if character == " " else 0.8):
        entity = draw.choice(known)
        return entity.replace("&", "&amp;", 1) if draw.random() < 0.2 else entity
    return (
        draw.choice([f"&#{ord(character)};", f"&#x{ord(character):x};"])
        if draw.random() < 0.03
        else character
    )


def _synonym(word: str) -> str:
    other = SYNONYMS.get(word.lower(), word)
    return other.capitalize() if word[:1].isupper() and other != word else other


def _if_other(changed: str, text: str) -> str | None:
    return changed if changed != text else None
