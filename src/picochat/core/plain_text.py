"""Text of other people, made safe to show: on a terminal, in one line, in Markdown.

The words stay, nothing is interpreted.
"""

from __future__ import annotations

import re

# What turns the reading order around or hides: shown by number, so that a text cannot disguise the
# page it is shown on.
HIDDEN = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
BREAKS = re.compile("[\t\n\u2028\u2029]")
MARKDOWN_SPECIALS = ("\\", "|", "[", "`", "*")


def visible(text: str) -> str:
    """The text with control characters, invisible ones and turns of the reading order shown by
    their numbers.

    Line ends and tabs stay. Safe for a terminal; a page escapes it as well.
    """
    plain = text.replace("\r\n", "\n")
    return HIDDEN.sub(_by_number, CONTROL.sub(_by_number, plain))


def visible_line(text: str) -> str:
    """As `visible`, with line ends and tabs by their numbers too: what is meant as one line cannot
    pretend to be two.
    """
    return BREAKS.sub(_by_number, visible(text))


def cell(text: str) -> str:
    """Text that stays within one cell of a Markdown table and makes no link, image or tag, whatever
    it holds.
    """
    for special in MARKDOWN_SPECIALS:
        text = text.replace(special, f"\\{special}")
    return " ".join(text.replace("<", "&lt;").split())


def _by_number(match: re.Match[str]) -> str:
    return f"<U+{ord(match.group()):04X}>"
