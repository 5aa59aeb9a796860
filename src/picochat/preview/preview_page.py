"""The preview as one HTML page with SVG charts: no script, no font, nothing fetched.

Texts of a corpus are hostile: all are escaped, control and order-turning characters are shown by
number, and a content policy in the page forbids scripts and requests, should an escape ever be
forgotten. The same facts give the same bytes. Charts are drawn for the narrow column of a phone, so
that letters keep their size; wider screens set several side by side.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from picochat.core.progress import byte_quantity, quantity, say
from picochat.core.records import write_atomic
from picochat.data.pack import LoadedPack
from picochat.preview.preview_record import DuplicateCluster, LengthBin, Preview, ScaleFit
from picochat.preview.preview_screen import interval_text, percent
from picochat.preview.scale_fit import exposure_bounds

PAGE_NAME = "preview.html"
WORD = re.compile(r"\S+\s*|\s+")
# Of a chart, in pixels.
WIDTH = 360
EDGE = 8
PLAN_HEIGHT = 124
HISTOGRAM_HEIGHT = 130
FLOOR = HISTOGRAM_HEIGHT - 22

Segment = tuple[bool, str]


def page_place(pack: LoadedPack) -> Path | None:
    """Where the page lies by default: beside the pack; None where that is inside of a source.

    A page among the files of a source would be read as one of its documents.
    """
    folder = pack.path.parent.resolve()
    roots = [source.path.resolve() for source in pack.sources if source.path.is_dir()]
    inside = any(root in (folder, *folder.parents) for root in roots)
    return None if inside else pack.path.parent / PAGE_NAME


def publish_page(preview: Preview, pack: LoadedPack, place: Path | None = None) -> None:
    """Write the page, and say on standard error where it is.

    Without a place it lies beside the pack, and a failure to write it there is only said. Raises
    OSError where a place was given and cannot be written.
    """
    target = place or page_place(pack)
    if target is None:
        say(
            f"no page was written: {pack.path.parent} is a source of the pack; --html FILE names"
            " another place"
        )
        return
    try:
        write_atomic(target, render_page(preview).encode())
    except OSError as error:
        if place is not None:
            raise
        say(f"no page was written to {target} ({error.strerror}); --html FILE names another place")
        return
    say(f"the same with pictures: {target}")


def render_page(preview: Preview) -> str:
    """The whole page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "interval": interval_text,
        "percent": percent,
        "quantity": quantity,
        "bytes": byte_quantity,
        "width": width_percent,
    }
    labels = [source.label for source in preview.sources]
    repeats = {(pair.source, pair.of): pair for pair in preview.duplicates.pairs}
    return environment.get_template("preview_page.html.jinja").render(
        preview=preview,
        plan=Markup(plan_chart(preview.fit)),
        lengths={
            source.label: Markup(length_chart(source.label, source.lengths))
            for source in preview.sources
        },
        parts=pack_shares(preview),
        matrix=[(source, [repeats.get((source, of)) for of in labels]) for source in labels],
        clusters=[(cluster, marked_texts(cluster)) for cluster in preview.duplicates.clusters],
    )


def pack_shares(preview: Preview) -> dict[str, dict[str, float]]:
    """What part of the pack's documents, bytes and tokens each source is; nothing of what is 0.

    Tokens follow the weights of the sources.
    """
    shares: dict[str, dict[str, float]] = {source.label: {} for source in preview.sources}
    counts: dict[str, list[float]] = {
        "documents": [source.documents for source in preview.sources],
        "bytes": [source.text_bytes for source in preview.sources],
        "tokens": [source.tokens.value if source.tokens else 0 for source in preview.sources],
    }
    for name, numbers in counts.items():
        for label, number in zip(shares, numbers, strict=True):
            if number:
                shares[label][name] = number / sum(numbers)
    return shares


def marked_texts(cluster: DuplicateCluster) -> list[list[Segment]]:
    """Each text in runs of words, with a mark on runs that the other text has otherwise."""
    texts = [WORD.findall(shown.text) for shown in cluster.texts]
    if len(texts) != 2:
        return [[(False, shown.text)] for shown in cluster.texts]
    sides: list[list[Segment]] = [[], []]
    # Compared without blanks: another line break is no difference.
    compared = [[word.strip() for word in words] for words in texts]
    for tag, a, b, c, d in difflib.SequenceMatcher(None, *compared, autojunk=False).get_opcodes():
        for side, words in zip(sides, (texts[0][a:b], texts[1][c:d]), strict=True):
            if words:
                side.append((tag != "equal", "".join(words)))
    return sides


def width_percent(share: float | None) -> str:
    """A share as the width of a bar, for a style attribute: a number and nothing else."""
    return f"{100 * min(1.0, max(0.0, share or 0.0)):.1f}%"


# ---- charts, as SVG text that takes its colours from the page's style sheet ----------------------


def plan_chart(fit: ScaleFit) -> str:
    """Training tokens as a bar on a log scale, with marks at 1, 4 and 16 epochs of the plan."""
    if fit.train_tokens is None or fit.train_tokens.value <= 0 or fit.epochs is None:
        return _svg(
            "Tokens for training: not measured", 40, [_text(EDGE, 24, "not measured", "mute")]
        )
    tokens = fit.train_tokens
    # Epochs of the plan or of the target, whichever asks for more: both are checks of the gate.
    _, most, block = exposure_bounds()
    wanted = max(fit.planned_tokens, fit.target_tokens)
    marks = [(f"{epochs:g} epochs", wanted / epochs) for epochs in (block, most)]
    marks.append(("1 epoch", wanted))
    low = min(tokens.low, marks[0][1]) / 2
    high = max(tokens.high, wanted) * 2
    at = _log_scale(low, high)
    width = _n(at(tokens.value) - EDGE)
    body = [
        f'<rect class="track" x="{EDGE}" y="44" width="{WIDTH - 2 * EDGE}" height="22" rx="3"/>',
        f'<rect class="fill {fit.status}" x="{EDGE}" y="44" width="{width}" height="22" rx="3"/>',
    ]
    if tokens.low < tokens.high:
        body.append(_rule(at(tokens.low), 55, at(tokens.high), 55, "ink"))
        body += [_rule(at(end), 50, at(end), 60, "ink") for end in (tokens.low, tokens.high)]
    for name, mark in marks:
        body.append(_rule(at(mark), 38, at(mark), 72, "axis"))
        body.append(_text(at(mark), 86, quantity(mark), "mute", _anchor(at(mark))))
        body.append(_text(at(mark), 100, name, "mute", _anchor(at(mark))))
    epochs = fit.epochs.value
    read = f"{quantity(epochs)} times" if epochs >= 1 else f"at most once, {1 - epochs:.0%} never"
    planned = f"{quantity(fit.planned_tokens)} planned: each token read {read}"
    foot = "marks: tokens that suffice at so many epochs"
    body.append(_text(EDGE, 14, f"{quantity(tokens.value)} tokens for training", "ink"))
    body.append(_text(EDGE, 30, planned, "mute"))
    body.append(_text(EDGE, PLAN_HEIGHT - 6, foot, "mute"))
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
    for tick in (10**power for power in range(7)):
        if lengths[0].from_characters <= tick <= lengths[-1].to_characters:
            x = at(tick)
            body.append(_rule(x, FLOOR, x, FLOOR + 4, "axis"))
            body.append(_text(x, FLOOR + 18, quantity(tick), "mute", _anchor(x)))
    return _svg(f"Lengths of {label} in characters", HISTOGRAM_HEIGHT, body)


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
    """The anchor with which a label at x stays inside the picture."""
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
