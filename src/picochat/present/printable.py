"""Text of other people, made safe to show: on a terminal, in one line, in Markdown, cut to size.

The words stay and nothing is interpreted. HTML escapes by itself (templates.py); what is printable
there is still shown through this module, because escaping leaves control characters in place.
"""

from __future__ import annotations

import re

# Characters that reverse the reading order or cannot be seen. They are shown by number, so that a
# text cannot disguise the page that it is shown on.
HIDDEN = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
BREAKS = re.compile("[\t\n\u2028\u2029]")
MARKDOWN_SPECIALS = ("\\", "|", "[", "`", "*")
EXCERPT_CHARACTERS = 400
EXCERPT_LINES = 12


def printable(text: str) -> str:
    """The text with control, invisible and order-reversing characters shown by their numbers.

    Line ends and tabs stay. Safe for a terminal; a page escapes it as well.
    """
    return HIDDEN.sub(_by_number, CONTROL.sub(_by_number, text.replace("\r\n", "\n")))


def printable_line(text: str) -> str:
    """As `printable`, with line ends and tabs by their numbers too.

    For what is meant as one line: it cannot pretend to be two.
    """
    return BREAKS.sub(_by_number, printable(text))


def cell(value: object) -> str:
    """Text that stays within one cell of a Markdown table and makes no link, image or tag."""
    text = printable(str(value))
    for special in MARKDOWN_SPECIALS:
        text = text.replace(special, f"\\{special}")
    return " ".join(text.replace("<", "&lt;").split())


def excerpt(value: object) -> str:
    """The first characters and lines of a text, printable, and how much there was.

    None is the empty text.
    """
    whole = "" if value is None else str(value)
    cut = "\n".join(whole[:EXCERPT_CHARACTERS].split("\n")[:EXCERPT_LINES])
    if cut == whole:
        return printable(whole)
    return f"{printable(cut)}... ({len(whole)} characters)"


def one_line(text: str, characters: int) -> str:
    """The text in one printable line of at most so many characters: its lines joined by ` / `."""
    lines = (" ".join(line.split()) for line in text[: 3 * characters].splitlines())
    line = printable(" / ".join(filter(None, lines)))
    return line if len(line) <= characters else line[: characters - 3] + "..."


def _by_number(match: re.Match[str]) -> str:
    return f"<U+{ord(match.group()):04X}>"
