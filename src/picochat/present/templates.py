"""Renders Jinja templates, with the functions of values.py and printable.py as filters.

A template whose name ends in `.html.jinja` escapes all values. Markdown is not escaped, so its
templates pass text through `cell`. An unknown name is an error (StrictUndefined).
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from picochat.present.printable import cell, excerpt, printable_line
from picochat.present.values import FORMS, estimate, rate


def render(template: Path, **context: object) -> str:
    """The template filled with the context. It may include other templates of its folder."""
    return _environment(template.parent).get_template(template.name).render(context)


# Cached, because compiling a template takes longer than the rest of verifying a page.
@lru_cache
def _environment(folder: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=select_autoescape(("html.jinja",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(  # pyright: ignore[reportUnknownMemberType]
        {
            **FORMS,
            "rate": rate,
            "estimate": estimate,
            "cell": cell,
            "excerpt": excerpt,
            "quoted": _quoted,
            "bar_width": _bar_width,
        }
    )
    return environment


def _quoted(text: object) -> str:
    """The text as a JSON string in one line."""
    return printable_line(json.dumps(text, ensure_ascii=False))


def _bar_width(value: float | None) -> str:
    """A fraction as a percentage for a style attribute, clipped to 0 and 100."""
    return f"{100 * min(1.0, max(0.0, value or 0.0)):.1f}%"
