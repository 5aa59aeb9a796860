"""Jinja templates: one environment, with the forms of values.py and the text of printable.py.

A template whose name ends in `.html.jinja` escapes what it is given; Markdown is not escaped, so
its templates pass text through `cell`. An unknown name is an error (StrictUndefined).
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from picochat.present.printable import cell, excerpt, printable_line
from picochat.present.values import FORMS, estimate, rate


def render(template: Path, **context: object) -> str:
    """The template filled with the context; it may include others of its folder."""
    return _environment(template.parent).get_template(template.name).render(context)


# Kept: compiling a template takes longer than everything else that verification of a page does.
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
    """A string literal of one line, as Python and JSON write it."""
    return printable_line(json.dumps(text, ensure_ascii=False))


def _bar_width(value: float | None) -> str:
    """A fraction as the width of a bar, for a style attribute: a number and nothing else."""
    return f"{100 * min(1.0, max(0.0, value or 0.0)):.1f}%"
