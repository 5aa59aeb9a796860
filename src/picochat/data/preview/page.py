"""The preview as one HTML page: no script, no font, nothing fetched, light or dark as the reader's
system is set.

Texts of a corpus are hostile: all are escaped, control and order-turning characters are shown by
number, and a content policy in the page forbids scripts and requests, should an escape ever be
forgotten. The same facts give the same bytes.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from markupsafe import Markup

from picochat.core.progress import say
from picochat.core.records import write_atomic
from picochat.data.pack import LoadedPack
from picochat.data.preview.charts import length_chart, plan_chart
from picochat.data.preview.record import DuplicateCluster, Duplicates, Preview, SourcePreview
from picochat.present.templates import render

TEMPLATE = Path(__file__).with_name("page.html.jinja")
PAGE_NAME = "preview.html"
WORD = re.compile(r"\S+\s*|\s+")
Segment = tuple[bool, str]


def page_place(pack: LoadedPack) -> Path | None:
    """Where the page lies unless told otherwise: beside the pack; None where that folder is, or
    lies in, one of its sources.
    """
    folder = pack.path.parent.resolve()
    roots = [source.path.resolve() for source in pack.sources if source.path.is_dir()]
    return (
        None
        if any(root in (folder, *folder.parents) for root in roots)
        else pack.path.parent / PAGE_NAME
    )


def publish_page(preview: Preview, pack: LoadedPack, place: Path | None = None) -> None:
    """Write the page and say where. Without a place it lies beside the pack, and one that cannot be
    written there is only said.

    Raises OSError where a place was asked for and cannot be written.
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
    charts = {
        source.label: Markup(length_chart(source.label, source.lengths))
        for source in preview.sources
    }
    return render(
        TEMPLATE,
        preview=preview,
        plan=Markup(plan_chart(preview.fit)),
        lengths=charts,
        parts={source.label: pack_shares(source, preview.sources) for source in preview.sources},
        matrix=duplicate_matrix(preview.duplicates, [source.label for source in preview.sources]),
        clusters=[(cluster, marked_texts(cluster)) for cluster in preview.duplicates.clusters],
    )


def pack_shares(source: SourcePreview, sources: Sequence[SourcePreview]) -> dict[str, float]:
    """What part of the pack's documents, bytes and tokens a source is; tokens follow the weights,
    and may be unmeasured.
    """
    shares: dict[str, float] = {}
    counts: tuple[tuple[str, Callable[[SourcePreview], float]], ...] = (
        ("documents", lambda each: each.documents),
        ("bytes", lambda each: each.text_bytes),
        ("tokens", lambda each: each.tokens.value if each.tokens else 0.0),
    )
    for name, count in counts:
        whole = sum(count(each) for each in sources)
        if whole and count(source):
            shares[name] = count(source) / whole
    return shares


def duplicate_matrix(
    duplicates: Duplicates, labels: Sequence[str]
) -> list[tuple[str, list[tuple[int, int]]]]:
    """A row for each source: (exact, near) counts of its documents that repeat an earlier one of
    each source.
    """
    counts = {(pair.source, pair.of): (pair.exact, pair.near) for pair in duplicates.pairs}
    return [(source, [counts.get((source, of), (0, 0)) for of in labels]) for source in labels]


def marked_texts(cluster: DuplicateCluster) -> list[list[Segment]]:
    """Each text in runs of words, with a mark on those that the other does not have at that place."""
    texts = [WORD.findall(shown.text) for shown in cluster.texts]
    if len(texts) != 2:
        return [[(False, shown.text)] for shown in cluster.texts]
    sides: list[list[Segment]] = [[], []]
    compared = [
        [word.strip() for word in words] for words in texts
    ]  # another line break is no difference
    for tag, a, b, c, d in difflib.SequenceMatcher(None, *compared, autojunk=False).get_opcodes():
        for side, words in zip(sides, (texts[0][a:b], texts[1][c:d]), strict=True):
            if words:
                side.append((tag != "equal", "".join(words)))
    return sides
