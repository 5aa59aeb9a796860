"""The preview as one HTML page with SVG charts. It has no script and loads nothing.

Texts of a corpus may be hostile. They are escaped, control and reordering characters are shown as
code points, and a content security policy in the page forbids scripts and requests in case an
escape was forgotten. The same record gives the same bytes. Charts have the width of a phone, so
their text stays readable there; wider screens show several side by side.
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
    """The default place of the page: beside the pack, or None if that is inside a source.

    A page inside a source would be read as one of its documents.
    """
    folder = pack.path.parent.resolve()
    roots = [source.path.resolve() for source in pack.sources if source.path.is_dir()]
    inside = any(root in (folder, *folder.parents) for root in roots)
    return None if inside else pack.path.parent / PAGE_NAME


def publish_page(preview: Preview, pack: LoadedPack, place: Path | None = None) -> None:
    """Write the page, by default beside the pack, and print its path to stderr.

    Raises OSError if `place` is given and cannot be written. A failure at the default place is only
    printed, because the user did not ask for the page.
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
    """Fractions of the pack's documents, bytes and tokens by source; zero fractions are absent.

    The weight of a source counts for its tokens only.
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
    """Each text as segments (differs, words); a segment differs if the other text lacks it."""
    texts = [WORD.findall(shown.text) for shown in cluster.texts]
    if len(texts) != 2:
        return [[(False, shown.text)] for shown in cluster.texts]
    sides: list[list[Segment]] = [[], []]
    # Words are compared without white space: a moved line break is no difference.
    compared = [[word.strip() for word in words] for words in texts]
    for tag, a, b, c, d in difflib.SequenceMatcher(None, *compared, autojunk=False).get_opcodes():
        for side, words in zip(sides, (texts[0][a:b], texts[1][c:d]), strict=True):
            if words:
                side.append((tag != "equal", "".join(words)))
    return sides


# ---- charts --------------------------------------------------------------------------------------


def plan_chart(fit: ScaleFit) -> str:
    """Training tokens as a bar on a log scale, with marks where checks of the gate warn or block.

    A mark shows the tokens with which the plan takes that many epochs.
    """
    title, tokens, epochs = "Tokens for training against the plan", fit.train_tokens, fit.epochs
    if tokens is None or tokens.value <= 0 or epochs is None:
        return estimate_chart(title, None, (), (), fit.status)
    # The larger of plan and target, because the gate checks the epochs of both.
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
    bins = [(each.from_characters, each.to_characters, each.documents) for each in lengths]
    return histogram(f"Lengths of {label}", bins, "documents", "characters")
