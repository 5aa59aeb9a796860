"""The pictures of a preview page, as SVG text that takes its colours from the page's style sheet.
No script, nothing fetched.

Drawn for a narrow column (a phone), so that letters keep their size; wider screens set several side
by side. The same facts give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from picochat.core.progress import quantity
from picochat.data.preview.record import LengthBin, ScaleFit

WIDTH = 360
EDGE = 8
PLAN_HEIGHT = 124
HISTOGRAM_HEIGHT = 130
FLOOR = HISTOGRAM_HEIGHT - 22


def plan_chart(fit: ScaleFit) -> str:
    """Training tokens there are, as a bar on a log scale, against the plan read once, 4 times and
    16 times.
    """
    if fit.train_tokens is None or fit.train_tokens.value <= 0 or fit.epochs is None:
        return _svg(
            "Tokens for training: not measured", 40, [_text(EDGE, 24, "not measured", "mute")]
        )
    tokens = fit.train_tokens
    # Tokens that are enough for 1, 4 and 16 epochs of the plan or of the target, whichever asks for
    # more.
    marks = [
        (
            f"{epochs} epoch{'s' if epochs > 1 else ''}",
            max(fit.planned_tokens, fit.target_tokens) / epochs,
        )
        for epochs in (16, 4, 1)
    ]
    low = min(tokens.low, marks[0][1]) / 2
    high = max(tokens.high, marks[-1][1], fit.planned_tokens) * 2
    at = _log_scale(low, high)
    body = [
        f'<rect class="track" x="{EDGE}" y="44" width="{WIDTH - 2 * EDGE}" height="22" rx="3"/>'
    ]
    body.append(
        f'<rect class="fill {fit.status}" x="{EDGE}" y="44" width="{_n(at(tokens.value) - EDGE)}"'
        ' height="22" rx="3"/>'
    )
    if tokens.low < tokens.high:
        body.append(_rule(at(tokens.low), 55, at(tokens.high), 55, "ink"))
        body += [_rule(at(end), 50, at(end), 60, "ink") for end in (tokens.low, tokens.high)]
    for name, mark in marks:
        body.append(_rule(at(mark), 38, at(mark), 72, "axis"))
        body.append(_text(at(mark), 86, quantity(mark), "mute", _anchor(at(mark))))
        body.append(_text(at(mark), 100, name, "mute", _anchor(at(mark))))
    body.append(_text(EDGE, 14, f"{quantity(tokens.value)} tokens for training", "ink"))
    body.append(
        _text(
            EDGE,
            30,
            f"{quantity(fit.planned_tokens)} planned: each token read {_times(fit.epochs.value)}",
            "mute",
        )
    )
    body.append(
        _text(EDGE, PLAN_HEIGHT - 6, "marks: tokens that suffice at so many epochs", "mute")
    )
    return _svg("Tokens for training against the plan", PLAN_HEIGHT, body)


def length_chart(label: str, lengths: Sequence[LengthBin]) -> str:
    """Documents by length, characters on a log scale."""
    if not lengths:
        return _svg(
            f"Lengths of {label}: no documents", 40, [_text(EDGE, 24, "no documents", "mute")]
        )
    at = _log_scale(lengths[0].from_characters, lengths[-1].to_characters)
    most = max(each.documents for each in lengths)
    body = [
        _text(EDGE, 12, f"{most:,} documents", "mute"),
        _rule(EDGE, 16, WIDTH - EDGE, 16, "grid"),
    ]
    for each in lengths:
        left, right = at(each.from_characters), at(each.to_characters)
        height = each.documents / most * (FLOOR - 16)
        title = (
            f"{each.documents:,} documents of {each.from_characters:,} to"
            f" {each.to_characters - 1:,} characters"
        )
        size = f'width="{_n(max(1.0, right - left - 1))}" height="{_n(height)}"'
        body.append(
            f'<rect class="bar" x="{_n(left)}" y="{_n(FLOOR - height)}"'
            f" {size}><title>{title}</title></rect>"
        )
    body.append(_rule(EDGE, FLOOR, WIDTH - EDGE, FLOOR, "axis"))
    for power in range(7):
        if lengths[0].from_characters <= 10**power <= lengths[-1].to_characters:
            body.append(_rule(at(10**power), FLOOR, at(10**power), FLOOR + 4, "axis"))
            body.append(
                _text(
                    at(10**power), FLOOR + 18, quantity(10**power), "mute", _anchor(at(10**power))
                )
            )
    return _svg(f"Lengths of {label} in characters", HISTOGRAM_HEIGHT, body)


def _times(epochs: float) -> str:
    return f"{quantity(epochs)} times" if epochs >= 1 else f"at most once, {1 - epochs:.0%} never"


def _log_scale(low: float, high: float) -> Callable[[float], float]:
    start, width = math.log(low), max(math.log(high) - math.log(low), 1e-9)
    return lambda value: EDGE + (math.log(value) - start) / width * (WIDTH - 2 * EDGE)


def _svg(title: str, height: int, body: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {WIDTH} {height}"'
        f' width="{WIDTH}" height="{height}">'
    )
    return "".join([head, f"<title>{escape(title)}</title>", *body, "</svg>"])


def _anchor(x: float) -> str:
    """Labels at the edges stay inside the picture."""
    return "start" if x < 40 else "end" if x > WIDTH - 40 else "middle"


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    return (
        f'<text class="{style}" x="{_n(x)}" y="{_n(y)}"'
        f' text-anchor="{anchor}">{escape(text)}</text>'
    )


def _rule(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"/>'


def _n(number: float) -> str:
    text = f"{number:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
