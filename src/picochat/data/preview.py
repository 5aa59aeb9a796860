"""`picochat data preview`: what a pack holds, on one screen, and whether it is enough for a scale.

Counts are exact where documents were imported (their manifest states them) or where the source is small enough to read as
a whole; otherwise they are scaled up from the sample, and said to be. Lengths, duplicates, scripts and tokens come from a
sample of at most SAMPLE_BYTES, spread over the files of every source. Writes nothing, decides nothing: preflight decides.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import xxhash

from picochat.config import DataConfig, parameter_count, step_tokens
from picochat.core.progress import quantity, say
from picochat.core.records import Record, read_record
from picochat.data.documents import file_path
from picochat.data.duplicates import near_duplicate_clusters
from picochat.data.import_report import ImportReport
from picochat.data.pack import LoadedPack, LoadedSource
from picochat.data.rows import format_of, parquet_metadata, read_rows, text_problem
from picochat.scales import Scale

SAMPLE_BYTES = 5_000_000
SAMPLE_FILES = 24  # of one source
SCRIPT_CHARACTERS = 200_000
SHOWN_DOCUMENTS = 2
SHOWN_CHARACTERS = 140
PERCENTILES = (5, 25, 50, 75, 95)
MEASURED_EVERY = 10  # one document in ten is measured and not trained on
# What preflight's corpus_model_fit and base_exposure warn and block at; shown here before anybody runs it.
EPOCHS_WARN = 4.0
EPOCHS_BLOCK = 16.0


class SourcePreview(Record):
    """One source. `exact`: documents and text_bytes were counted, not scaled up. Lengths are in characters."""

    label: str
    origin: str
    licence: str | None
    files: int
    weight: float
    exact: bool
    documents: int
    text_bytes: int
    sampled_documents: int
    sampled_bytes: int
    mean_characters: float
    percentiles: dict[str, float]
    unusable_rows: dict[str, int]
    skipped_at_import: dict[str, int]
    ascii_letter_share: float | None
    scripts: dict[str, float]
    bytes_per_token: float | None
    tokens: int | None
    samples: list[str]


class ScaleFit(Record):
    """What the pack means for a scale. `epochs`: planned tokens over the tokens of the training split; None: unmeasured."""

    scale: str
    parameters: int
    planned_tokens: int
    target_tokens: int
    train_tokens: int | None
    epochs: float | None
    verdict: str


class Preview(Record):
    schema_version: int
    pack: str
    name: str
    documents: int
    text_bytes: int
    exact_duplicate_share: float | None
    near_duplicate_share: float | None
    duplicates_basis: str
    tokens_basis: str
    sft_rows: str
    eval_rows: str
    sources: list[SourcePreview]
    fit: ScaleFit


@dataclass
class _Sample:
    """Texts read of one source, and how much of its files that was."""

    texts: list[str] = field(default_factory=list)
    unusable: Counter[str] = field(default_factory=Counter)
    file_bytes: float = 0.0
    complete: bool = False

    @property
    def text_bytes(self) -> int:
        return sum(len(text.encode()) for text in self.texts)


def preview_pack(pack: LoadedPack, scale: Scale, sample_bytes: int = SAMPLE_BYTES) -> Preview:
    """Reads a bounded sample of every source and measures it. Raises BadInput where a file is broken."""
    share = sample_bytes // len(pack.sources)
    samples = [_sample_source(source, share, scale.config.data) for source in pack.sources]
    say(f"measuring a sample of {quantity(sum(sample.text_bytes for sample in samples))}B")
    rates, tokens_basis = _bytes_per_token(samples, scale.config.tokenizer.vocab_size)
    sources = [_describe(*item) for item in zip(pack.sources, samples, rates, strict=True)]
    texts = [text for sample in samples for text in sample.texts]
    return Preview(
        schema_version=1,
        pack=str(pack.path),
        name=pack.name,
        documents=sum(source.documents for source in sources),
        text_bytes=sum(source.text_bytes for source in sources),
        exact_duplicate_share=_exact_share(texts),
        near_duplicate_share=_near_share(texts, scale.config.data.near_duplicate_jaccard),
        duplicates_basis="all documents" if all(sample.complete for sample in samples) else f"{len(texts):,} sampled documents",
        tokens_basis=tokens_basis,
        sft_rows=_rows_state(pack, "chat"),
        eval_rows=_rows_state(pack, "eval"),
        sources=sources,
        fit=fit_scale(sources, scale),
    )


def fit_scale(sources: list[SourcePreview], scale: Scale) -> ScaleFit:
    """Planned tokens against the training tokens there are, and what follows."""
    config = scale.config
    planned = config.base.steps * step_tokens(config.base, config.model)
    parameters = parameter_count(config.model, config.tokenizer.vocab_size)
    known = [source.tokens for source in sources if source.tokens is not None]
    text_bytes = sum(source.text_bytes * source.weight for source in sources)
    train: int | None = None
    if known and len(known) == len(sources) and text_bytes:
        held_out = min(config.data.held_out_share, config.data.held_out_bytes / text_bytes)
        train = round(sum(known) * (1 - held_out))
    epochs = planned / train if train else None
    return ScaleFit(
        scale=scale.name,
        parameters=parameters,
        planned_tokens=planned,
        target_tokens=round(parameters * config.gate.target_tokens_per_parameter),
        train_tokens=train,
        epochs=epochs,
        verdict=_verdict(planned, train, sources),
    )


def render_preview(preview: Preview) -> str:
    """The preview for people, in lines of at most some 110 characters."""
    lines = [f"pack {preview.name}: {preview.documents:,} documents, {quantity(preview.text_bytes)}B of text", ""]
    for source in preview.sources:
        lines += _source_lines(source)
    lines += [
        f"duplicates   exact {_percent(preview.exact_duplicate_share)}, near {_percent(preview.near_duplicate_share)} "
        f"(of {preview.duplicates_basis})",
        f"SFT rows     {preview.sft_rows}",
        f"eval rows    {preview.eval_rows}",
        f"tokens       {preview.tokens_basis}",
        "",
        *_fit_lines(preview.fit),
    ]
    return "\n".join(lines) + "\n"


def _sample_source(source: LoadedSource, budget: int, data: DataConfig) -> _Sample:
    """Texts from files that lie evenly over the source; all of it where it fits the budget."""
    sample = _Sample()
    min_chars = max(data.min_chars, source.min_chars or 1)
    known_bytes = source.manifest.text_bytes if source.manifest else sum(file.bytes for file in source.files)
    whole = known_bytes <= budget
    step = 1 if whole else max(1, len(source.files) // SAMPLE_FILES)
    chosen = source.files[::step]
    # A compressed file may hold more text than it has bytes, so the budget bounds the reading even of a whole source.
    per_file = budget if whole else budget // len(chosen)
    sample.complete = whole
    for file in chosen:
        read_all, file_bytes = _sample_file(source, file.name, per_file, min_chars, sample)
        sample.file_bytes += file_bytes
        sample.complete = sample.complete and read_all
    return sample


def _sample_file(source: LoadedSource, name: str, budget: int, min_chars: int, sample: _Sample) -> tuple[bool, float]:
    """(whether the whole file was read, how many of its bytes that took, estimated where it was not)."""
    path = file_path(source.path, name)
    size, taken, rows = path.stat().st_size, 0, 0
    with path.open("rb") as stream:
        in_file = parquet_metadata(stream, str(path)).num_rows if format_of(name) == "parquet" else None
        for row in read_rows(stream, str(path)):
            rows += 1
            problem = text_problem(row.text)
            text = row.text if isinstance(row.text, str) else ""
            if problem is None and len(text) < min_chars:
                problem = "below_min_chars"
            if problem is not None:
                sample.unusable[problem] += 1
                continue
            sample.texts.append(text)
            taken += len(text.encode())
            if taken >= budget:
                break
        else:
            return True, size
        return False, size * rows / in_file if in_file else min(size, stream.tell())


def _describe(source: LoadedSource, sample: _Sample, bytes_per_token: float | None) -> SourcePreview:
    documents, text_bytes, exact = _totals(source, sample)
    provenance = source.manifest.provenance if source.manifest else None
    report_path = source.report_path()
    report = read_record(ImportReport, report_path, "import report") if report_path else None
    lengths = np.array([len(text) for text in sample.texts], dtype=np.int64)
    ascii_share, scripts = script_mix(sample.texts)
    weighted = text_bytes * source.weight
    origin = f"{provenance.dataset}, {provenance.config or provenance.split}" if provenance else str(source.path)
    return SourcePreview(
        label=source.label,
        origin=f"{origin} at {provenance.revision[:18]}" if provenance else origin,
        licence=provenance.licence if provenance else None,
        files=len(source.files),
        weight=source.weight,
        exact=exact,
        documents=documents,
        text_bytes=text_bytes,
        sampled_documents=len(sample.texts),
        sampled_bytes=sample.text_bytes,
        mean_characters=float(lengths.mean()) if len(lengths) else 0.0,
        percentiles={f"p{p}": float(np.percentile(lengths, p)) for p in PERCENTILES} if len(lengths) else {},
        unusable_rows=dict(sorted(sample.unusable.items())),
        skipped_at_import=report.skip_reasons if report else {},
        ascii_letter_share=ascii_share,
        scripts=scripts,
        bytes_per_token=bytes_per_token,
        # One more token for each document: the one that opens it.
        tokens=round(weighted / bytes_per_token + documents * source.weight) if bytes_per_token else None,
        samples=[_shortened(text) for text in sample.texts[:: max(1, len(sample.texts) // SHOWN_DOCUMENTS)][:SHOWN_DOCUMENTS]],
    )


def _totals(source: LoadedSource, sample: _Sample) -> tuple[int, int, bool]:
    """(documents, text bytes, whether they were counted)."""
    if source.manifest is not None and len(source.files) == len(source.manifest.shards):
        return source.manifest.documents, source.manifest.text_bytes, True
    if sample.complete:
        return len(sample.texts), sample.text_bytes, True
    factor = sum(file.bytes for file in source.files) / sample.file_bytes if sample.file_bytes else 0.0
    return round(len(sample.texts) * factor), round(sample.text_bytes * factor), False


def script_mix(texts: Iterable[str]) -> tuple[float | None, dict[str, float]]:
    """(share of ASCII among letters, the largest scripts with their shares of letters), from the heads of the texts."""
    counts: Counter[str] = Counter()
    ascii_letters = left = 0
    left = SCRIPT_CHARACTERS
    for text in texts:
        head = text[: min(2_000, left)]
        left -= len(head)
        for character, count in Counter(head).items():
            script = _script(character)
            if script is not None:
                counts[script] += count
                ascii_letters += count * character.isascii()
        if left <= 0:
            break
    letters = sum(counts.values())
    if not letters:
        return None, {}
    return ascii_letters / letters, {script: count / letters for script, count in counts.most_common(4)}


@lru_cache(maxsize=100_000)
def _script(character: str) -> str | None:
    """The first word of a letter's Unicode name (LATIN, CYRILLIC, CJK ...); None for what is no letter."""
    return unicodedata.name(character, "UNNAMED").split()[0] if character.isalpha() else None


def _exact_share(texts: list[str]) -> float | None:
    """Share of the texts that stood before."""
    return 1 - len({xxhash.xxh3_128_digest(text.encode()) for text in texts}) / len(texts) if texts else None


def _near_share(texts: list[str], jaccard: float) -> float | None:
    """Share of the different texts that lie in a near-duplicate cluster, beyond the first of each."""
    different = list(dict.fromkeys(texts))
    clusters = near_duplicate_clusters(different, jaccard)
    return sum(len(cluster) - 1 for cluster in clusters) / len(different) if different else None


def _bytes_per_token(samples: list[_Sample], vocab_size: int) -> tuple[list[float | None], str]:
    """(bytes per token of each source, what that was measured with): a tokenizer trained on nine tenths of the sample."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    trained = [text for sample in samples for index, text in enumerate(sample.texts) if index % MEASURED_EVERY]
    tokenizer.train_from_iterator(trained, trainer)
    rates: list[float | None] = []
    for sample in samples:
        measured = sample.texts[::MEASURED_EVERY] if trained else []
        tokens = sum(len(found.ids) for found in tokenizer.encode_batch_fast(measured))
        rates.append(sum(len(text.encode()) for text in measured) / tokens if tokens else None)
    trained_bytes = quantity(sum(len(text.encode()) for text in trained))
    basis = (
        f"estimated with a byte-level BPE of {tokenizer.get_vocab_size():,} trained on {trained_bytes}B of this sample and "
        "measured on the rest; the run trains its own on more"
    )
    return rates, basis


def _verdict(planned: int, train: int | None, sources: list[SourcePreview]) -> str:
    if not train:
        return "unmeasured: the sample holds too little text"
    epochs = planned / train
    if epochs < 0.25:
        return f"more than enough: {1 - epochs:.0%} of the text would never be read"
    if epochs <= EPOCHS_WARN:
        return "enough"
    growing = max(sources, key=lambda source: source.tokens or 0)
    a_document = (growing.tokens or 0) / growing.documents if growing.documents else 0.0
    rows = round((planned / EPOCHS_WARN - train) / a_document) if a_document else 0
    word = "too small: preflight will block" if epochs > EPOCHS_BLOCK else "small: preflight will warn"
    return f"{word}; about {rows:,} more documents like {growing.label}'s make it {EPOCHS_WARN:.0f} epochs"


def _rows_state(pack: LoadedPack, key: str) -> str:
    path = pack.chat_path if key == "chat" else pack.eval_path
    if path is not None:
        with path.open("rb") as stream:
            rows = sum(1 for line in stream if line.strip())
        if rows:
            return f"{rows:,} in {path.name}"
    return f"none yet: picochat data task-pack --dataset-pack {pack.path}"


def _source_lines(source: SourcePreview) -> list[str]:
    about = "" if source.exact else "about "
    lengths = ", ".join(f"{name} {quantity(value)}" for name, value in source.percentiles.items())
    scripts = ", ".join(f"{name} {share:.1%}" for name, share in source.scripts.items())
    lines = [
        f"{source.label}   {source.origin}; licence {source.licence or 'not stated'}",
        f"  documents  {about}{source.documents:,}, {about}{quantity(source.text_bytes)}B in {source.files:,} files, weight {source.weight:g}",
        f"  sample     {source.sampled_documents:,} documents, {quantity(source.sampled_bytes)}B",
        f"  length     mean {quantity(source.mean_characters)} characters; {lengths}",
        f"  letters    {_percent(source.ascii_letter_share)} ASCII; {scripts or 'none'}",
    ]
    if source.bytes_per_token and source.tokens is not None:
        lines.append(f"  tokens     about {quantity(source.tokens)} at {source.bytes_per_token:.2f} bytes per token")
    for title, counts in (("unusable", source.unusable_rows), ("skipped", source.skipped_at_import)):
        if counts:
            lines.append(f"  {title:<10} " + ", ".join(f"{count:,} {reason}" for reason, count in counts.items()))
    return [*lines, *(f"  | {text}" for text in source.samples), ""]


def _fit_lines(fit: ScaleFit) -> list[str]:
    tokens = f"{quantity(fit.train_tokens)} training tokens here" if fit.train_tokens else "training tokens not measured"
    epochs = f" = {fit.epochs:.2f} epochs" if fit.epochs else ""
    return [
        f"{fit.scale}   {quantity(fit.parameters)} parameters, target {quantity(fit.target_tokens)} tokens",
        f"  plan       {quantity(fit.planned_tokens)} planned tokens over {tokens}{epochs}",
        f"  verdict    {fit.verdict}",
    ]


def _percent(share: float | None) -> str:
    return "not measured" if share is None else f"{share:.1%}"


def _shortened(text: str) -> str:
    line = " ".join(text[: 3 * SHOWN_CHARACTERS].split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 3] + "..."
