"""Small charts as SVG text: lines, bars and differences with intervals, histograms, verdicts.

The same values give the same bytes: coordinates are rounded to a tenth of a pixel. A chart has its
own background and follows the reader's light or dark setting, so it works in a README, in the HTML
report and alone. It uses no library, script or font file. It is not interactive. A line should have
a few hundred points at most: see `thin`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from picochat.present.values import NOT_MEASURED, count, quantity

Point = tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """The size of a line chart in pixels. Other charts have the height that they need."""

    width: int
    height: int


WIDE = Frame(760, 388)
NARROW = Frame(400, 290)  # two side by side on a screen, one on a phone with readable text
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 84, 52
BAR_HEIGHT = 46
ROW_HEIGHT = 24
CHARACTER = 7.3  # width of a 12px monospaced character, rounded up
STYLE = """<style>
.pc-bg{fill:#fff;stroke:#d1d9e0}.pc-ink{fill:#1f2328}.pc-mute{fill:#59636e}.pc-grid{stroke:#e4e8ec}
.pc-axis{stroke:#818b98}
.pc-s0{stroke:#0969da}.pc-s1{stroke:#bc4c00}.pc-s2{stroke:#1a7f37}.pc-s3{stroke:#8250df}
.pc-bar{fill:#54aeff}.pc-track{fill:#e4e8ec}
.pc-bound{stroke:#1f2328;stroke-width:3}
.pc-chance{stroke:#59636e;stroke-width:2;stroke-dasharray:3 3}
.pc-diamond{fill:#bc4c00;stroke:#fff}
.pc-pass{fill:#1a7f37}.pc-warn{fill:#9a6700}.pc-block{fill:#cf222e}.pc-unmeasured{fill:#8250df}
.pc text{font:12px ui-sans-serif,system-ui,sans-serif}
.pc .pc-title{font-size:15px;font-weight:600}
.pc .pc-mono{font-family:ui-monospace,Menlo,Consolas,monospace}
.pc polyline{fill:none;stroke-width:2;stroke-linejoin:round}
.pc .pc-halo{stroke:#fff;stroke-width:4;stroke-linejoin:round;paint-order:stroke}
@media (prefers-color-scheme:dark){
.pc-bg{fill:#0d1117;stroke:#3d444d}.pc-ink{fill:#f0f6fc}.pc-mute{fill:#9198a1}
.pc-grid{stroke:#21262d}.pc-axis{stroke:#656c76}
.pc-s0{stroke:#58a6ff}.pc-s1{stroke:#ffa657}.pc-s2{stroke:#3fb950}.pc-s3{stroke:#bc8cff}
.pc-bar{fill:#1f6feb}.pc-track{fill:#21262d}
.pc-pass{fill:#3fb950}.pc-warn{fill:#d29922}.pc-block{fill:#ff7b72}.pc-unmeasured{fill:#bc8cff}
.pc .pc-halo{stroke:#0d1117}
.pc-bound{stroke:#f0f6fc}.pc-chance{stroke:#9198a1}.pc-diamond{fill:#ffa657;stroke:#0d1117}}
</style>"""


@dataclass(frozen=True)
class Line:
    """One line of a chart. dots: mark each point, for lines of few measurements."""

    label: str
    points: Sequence[Point]
    dots: bool = False


@dataclass(frozen=True)
class Bar:
    """A fraction with its interval, and other fractions to compare it with.

    marks: one for each name in the legend. The first is a line, the second a diamond, the third a
    dashed line, so that readers who cannot see colours can tell them apart.
    """

    label: str
    value: float | None
    low: float | None
    high: float | None
    text: str
    marks: Sequence[float | None] = ()


@dataclass(frozen=True)
class VerdictRow:
    """One line of a verdict table; all values as text."""

    status: str
    name: str
    measured: str
    bound: str


@dataclass(frozen=True)
class Interval:
    """A difference with its interval. stands_out: drawn filled, and open otherwise."""

    label: str
    value: float
    low: float
    high: float
    text: str
    stands_out: bool


@dataclass(frozen=True)
class IntervalGroup:
    """Intervals of one unit, which share an axis."""

    title: str
    intervals: Sequence[Interval]


def thin(points: Sequence[Point], limit: int = 300) -> list[Point]:
    """At most `limit` points: means of equal runs of neighbours, and the last point unchanged.

    A line with at most `limit` points is not changed.
    """
    if len(points) <= limit:
        return list(points)
    size = -(-(len(points) - 1) // (limit - 1))
    runs = [points[start : start + size] for start in range(0, len(points) - 1, size)]
    means = [(sum(x for x, _ in run) / len(run), sum(y for _, y in run) / len(run)) for run in runs]
    return [*means, points[-1]]


def line_chart(
    title: str,
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    references: Sequence[tuple[str, float]] = (),
    frame: Frame = WIDE,
    least: float | None = None,
) -> str:
    """Lines over shared axes, with a legend and dashed reference lines (label, y).

    least: a value that the y axis always includes, such as 0.
    """
    lines = [
        Line(line.label, [p for p in line.points if all(map(math.isfinite, p))], line.dots)
        for line in lines
    ]
    xs = [x for line in lines for x, _ in line.points]
    ys = (
        [y for line in lines for _, y in line.points]
        + [y for _, y in references]
        + ([] if least is None else [least])
    )
    if not xs:
        return _empty(title, "nothing was measured", frame.width)
    x_ticks, y_ticks = nice_ticks(min(xs), max(xs)), nice_ticks(min(ys), max(ys))
    x_ticks = [tick for tick in x_ticks if tick <= max(xs)] or x_ticks[:1]
    x_at = _scale([x_ticks[0], max(*xs, x_ticks[0] + 1e-9)], LEFT, frame.width - RIGHT)
    y_at = _scale(y_ticks, frame.height - BOTTOM, TOP)
    body = _axes(x_ticks, y_ticks, x_at, y_at, (x_label, y_label), frame)
    places = [[(x_at(x), y_at(y)) for x, y in line.points] for line in lines]
    body += [_reference_rule(y_at(y), frame.width) for _, y in references]
    for number, line in enumerate(lines):
        body += _polyline(places[number], number % 4, line.dots)
    drawn = [place for line_places in places for place in line_places]
    body += [_reference_label(label, y_at(y), frame, drawn) for label, y in references]
    return _document(
        title, frame.height, [*body, *_legend([line.label for line in lines])], frame.width
    )


def nice_ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Numbers 1, 2 or 5 times a power of ten apart that enclose low and high."""
    low, high = min(low, high), max(low, high)
    size = max(abs(low), abs(high), 1.0)
    if high - low < 1e-9 * size:
        low, high = low - size / 2, high + size / 2
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def bar_chart(
    title: str, bars: Sequence[Bar], marks: Sequence[str] = (), width: int = NARROW.width
) -> str:
    """Horizontal bars from 0 to 1 with interval whiskers, each under its label.

    marks: the names of the marks across the bars, for the legend.
    """
    if not bars:
        return _empty(title, "nothing was measured", width)
    bottom = TOP + BAR_HEIGHT * len(bars)
    at = _scale([0.0, 1.0], 20, width - 24)
    body: list[str] = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        body.append(_rule(at(tick), TOP - 14, at(tick), bottom, "pc-grid"))
        body.append(_text(at(tick), bottom + 18, f"{tick:g}", "pc-mute", "middle"))
    for number, bar in enumerate(bars):
        body += _bar(bar, TOP + BAR_HEIGHT * number, at)
    return _document(title, bottom + 32, [*body, *_mark_legend(marks)], width)


def interval_chart(title: str, groups: Sequence[IntervalGroup], note: str = "") -> str:
    """Differences with their intervals around 0, one in a row: a forest plot.

    Each group has an axis of its own. note: a line under the title.
    """
    labels = [each.label for group in groups for each in group.intervals]
    start = 32 + CHARACTER * max(map(len, labels), default=0)
    end = max(WIDE.width, round(start) + 360) - 84
    body = [_text(16, 48, note, "pc-mute")] if note else []
    y = 80.0
    for group in groups:
        body.append(_text(16, y, group.title, "pc-ink"))
        ends = [x for each in group.intervals for x in (each.low, each.high)]
        ticks = nice_ticks(min(0.0, *ends), max(0.0, *ends), about=5)
        at = _scale(ticks, start, end)
        bottom = y + 12 + ROW_HEIGHT * len(group.intervals)
        for tick in ticks:
            style = "pc-axis" if tick == 0 else "pc-grid"
            body.append(_rule(at(tick), y + 10, at(tick), bottom, style))
            body.append(_text(at(tick), bottom + 16, f"{tick:g}", "pc-mute", "middle"))
        for number, each in enumerate(group.intervals):
            middle = y + 24 + ROW_HEIGHT * number
            fill = "pc-bar" if each.stands_out else "pc-bg"
            body.append(_text(16, middle + 4, each.label, "pc-ink"))
            body.append(_rule(at(each.low), middle, at(each.high), middle, "pc-s0", 2))
            body.append(
                f'<circle class="{fill} pc-s0" cx="{_n(at(each.value))}" cy="{_n(middle)}" r="5"/>'
            )
            body.append(_text(end + 68, middle + 4, each.text, "pc-mute", "end"))
        y = bottom + 52
    return _document(title, y - 24, body, end + 84)


def verdict_table(title: str, rows: Sequence[VerdictRow], summary: str = "") -> str:
    """A table of status, name, measured value and bound. It grows wider for long texts."""

    def text_width(texts: Iterable[str]) -> float:
        return CHARACTER * max(map(len, texts), default=0)

    names = 40 + text_width(row.name for row in rows)
    values = names + 20 + text_width(row.measured for row in rows)
    body = [_text(16, 48, summary, "pc-mute")] if summary else []
    for number, row in enumerate(rows):
        y = TOP + ROW_HEIGHT * number
        status = row.status if row.status in ("pass", "warn", "block") else "unmeasured"
        body.append(_rule(16, y + 8, WIDE.width - 16, y + 8, "pc-grid"))
        body.append(
            f'<circle class="pc-{status}" cx="24" cy="{_n(y - 4)}"'
            f' r="5"><title>{status}</title></circle>'
        )
        body.append(_text(40, y, row.name, "pc-ink pc-mono"))
        body.append(_text(names + 8, y, row.measured, f"pc-{status} pc-mono"))
        body.append(_text(values + 8, y, row.bound, "pc-mute pc-mono"))
    width = max(WIDE.width, round(values + 24 + text_width(row.bound for row in rows)))
    return _document(title, TOP + ROW_HEIGHT * len(rows), body, width)


def estimate_chart(
    title: str,
    estimate: tuple[float, float, float] | None,
    marks: Sequence[tuple[str, float]],
    texts: Sequence[str],
    status: str,
) -> str:
    """A bar on a log scale that ends at an estimate with whiskers, and marks (name, x) across it.

    estimate: (value, low, high), all above 0. texts: one line above the bar, one below its marks.
    status: of a finding; it decides the colour of the bar.
    """
    if estimate is None:
        return _empty(title, NOT_MEASURED, NARROW.width)
    value, low, high = estimate
    places = [x for _, x in marks]
    edge, end = 16, NARROW.width - 16
    at = _log_scale(min(low, *places) / 2, max(high, *places) * 2, edge, end)
    top, middle, bottom = 64, 75, 86
    body = [_text(edge, 52, texts[0], "pc-ink"), _box("pc-track", edge, top, end, bottom)]
    body.append(_box(f"pc-{status}", edge, top, at(value), bottom))
    if low < high:
        body.append(_rule(at(low), middle, at(high), middle, "pc-bound"))
        body += [_rule(at(x), middle - 5, at(x), middle + 5, "pc-bound") for x in (low, high)]
    for name, x in marks:
        body.append(_rule(at(x), top - 6, at(x), bottom + 6, "pc-axis"))
        body.append(_text(at(x), bottom + 20, quantity(x), "pc-mute", _inside(at(x))))
        body.append(_text(at(x), bottom + 34, name, "pc-mute", _inside(at(x))))
    body.append(_text(edge, bottom + 56, texts[1], "pc-mute"))
    return _document(title, bottom + 68, body, NARROW.width)


def histogram(title: str, bins: Sequence[tuple[int, int, int]], what: str, unit: str) -> str:
    """Counts in bins (from, to, count) on a log scale; `to` belongs to the next bin.

    what: the things that are counted. unit: of the ends of the bins. Both in the plural.
    """
    if not bins:
        return _empty(title, f"no {what}", NARROW.width)
    edge, top, floor = 16, 54, 150
    at = _log_scale(bins[0][0], bins[-1][1], edge, NARROW.width - edge)
    most = max(found for _, _, found in bins)
    body = [
        _text(edge, top - 4, f"{count(most)} {what}", "pc-mute"),
        _rule(edge, top, NARROW.width - edge, top, "pc-grid"),
    ]
    for low, high, found in bins:
        label = f"{count(found)} {what} of {count(low)} to {count(high - 1)} {unit}"
        right = max(at(low) + 1, at(high) - 1)
        height = found / most * (floor - top)
        body.append(_box("pc-bar", at(low), floor - height, right, floor, label))
    body.append(_rule(edge, floor, NARROW.width - edge, floor, "pc-axis"))
    for tick in (10**power for power in range(7)):
        if bins[0][0] <= tick <= bins[-1][1]:
            body.append(_rule(at(tick), floor, at(tick), floor + 4, "pc-axis"))
            body.append(_text(at(tick), floor + 18, quantity(tick), "pc-mute", _inside(at(tick))))
    return _document(title, floor + 30, body, NARROW.width)


def _empty(title: str, text: str, width: int) -> str:
    """A chart with a text in place of the values that are missing."""
    return _document(title, 90, [_text(16, 66, text, "pc-mute")], width)


def _document(title: str, height: float, body: Sequence[str], width: int = WIDE.width) -> str:
    size = f'width="{width}" height="{_n(height)}" viewBox="0 0 {width} {_n(height)}"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="pc" role="img" {size}>',
        f"<title>{escape(title)}</title>",
        STYLE,
        # Half a pixel in: a stroke of one pixel is sharp there, and lies inside the picture.
        (
            f'<rect class="pc-bg" x="0.5" y="0.5" width="{width - 1}" height="{_n(height - 1)}"'
            ' rx="6"/>'
        ),
        _text(16, 26, title, "pc-ink pc-title"),
    ]
    return "\n".join([*head, *body, "</svg>"]) + "\n"


def _scale(ticks: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    low, high = ticks[0], ticks[-1]
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _log_scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    at = _scale([math.log(low), max(math.log(high), math.log(low) + 1e-9)], start, end)
    return lambda value: at(math.log(value))


def _inside(x: float) -> str:
    """The text anchor that keeps a label at x inside a narrow chart."""
    return "start" if x < 48 else "end" if x > NARROW.width - 48 else "middle"


def _box(style: str, left: float, top: float, right: float, bottom: float, label: str = "") -> str:
    size = f'width="{_n(max(0.0, right - left))}" height="{_n(bottom - top)}" rx="2"'
    title = f"<title>{escape(label)}</title>" if label else ""
    return f'<rect class="{style}" x="{_n(left)}" y="{_n(top)}" {size}>{title}</rect>'


def _axes(
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_at: Callable[[float], float],
    y_at: Callable[[float], float],
    labels: tuple[str, str],
    frame: Frame,
) -> list[str]:
    floor, right = frame.height - BOTTOM, frame.width - RIGHT
    parts: list[str] = []
    for tick in y_ticks:
        parts.append(_rule(LEFT, y_at(tick), right, y_at(tick), "pc-grid"))
        parts.append(_text(LEFT - 8, y_at(tick) + 4, quantity(tick), "pc-mute", "end"))
    for tick in x_ticks:
        parts.append(_rule(x_at(tick), floor, x_at(tick), floor + 5, "pc-axis"))
        parts.append(_text(x_at(tick), floor + 20, quantity(tick), "pc-mute", "middle"))
    parts.append(_rule(LEFT, floor, right, floor, "pc-axis"))
    parts.append(_text((LEFT + right) / 2, frame.height - 12, labels[0], "pc-mute", "middle"))
    parts.append(_text(16, TOP - 12, labels[1], "pc-mute"))
    return parts


def _reference_rule(y: float, width: int) -> str:
    return (
        f'<line class="pc-axis" stroke-dasharray="5 4" x1="{LEFT}" y1="{_n(y)}"'
        f' x2="{width - RIGHT}" y2="{_n(y)}"/>'
    )


def _reference_label(label: str, y: float, frame: Frame, drawn: Sequence[Point]) -> str:
    """The label beside its rule: above or below it, at the end where the lines are farthest."""
    left, right, length = LEFT + 6, frame.width - RIGHT - 6, CHARACTER * len(label)

    def room(start: float, middle: float) -> float:
        near = (abs(py - middle) for px, py in drawn if start <= px <= start + length)
        return min(near, default=math.inf)

    # The middle of the letters, and where they stand.
    heights = [(y - 10, y - 6)]
    if y + 18 < frame.height - BOTTOM:
        heights.append((y + 12, y + 16))
    places = [
        (room(start, middle), baseline, x, anchor)
        for middle, baseline in heights
        for start, x, anchor in ((right - length, right, "end"), (left, left, "start"))
    ]
    _, baseline, x, anchor = max(places, key=lambda place: place[0])
    return _text(x, baseline, label, "pc-mute pc-halo", anchor)


def _polyline(places: Sequence[Point], colour: int, dots: bool) -> list[str]:
    joined = " ".join(f"{_n(x)},{_n(y)}" for x, y in places)
    parts = [f'<polyline class="pc-s{colour}" points="{joined}"/>'] if places else []
    if dots:
        parts += [
            f'<circle class="pc-s{colour}" fill="none" cx="{_n(x)}" cy="{_n(y)}" r="3"/>'
            for x, y in places
        ]
    return parts


def _legend(labels: Sequence[str]) -> list[str]:
    parts: list[str] = []
    x = 16.0
    for number, label in enumerate(labels):
        parts.append(
            f'<line class="pc-s{number % 4}" stroke-width="3" x1="{_n(x)}" y1="44"'
            f' x2="{_n(x + 18)}" y2="44"/>'
        )
        parts.append(_text(x + 24, 48, label, "pc-mute"))
        x += 44 + CHARACTER * len(label)
    return parts


def _bar(bar: Bar, y: float, at: Callable[[float], float]) -> list[str]:
    middle = y + BAR_HEIGHT - 20
    parts = [
        _text(at(0), y + 8, bar.label, "pc-ink"),
        _text(at(1), y + 8, bar.text, "pc-mute", "end"),
    ]
    if bar.value is not None:
        parts.append(_box("pc-bar", at(0), middle - 7, at(bar.value), middle + 7))
    if bar.low is not None and bar.high is not None:
        ends = at(bar.low), at(bar.high)
        parts.append(_rule(ends[0], middle, ends[1], middle, "pc-axis", 2))
        parts += [_rule(x, middle - 5, x, middle + 5, "pc-axis", 2) for x in ends]
    return parts + [
        _mark(number, at(mark), middle) for number, mark in enumerate(bar.marks) if mark is not None
    ]


def _mark(number: int, x: float, middle: float) -> str:
    """The line, the diamond or the dashed line across a bar."""
    if number == 1:
        corners = " ".join(
            f"{_n(x + dx)},{_n(middle + dy)}" for dx, dy in ((0, -6), (6, 0), (0, 6), (-6, 0))
        )
        return f'<polygon class="pc-diamond" points="{corners}"/>'
    style = "pc-bound" if number == 0 else "pc-chance"
    return (
        f'<line class="{style}" x1="{_n(x)}" y1="{_n(middle - 11)}" x2="{_n(x)}"'
        f' y2="{_n(middle + 11)}"/>'
    )


def _mark_legend(names: Sequence[str]) -> list[str]:
    parts: list[str] = []
    x = 16.0
    for number, name in enumerate(names):
        parts += [_mark(number, x + 6, 44), _text(x + 18, 48, name, "pc-mute")]
        x += 40 + CHARACTER * len(name)
    return parts


def _rule(x1: float, y1: float, x2: float, y2: float, style: str, width: int = 1) -> str:
    return (
        f'<line class="{style}" stroke-width="{width}" x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}"'
        f' y2="{_n(y2)}"/>'
    )


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    side = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text class="{style}" x="{_n(x)}" y="{_n(y)}"{side}>{escape(text)}</text>'


def _n(number: float) -> str:
    """A coordinate rounded to a tenth, without a trailing zero; never "-0"."""
    text = f"{number:.1f}".removesuffix(".0")
    return "0" if text in ("-0", "") else text
