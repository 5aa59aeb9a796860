"""`picochat data preview`: what a pack holds, and whether it is enough for a scale. Facts only;
terminal and page render them.

Counts are exact where documents were imported (their manifest states them), where the pack is small
enough to read as a whole, or where `full` asks for it; otherwise they are scaled up from a sample
and said to be. Tokens always come from a sample, with their interval. Decides nothing: the
preflight measures again and judges.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from picochat.core.progress import say
from picochat.core.publish import Artifact, publish
from picochat.core.records import read_record
from picochat.data.corpus.build import build_corpus
from picochat.data.importing.report import ImportReport
from picochat.data.pack import LoadedPack, LoadedSource
from picochat.data.preview.duplicates import (
    corpus_duplicates,
    fetched_clusters,
    sampled_duplicates,
    wanted_ids,
)
from picochat.data.preview.fit import fit_scale
from picochat.data.preview.record import (
    SCHEMA_VERSION,
    ConversationPart,
    Duplicates,
    Interval,
    LanguageMix,
    Preview,
    RowsPreview,
    ShownDocument,
    SourcePreview,
)
from picochat.data.preview.sample import (
    SAMPLE_BYTES,
    WHOLE_BYTES,
    SourceSample,
    parquet_totals,
    read_sample,
)
from picochat.data.preview.tally import SourceTally, tally_files, tally_samples
from picochat.data.preview.text import (
    LANGUAGE_DOCUMENTS,
    SCRIPT_DOCUMENTS,
    character_mix,
    language_mix,
    length_histogram,
    length_percentiles,
    load_identifier,
)
from picochat.data.preview.tokens import bytes_per_token
from picochat.present.printable import printable
from picochat.present.values import byte_quantity
from picochat.scales import Scale

SHOWN_DOCUMENTS = 4
SHOWN_CHARACTERS = 2_000
SHOWN_LINES = 10
SHOWN_CONVERSATIONS = 5
ROLES = ("system", "user", "assistant")


def preview_pack(
    pack: LoadedPack,
    scale: Scale,
    *,
    full: bool = False,
    corpus: Callable[[], Artifact] | None = None,
    sample_bytes: int = SAMPLE_BYTES,
    whole_bytes: int = WHOLE_BYTES,
) -> Preview:
    """Reads a bounded sample of every source, or all of it, and measures it. Raises BadInput where
    a file is broken.

    corpus: gives the corpus of the pack where `full` needs it, for who keeps it; without it, one is
    built and thrown away.
    """
    samples = read_sample(pack.sources, scale.config.data, sample_bytes, whole_bytes)
    # A pack that was read as a whole needs no second reading.
    reads_all = full and not all(sample.complete for sample in samples)
    duplicates, tallies = (
        _read_all(pack, scale, corpus) if reads_all else (None, tally_samples(samples))
    )
    totals = [
        _totals(*item, exact=reads_all) for item in zip(pack.sources, samples, tallies, strict=True)
    ]
    if duplicates is None:
        say("looking for duplicates")
        duplicates = sampled_duplicates(
            samples, scale.config.data.near_duplicate_jaccard, sum(total[0] for total in totals)
        )
    say(
        "measuring tokens and languages on"
        f" {byte_quantity(sum(sum(sample.text_bytes) for sample in samples))}"
    )
    mix = [
        text_bytes * source.weight
        for source, (_, text_bytes, _) in zip(pack.sources, totals, strict=True)
    ]
    rates, tokens_basis = bytes_per_token(samples, mix, scale.config.tokenizer.vocab_size)
    languages, languages_basis = _languages(samples)
    sources = [
        _describe(*item, scale.config.seed)
        for item in zip(samples, tallies, totals, rates, languages, strict=True)
    ]
    return Preview(
        schema_version=SCHEMA_VERSION,
        pack=str(pack.path),
        name=printable(pack.name),
        description=printable(pack.pack.description),
        full=full,
        documents=sum(source.documents for source in sources),
        text_bytes=sum(source.text_bytes for source in sources),
        basis=_basis(samples, reads_all),
        tokens_basis=tokens_basis,
        languages_basis=languages_basis,
        lines_basis=_lines_basis(tallies),
        duplicates=duplicates,
        sft=_rows(pack, "chat"),
        eval=_rows(pack, "eval"),
        sources=sources,
        fit=fit_scale(sources, pack.sources, duplicates, scale),
    )


def _read_all(
    pack: LoadedPack, scale: Scale, corpus: Callable[[], Artifact] | None
) -> tuple[Duplicates, list[SourceTally]]:
    """Duplicates of the whole pack, as the corpus stage finds them, and counts of every text."""
    data, host = scale.config.data, scale.config.host
    if corpus is not None:
        duplicates, wanted = corpus_duplicates(corpus())
    else:
        with tempfile.TemporaryDirectory(prefix="picochat-preview-") as folder:
            with publish(Path(folder) / "corpus", "corpus", "preview", {}) as draft:
                build_corpus(pack, data, host, draft)
            duplicates, wanted = corpus_duplicates(cast("Artifact", draft.artifact))
    tallies, texts = tally_files(pack.sources, data, wanted_ids(wanted))
    return duplicates.model_copy(update={"clusters": fetched_clusters(wanted, texts)}), tallies


def _totals(
    source: LoadedSource, sample: SourceSample, tally: SourceTally, *, exact: bool
) -> tuple[int, int, bool]:
    """(documents, text bytes, whether they were counted)."""
    if exact or sample.complete:
        return tally.documents, tally.text_bytes, True
    dropped = sum(sample.unusable.values())
    kept = tally.documents / (tally.documents + dropped) if dropped else 1.0
    if source.manifest is not None:
        # Rows are dropped here only where the recipe asks for longer texts than the import did.
        listed = {file.name for file in source.files}
        shards = [shard for shard in source.manifest.shards if shard.name in listed]
        documents, text_bytes = (
            sum(shard.documents for shard in shards),
            sum(shard.text_bytes for shard in shards),
        )
        return round(documents * kept), round(text_bytes * kept), not dropped
    stated = parquet_totals(source)
    if stated is not None:
        return round(stated[0] * kept), stated[1], False
    factor = (
        sum(file.bytes for file in source.files) / sample.file_bytes if sample.file_bytes else 0.0
    )
    return round(tally.documents * factor), round(tally.text_bytes * factor), False


def _describe(
    sample: SourceSample,
    tally: SourceTally,
    total: tuple[int, int, bool],
    rate: Interval | None,
    languages: LanguageMix | None,
    seed: int,
) -> SourcePreview:
    source = sample.source
    documents, text_bytes, exact = total
    report_path = source.report_path()
    report = read_record(ImportReport, report_path, "import report") if report_path else None
    ascii_share, scripts, characters = character_mix(
        sample.texts[place] for place in sample.spread(SCRIPT_DOCUMENTS)
    )
    provenance = source.manifest.provenance if source.manifest else None
    return SourcePreview(
        label=source.label,
        origin=printable(_origin(source)),
        licence=printable(provenance.licence) if provenance and provenance.licence else None,
        files=len(source.files),
        weight=source.weight,
        exact=exact,
        documents=documents,
        text_bytes=text_bytes,
        looked_at_documents=tally.documents,
        looked_at_bytes=tally.text_bytes,
        mean_characters=_mean_characters(source, tally),
        percentiles=length_percentiles(tally.lengths),
        lengths=length_histogram(tally.lengths),
        unusable_rows=dict(sorted(tally.unusable.items())),
        skipped_at_import=report.skip_reasons if report else {},
        ascii_letter_share=ascii_share,
        scripts=scripts,
        characters=characters,
        languages=languages,
        bytes_per_token=rate,
        tokens=_tokens(text_bytes * source.weight, documents * source.weight, rate),
        repeated_lines=[
            found.model_copy(update={"line": printable(found.line)})
            for found in tally.lines.most_repeated(SHOWN_LINES)
        ],
        shown=[_shown(sample, place) for place in sample.chosen(SHOWN_DOCUMENTS, seed)],
    )


def _mean_characters(source: LoadedSource, tally: SourceTally) -> float:
    """As the manifest states it where all of it is read, else of the texts looked at."""
    manifest = source.manifest
    if (
        manifest
        and manifest.documents
        and len(source.files) == len(manifest.shards)
        and not tally.unusable
    ):
        return manifest.characters / manifest.documents
    return sum(tally.lengths) / tally.documents if tally.documents else 0.0


def _origin(source: LoadedSource) -> str:
    provenance = source.manifest.provenance if source.manifest else None
    if provenance is None:
        return str(source.path)
    return (
        f"{provenance.dataset}, {provenance.config or provenance.split} at"
        f" {provenance.revision[:18]}"
    )


def _tokens(text_bytes: float, documents: float, rate: Interval | None) -> Interval | None:
    """Tokens of so much text, and one more for each document: the one that opens it."""
    if rate is None or rate.low <= 0:
        return None
    value, low, high = (
        round(text_bytes / each + documents) for each in (rate.value, rate.high, rate.low)
    )
    return Interval(value=value, low=low, high=high)


def _shown(sample: SourceSample, place: int) -> ShownDocument:
    text = sample.texts[place]
    return ShownDocument(
        id=printable(f"{sample.source.label}:{sample.ids[place]}"),
        characters=len(text),
        text=printable(text[:SHOWN_CHARACTERS]),
        whole=len(text) <= SHOWN_CHARACTERS,
    )


def _languages(samples: Sequence[SourceSample]) -> tuple[list[LanguageMix | None], str]:
    identify = load_identifier()
    if identify is None:
        return [None] * len(
            samples
        ), "not measured: py3langid is not installed (pip install py3langid)"
    most = max(50, LANGUAGE_DOCUMENTS * 2 // max(2, len(samples)))
    mixes = [
        language_mix((sample.texts[place] for place in sample.spread(most)), identify)
        for sample in samples
    ]
    looked_at = sum(mix.documents for mix in mixes)
    return [
        mix if mix.documents else None for mix in mixes
    ], f"the middle of {looked_at:,} documents, judged by py3langid"


def _basis(samples: Sequence[SourceSample], reads_all: bool) -> str:
    if reads_all or all(sample.complete for sample in samples):
        return "all of the text was read; tokens and languages come from a sample of it"
    files = sum(len(set(sample.file_numbers)) for sample in samples)
    text_bytes = byte_quantity(sum(sum(sample.text_bytes) for sample in samples))
    return f"a sample of {text_bytes} from {files:,} files was read; --full reads all"


def _lines_basis(tallies: Sequence[SourceTally]) -> str:
    documents = sum(tally.documents for tally in tallies)
    errors = [tally.lines.error for tally in tallies]
    error = f"; counts may be too low by {max(errors):,}" if any(errors) else ""
    return f"{documents:,} documents, lines of 20 to 400 characters{error}"


def _rows(pack: LoadedPack, key: str) -> RowsPreview:
    """How many rows there are, and of SFT rows some conversations that lie evenly over the file."""
    path = pack.chat_path if key == "chat" else pack.eval_path
    rows = _count_lines(path) if path is not None else 0
    if path is None or not rows:
        state = f"none yet: picochat data task-pack --dataset-pack {pack.path}"
        return RowsPreview(state=state, rows=0, conversations=[], unreadable=0)
    wanted = (
        {number * rows // SHOWN_CONVERSATIONS for number in range(SHOWN_CONVERSATIONS)}
        if key == "chat"
        else set[int]()
    )
    conversations: list[list[ConversationPart]] = []
    unreadable = 0
    with path.open("rb") as stream:
        for number, line in enumerate(line for line in stream if line.strip()):
            if number in wanted:
                parts = _conversation(line)
                conversations += [parts] if parts else []
                unreadable += not parts
    return RowsPreview(
        state=f"{rows:,} in {path.name}",
        rows=rows,
        conversations=conversations,
        unreadable=unreadable,
    )


def _count_lines(path: Path) -> int:
    with path.open("rb") as stream:
        return sum(1 for line in stream if line.strip())


def _conversation(line: bytes) -> list[ConversationPart]:
    """The turns of an SFT row; none where the row is not one.

    What a row may hold is checked where rows are read for a run.
    """
    try:
        row = json.loads(line)
    except ValueError:
        return []
    if not isinstance(row, dict):
        return []
    found = cast("dict[str, Any]", row)
    return [
        ConversationPart(
            role=role, text=printable(found[role][:SHOWN_CHARACTERS]), trained=role == "assistant"
        )
        for role in ROLES
        if isinstance(found.get(role), str)
    ]
