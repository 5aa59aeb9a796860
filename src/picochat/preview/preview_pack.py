"""`picochat data preview`: what a pack holds, and whether it is enough for a scale.

It makes the record that terminal and page render. Counts are exact if the documents were imported
(their manifest states them), if the pack is small enough to read as a whole, or with `full`.
Otherwise they are scaled up from a sample, and the record says so. Tokens always come from a sample
and have an interval.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from picochat.config import resolve
from picochat.core.progress import say
from picochat.core.publish import Artifact, publish
from picochat.core.records import read_record
from picochat.data.corpus.build import build_corpus
from picochat.data.importing.import_report import ImportReport
from picochat.data.left_out import ignored_files
from picochat.data.pack import LoadedPack
from picochat.data.pack_documents import parquet_totals
from picochat.present.printable import printable
from picochat.present.values import byte_quantity
from picochat.preview.preview_record import (
    SCHEMA_VERSION,
    Duplicates,
    Interval,
    LanguageMix,
    Preview,
    ShownDocument,
    SourcePreview,
)
from picochat.preview.scale_fit import fit_scale
from picochat.preview.shown_duplicates import (
    corpus_duplicates,
    fetched_clusters,
    sampled_duplicates,
    wanted_ids,
)
from picochat.preview.shown_rows import has_rows, preview_rows, preview_trivial, trivial_lines
from picochat.preview.text_counts import (
    SourceTally,
    character_mix,
    language_mix,
    length_histogram,
    length_percentiles,
    load_identifier,
    tally_files,
    tally_samples,
)
from picochat.preview.text_sample import SAMPLE_BYTES, WHOLE_BYTES, SourceSample, read_sample
from picochat.preview.token_rate import bytes_per_token
from picochat.scales import Scale

SHOWN_DOCUMENTS = 4
SHOWN_CHARACTERS = 2_000
SHOWN_LINES = 10
CHARACTER_DOCUMENTS = 400  # of one source
LANGUAGE_DOCUMENTS = 300  # of one source


def preview_pack(
    pack: LoadedPack,
    scale: Scale,
    *,
    full: bool = False,
    corpus: Callable[[], Artifact] | None = None,
    sample_bytes: int = SAMPLE_BYTES,
    whole_bytes: int = WHOLE_BYTES,
) -> Preview:
    """Read a bounded sample of every source, or all of it, and measure it.

    corpus: returns the corpus of the pack when `full` needs it, so that a run can reuse it; without
    it, one is built and deleted. Raises BadInput if a file is broken.
    """
    if pack.chat_path is not None and has_rows(pack.chat_path):
        resolved = resolve(scale.config, {}, {}, pack.settings())
        scale = replace(scale, config=resolved.config)
    config = scale.config
    # First, because it takes no time: rows that a run would refuse are refused here.
    sft_rows, eval_rows, rows_facts = preview_rows(pack, config.seed)
    samples = read_sample(pack.sources, config.data, sample_bytes, whole_bytes)
    trivial = preview_trivial(pack, samples) if rows_facts else None
    if trivial:
        eval_rows = eval_rows.model_copy(
            update={"details": [*eval_rows.details, *trivial_lines(trivial)]}
        )
    read_whole = all(sample.complete for sample in samples)
    reads_all = full and not read_whole
    if reads_all:
        duplicates, tallies = _read_all(pack, scale, corpus)
    else:
        duplicates, tallies = None, tally_samples(samples)
    totals = [_totals(*each, exact=reads_all) for each in zip(samples, tallies, strict=True)]
    if duplicates is None:
        say("looking for duplicates")
        documents = sum(total[0] for total in totals)
        duplicates = sampled_duplicates(samples, config.data.near_duplicate_jaccard, documents)
    sampled_bytes = byte_quantity(sum(sum(sample.text_bytes) for sample in samples))
    say(f"measuring tokens and languages on {sampled_bytes}")
    mix = [total[1] * source.weight for source, total in zip(pack.sources, totals, strict=True)]
    rates, tokens_basis = bytes_per_token(samples, mix, config.tokenizer.vocab_size)
    languages, languages_basis = _languages(samples)
    sources = [
        _describe(*each, config.seed)
        for each in zip(samples, tallies, totals, rates, languages, strict=True)
    ]
    basis = "all of the text was read; tokens and languages come from a sample of it"
    if not (reads_all or read_whole):
        files = sum(len(set(sample.file_numbers)) for sample in samples)
        basis = f"a sample of {sampled_bytes} from {files:,} files was read; --full reads all"
    lines = (
        f"{sum(tally.documents for tally in tallies):,} documents, lines of 20 to 400 characters"
    )
    if error := max((tally.lines.error for tally in tallies), default=0):
        lines += f"; counts may be too low by {error:,}"
    return Preview(
        schema_version=SCHEMA_VERSION,
        pack=str(pack.path),
        name=printable(pack.name),
        description=printable(pack.pack.description),
        full=full,
        documents=sum(source.documents for source in sources),
        text_bytes=sum(source.text_bytes for source in sources),
        basis=basis,
        tokens_basis=tokens_basis,
        languages_basis=languages_basis,
        lines_basis=lines,
        duplicates=duplicates,
        sft=sft_rows,
        eval=eval_rows,
        sources=sources,
        fit=fit_scale(sources, pack.sources, duplicates, scale, rows_facts, trivial),
    )


def _read_all(
    pack: LoadedPack, scale: Scale, corpus: Callable[[], Artifact] | None
) -> tuple[Duplicates, list[SourceTally]]:
    """(duplicates of the whole pack, found by the corpus stage; counts of all texts by source)."""
    data, host = scale.config.data, scale.config.host
    if corpus is not None:
        duplicates, wanted = corpus_duplicates(corpus())
    else:
        with tempfile.TemporaryDirectory(prefix="picochat-preview-") as folder:
            with publish(Path(folder) / "corpus", "corpus", "preview", {}) as staging:
                build_corpus(pack, data, host, staging)
            duplicates, wanted = corpus_duplicates(cast("Artifact", staging.artifact))
    tallies, texts = tally_files(pack.sources, data, wanted_ids(wanted))
    return duplicates.model_copy(update={"clusters": fetched_clusters(wanted, texts)}), tallies


# ---- sources -------------------------------------------------------------------------------------


def _totals(sample: SourceSample, tally: SourceTally, *, exact: bool) -> tuple[int, int, bool]:
    """(documents, text bytes, whether these are exact counts)."""
    source = sample.source
    if exact or sample.complete:
        return tally.documents, tally.text_bytes, True
    dropped = sum(sample.unusable.values())
    kept = tally.documents / (tally.documents + dropped) if dropped else 1.0
    if source.manifest is not None:
        # The import has dropped unusable rows. More are dropped only if the recipe asks for longer
        # texts than the import did.
        listed = {file.name for file in source.files}
        shards = [shard for shard in source.manifest.shards if shard.name in listed]
        documents = sum(shard.documents for shard in shards)
        text_bytes = sum(shard.text_bytes for shard in shards)
        return round(documents * kept), round(text_bytes * kept), not dropped
    stated = parquet_totals(source)
    if stated is not None:
        return round(stated[0] * kept), stated[1], False
    # Compressed bytes say little about text: on 306,424 documents this estimate was 17% too high
    # (docs/decisions/0016). So it is the last resort.
    file_bytes = sum(file.bytes for file in source.files)
    factor = file_bytes / sample.file_bytes if sample.file_bytes else 0.0
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
    ascii_fraction, scripts, characters = character_mix(
        sample.texts[place] for place in sample.spread(CHARACTER_DOCUMENTS)
    )
    manifest = source.manifest
    provenance = manifest.provenance if manifest else None
    origin = str(source.path)
    if provenance:
        part = provenance.config or provenance.split
        origin = f"{provenance.dataset}, {part} at {provenance.revision[:18]}"
    mean_characters = sum(tally.lengths) / tally.documents if tally.documents else 0.0
    if manifest and len(source.files) == len(manifest.shards) and not tally.unusable:
        # The pack takes everything that was imported, so the mean of the manifest is exact.
        mean_characters = manifest.characters / manifest.documents if manifest.documents else 0.0
    tokens = None
    if rate is not None and rate.low > 0:
        # One more token for each document: the BOS token at its start.
        value, low, high = (
            round(source.weight * (text_bytes / each + documents))
            for each in (rate.value, rate.high, rate.low)
        )
        tokens = Interval(value=value, low=low, high=high)
    return SourcePreview(
        label=source.label,
        origin=printable(origin),
        licence=printable(source.licence) if source.licence else None,
        files=len(source.files),
        weight=source.weight,
        exact=exact,
        documents=documents,
        text_bytes=text_bytes,
        looked_at_documents=tally.documents,
        looked_at_bytes=tally.text_bytes,
        mean_characters=mean_characters,
        percentiles=length_percentiles(tally.lengths),
        lengths=length_histogram(tally.lengths),
        unusable_rows=dict(sorted(tally.unusable.items())),
        skipped_at_import=report.skip_reasons if report else {},
        files_left_out=ignored_files(source.path, [file.name for file in source.files]),
        repeated_ids=tally.repeated_ids,
        ascii_letter_fraction=ascii_fraction,
        scripts=scripts,
        characters=characters,
        languages=languages,
        bytes_per_token=rate,
        tokens=tokens,
        repeated_lines=[
            found.model_copy(update={"line": printable(found.line)})
            for found in tally.lines.most_repeated(SHOWN_LINES)
        ],
        shown=[
            ShownDocument(
                id=printable(f"{source.label}:{sample.ids[place]}"),
                characters=len(sample.texts[place]),
                text=printable(sample.texts[place][:SHOWN_CHARACTERS]),
                whole=len(sample.texts[place]) <= SHOWN_CHARACTERS,
            )
            for place in sample.chosen(SHOWN_DOCUMENTS, seed)
        ],
    )


def _languages(samples: Sequence[SourceSample]) -> tuple[list[LanguageMix | None], str]:
    """(languages of each source, a sentence that says how they were detected)."""
    identify = load_identifier()
    if identify is None:
        missing = "not measured: py3langid is not installed (pip install py3langid)"
        return [None] * len(samples), missing
    # Detection takes milliseconds for each document, so many sources get fewer documents each.
    most = max(50, LANGUAGE_DOCUMENTS * 2 // max(2, len(samples)))
    mixes = [
        language_mix((sample.texts[place] for place in sample.spread(most)), identify)
        for sample in samples
    ]
    looked_at = sum(mix.documents for mix in mixes if mix)
    basis = f"the middle of {looked_at:,} documents, judged by py3langid"
    return mixes, basis
