"""The preview as one HTML page with SVG charts: no script, no font, nothing fetched.

Texts of a corpus are hostile: all are escaped, control and order-turning characters are shown by
number, and a content policy in the page forbids scripts and requests, should an escape ever be
forgotten. The same facts give the same bytes. Charts are drawn for the narrow column of a phone, so
that letters keep their size; wider screens set several side by side.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from picochat.core.progress import say
from picochat.core.records import write_atomic
from picochat.data.pack import LoadedPack
from picochat.present.charts import estimate_chart, histogram
from picochat.present.templates import render
from picochat.present.values import quantity
from picochat.preview.preview_record import DuplicateCluster, LengthBin, Preview, ScaleFit
from picochat.preview.scale_fit import exposure_bounds

PAGE_NAME = "preview.html"
WORD = re.compile(r"\S+\s*|\s+")
TEMPLATE = Path(__file__).with_name("preview_page.html.jinja")

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
    labels = [source.label for source in preview.sources]
    repeats = {(pair.source, pair.of): pair for pair in preview.duplicates.pairs}
    return render(
        TEMPLATE,
        preview=preview,
        plan=Markup(plan_chart(preview.fit)),
        lengths={
            source.label: Markup(length_chart(source.label, source.lengths))
            for source in preview.sources
        },
        parts=pack_fractions(preview),
        matrix=[(source, [repeats.get((source, of)) for of in labels]) for source in labels],
        clusters=[(cluster, marked_texts(cluster)) for cluster in preview.duplicates.clusters],
    )


def pack_fractions(preview: Preview) -> dict[str, dict[str, float]]:
    """What part of the pack's documents, bytes and tokens each source is; nothing of what is 0.

    Tokens follow the weights of the sources.
    """
    fractions: dict[str, dict[str, float]] = {source.label: {} for source in preview.sources}
    counts: dict[str, list[float]] = {
        "documents": [source.documents for source in preview.sources],
        "bytes": [source.text_bytes for source in preview.sources],
        "tokens": [source.tokens.value if source.tokens else 0 for source in preview.sources],
    }
    for name, numbers in counts.items():
        for label, number in zip(fractions, numbers, strict=True):
            if number:
                fractions[label][name] = number / sum(numbers)
    return fractions


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


# ---- charts --------------------------------------------------------------------------------------


def plan_chart(fit: ScaleFit) -> str:
    """Training tokens as a bar on a log scale, with marks at 1, 4 and 16 epochs of the plan."""
    title, tokens, epochs = "Tokens for training against the plan", fit.train_tokens, fit.epochs
    if tokens is None or tokens.value <= 0 or epochs is None:
        return estimate_chart(title, None, (), (), fit.status)
    # Epochs of the plan or of the target, whichever asks for more: both are checks of the gate.
    _, most, block = exposure_bounds()
    wanted = max(fit.planned_tokens, fit.target_tokens)
    marks = [(f"{number:g} epochs", wanted / number) for number in (block, most)]
    read = (
        f"{quantity(epochs.value)} times"
        if epochs.value >= 1
        else f"at most once, {1 - epochs.value:.0%} never"
    )
    texts = (
        (
            f"{quantity(tokens.value)} tokens, {quantity(fit.planned_tokens)} planned:"
            f" each read {read}"
        ),
        "marks: tokens that suffice at so many epochs",
    )
    found = (tokens.value, tokens.low, tokens.high)
    return estimate_chart(title, found, [*marks, ("1 epoch", wanted)], texts, fit.status)


def length_chart(label: str, lengths: Sequence[LengthBin]) -> str:
    """Documents by length, characters on a log scale."""
    bins = [(each.from_characters, each.to_characters, each.documents) for each in lengths]
    return histogram(f"Lengths of {label}", bins, "documents", "characters")
