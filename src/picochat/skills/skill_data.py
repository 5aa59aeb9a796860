"""The data files of the skills, `data/*.toml`: topics, facts, words and wordings to edit.

Each skill's module declares a record of what its file holds and reads it with `read_skill_data`.
A file that does not fit its record is refused with every problem at once, so that an edit is
checked by the first command that needs it. Which items and wordings are chosen is not decided here.
"""

from __future__ import annotations

import string
import sys
from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, StringConstraints

from picochat.core.errors import BadInput
from picochat.core.records import Record, parse_record
from picochat.skills.skill import Split

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same parser as a package, for the oldest Python that is supported
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

R = TypeVar("R", bound=Record)


def read_skill_data(name: str, model: type[R], folder: Path | None = None) -> R:
    """The data file `name` as its record.

    Raises BadInput that lists every wrong entry. folder: where the file is, if not in `data/`.
    """
    file = folder / name if folder else files("picochat.skills") / "data" / name
    try:
        value = tomllib.loads(file.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"skill data {name} is not valid TOML: {error}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"skill data {name} is not UTF-8 text (byte {error.start})") from None
    return parse_record(model, value, f"skill data {name}")


# ---- what data files are made of -----------------------------------------------------------------

Text = Annotated[str, StringConstraints(min_length=1, pattern=r"^\S(.*\S)?$")]
"""One line without blanks at its ends."""


def distinct(texts: tuple[str, ...]) -> tuple[str, ...]:
    """A check that no text stands twice."""
    if repeated := [text for text, count in Counter(texts).items() if count > 1]:
        raise ValueError(f"{repeated[0]!r} stands twice")
    return texts


Texts = Annotated[tuple[Text, ...], Field(min_length=1), AfterValidator(distinct)]


class Sides(Record):
    """Texts for SFT and texts for eval, of which none is the same: eval asks in unseen wordings."""

    sft: Texts
    eval: Texts

    def __getitem__(self, split: Split) -> tuple[str, ...]:
        return self.sft if split == "sft" else self.eval


def _apart(sides: Sides) -> Sides:
    if shared := set(sides.sft) & set(sides.eval):
        raise ValueError(f"{min(shared)!r} stands under sft and under eval")
    return sides


ApartSides = Annotated[Sides, AfterValidator(_apart)]


def with_slots(*slots: str) -> Callable[[Sides], Sides]:
    """A check that each wording has each of these slots, such as `{word}`, and no other.

    A slot may also be written with a capital letter, `{Topic}`, for what begins a sentence.
    """

    def check(wordings: Sides) -> Sides:
        for text in (*wordings.sft, *wordings.eval):
            found = {name.lower() for _, name, _, _ in string.Formatter().parse(text) if name}
            if found != set(slots):
                wanted = ", ".join(f"{{{slot}}}" for slot in slots)
                raise ValueError(f"{text!r} does not have just the slots {wanted}")
        return wordings

    return check
