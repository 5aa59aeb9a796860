"""A fact as a figure on a page: which fact it is, its value, and how people read it.

A page writes nothing that is measured or stated but through `Facts`: each figure carries the place
of its fact (`data-fact`, a path such as `claims/scores/skills/math/clean/share`) and its exact
value, so that anyone can read a page back against summary.json and observed.json. Text that a model
or a corpus wrote is shown, bounded, and never interpreted: control characters and turns of the
reading order appear by their numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup, escape

from picochat.core.plain_text import visible
from picochat.core.progress import byte_quantity, duration, quantity
from picochat.gate.bounds import shown_number

SHOWN_CHARACTERS = 400
SHOWN_LINES = 12
FLAG = re.compile(r"(--[a-z][a-z-]*(?: N)?)")
NOT_MEASURED = "not measured"

FORMS: dict[str, Callable[[float], str]] = {
    "count": lambda value: f"{value:,.0f}",
    "quantity": quantity,
    "bytes": byte_quantity,
    "percent": lambda value: f"{100 * value:.1f}%",
    "bits": lambda value: f"{value:.3f}",
    "nats": lambda value: f"{value:.4f}",
    "number": shown_number,
    "hours": lambda value: duration(value * 3600),
    "usd": lambda value: f"{value:.2f}",
}


class Facts:
    """The documents that a page is rendered from, by name.

    Called with a path and a form it gives the marked figure.
    """

    def __init__(self, documents: Mapping[str, Any]) -> None:
        self.documents = documents

    def __call__(self, path: str, form: str = "text") -> Markup:
        """The fact at `path` as HTML. `form`: a name in FORMS, `text` (bounded), `whole` (for short
        texts, uncut) or `fix` (the same, with its flags as code)."""
        value = self.at(path)
        if form not in FORMS:
            text = (
                shortened(value) if form == "text" else visible("" if value is None else str(value))
            )
            if form == "fix":
                text = _with_flags(text)
            return Markup('<span data-fact="{}">{}</span>').format(path, text)
        stated = "" if value is None else repr(value)
        return Markup('<data value="{}" data-fact="{}">{}</data>').format(
            stated, path, shown(value, form)
        )

    def at(self, path: str) -> Any:
        """The value at a path of names and positions.

        A name that holds a slash is written with ~1, a tilde as ~0.
        """
        found: Any = self.documents
        for part in path.split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            found = found[int(name)] if isinstance(found, list) else found[name]
        return found


def _with_flags(text: str) -> Markup:
    """Flags of a command as code, which is not broken at its hyphens."""
    parts = FLAG.split(text)
    marked = (
        (
            Markup('<code class="flag">{}</code>').format(part)
            if FLAG.fullmatch(part)
            else escape(part)
        )
        for part in parts
    )
    return Markup("").join(marked)


def place(name: str) -> str:
    """A name as one part of a path."""
    return name.replace("~", "~0").replace("/", "~1")


def shown(value: float | None, form: str) -> str:
    return NOT_MEASURED if value is None else FORMS[form](value)


def shortened(text: object) -> str:
    """Text made safe to show: its first characters and lines, and how much there was."""
    whole = "" if text is None else str(text)
    cut = "\n".join(whole[:SHOWN_CHARACTERS].split("\n")[:SHOWN_LINES])
    if cut == whole:
        return visible(whole)
    return f"{visible(cut)}... ({len(whole)} characters)"


def rate_words(rate: Mapping[str, Any] | None) -> str:
    """`58.6% (41 of 70, 95% interval 47.0% to 69.5%)`, as plain text."""
    if not rate or rate["share"] is None:
        return NOT_MEASURED
    interval = f", 95% {rate['low']:.3f} to {rate['high']:.3f}" if rate["low"] is not None else ""
    return f"{rate['share']:.3f} ({rate['passed']} of {rate['count']}{interval})"
