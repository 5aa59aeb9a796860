"""The typed facts of artifacts, and `RunFacts`, which holds those of one run.

The manifest of an artifact states its facts as one of these records. None means that a fact was not
measured, which no check takes for a pass. The `facts_from` of each stage computes its facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from picochat.config import RunConfig
from picochat.core.publish import Artifact, FileDigest
from picochat.core.records import Record, parse_record

StateName = Annotated[str, Field(pattern=r"^(parts/)?[A-Za-z0-9_-][A-Za-z0-9_.-]*$")]

# ---- facts, in the order of the stages -----------------------------------------------------------


class SourceFacts(Record):
    """One source of the recipe.

    `pinned`: its exact revision is on record, or the digests of local files.
    """

    label: str
    kind: Literal["hub", "files"]
    documents: int
    text_bytes: int
    pinned: bool
    licence: str | None
    import_report: bool


class DuplicatePair(Record):
    """Counts of documents of `source` that repeat one of `of`; both can be the same source."""

    source: str
    of: str
    exact: int
    near: int


class CorpusFacts(Record):
    """Counts of documents: `documents` = read - dropped = train + held out."""

    documents_read: int
    documents: int
    train_documents: int
    held_out_documents: int
    text_bytes: int
    train_text_bytes: int
    held_out_text_bytes: int
    repeated_ids: int = Field(
        description="rows with the id of an earlier row of their source; FILE#ROW is theirs"
    )
    exact_duplicates: int = Field(
        description="dropped, because an earlier document has the same text"
    )
    near_duplicates: int = Field(
        description="in near-duplicate clusters, without the first of each"
    )
    dropped: dict[str, int] = Field(description="reason -> documents")
    duplicates: list[DuplicatePair] = Field(description="the two counts above, by pair of sources")
    held_out_fraction: float
    sources: list[SourceFacts]


class ExercisesFacts(Record):
    """Sheets of skill exercises that the base stage also trains on; all 0 if there are none."""

    fraction_asked: float = Field(
        description="of the training tokens; the shards state the exact count"
    )
    documents: int
    text_bytes: int
    words: int = Field(description="that are spelled, made-up ones included; none is held out")


class RowsLeftOut(Record):
    """The rows that were left out for one reason."""

    rows: int
    first_line: int


class RowsRead(Record):
    """What became of the rows of a file of SFT or eval rows."""

    forms: dict[str, int] = Field(description="rows used, by form")
    left_out: dict[str, RowsLeftOut] = Field(description="reason -> rows that were left out")
    dropped_keys: dict[str, int] = Field(description="key that is not read -> rows that have it")


class EvalCell(Record):
    """Eval rows of one skill and level, all to be answered or all to be refused."""

    skill: str
    level: str | None
    answerable: bool
    rows: int
    items: dict[str, int] = Field(description="rows of an item -> items with so many")


class RowSource(Record):
    """Where SFT rows that picochat did not make come from. None: not on record."""

    label: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$", description="its name, unique in the pack"
    )
    dataset: str | None = Field(default=None, description="of the Hub: OWNER/NAME")
    config: str | None = Field(default=None, description="of the dataset")
    revision: str | None = Field(default=None, description="the commit that was read")
    licence: str | None = Field(default=None, description="licence of the rows, such as CC-BY-4.0")


class RowsFacts(Record):
    """The SFT and eval rows, by skill (identity, refusal, choice, math, spelling, other)."""

    chat_read: RowsRead = Field(description="the pack's file of SFT rows, as it was read")
    eval_read: RowsRead = Field(description="the pack's file of eval rows, as it was read")
    sft_turns: int = Field(description="turns of the assistant in the SFT rows")
    eval_scored_by: dict[str, int] = Field(description="kind of rule -> eval rows that it decides")

    sft_train_rows: int
    sft_held_out_rows: int
    eval_rows: int
    sft_by_skill: dict[str, int]
    eval_by_skill: dict[str, int]
    eval_items_by_skill: dict[str, int] = Field(
        description="independent: number pairs, words, facts, prompt groups"
    )
    repeated_sft_prompts: int = Field(description="SFT rows with the prompt of an earlier row")
    eval_rows_without_rule: int = Field(description="eval rows that no reply could fail")
    shared_items: int = Field(description="eval items that the SFT rows contain")
    eval_cells: list[EvalCell] = Field(
        default=[],
        description="the eval rows of the skills by what the gate's rules count together",
    )
    sources: list[RowSource] = Field(
        default=[], description="of the SFT rows, as the pack states them"
    )


class BenchmarkFacts(Record):
    """One external benchmark. Dataset, config, split and revision are None for a local file."""

    layout: str
    read_by: Literal["acc", "acc_norm"] = Field(description="the accuracy that the gate reads")
    dataset: str | None
    config: str | None
    split: str | None
    revision: str | None
    licence: str | None
    files: dict[str, str] = Field(description="name -> sha256, in reading order")
    rows_read: int
    unusable: dict[str, int] = Field(description="reason -> rows that cannot be scored")
    usable_rows: int
    rows: int = Field(description="scored: all usable ones, or a fixed sample")
    chance: float | None = Field(description="mean of 1 / options; None without scored rows")


class BenchmarksFacts(Record):
    """External benchmarks by name.

    `unresolved`: asked for, but not available on this machine; the next run tries again.
    """

    benchmarks: dict[str, BenchmarkFacts]
    unresolved: list[str]


class TokenizerFacts(Record):
    vocab_size: int
    merges: int


class ShardsFacts(Record):
    """Counts of the token shards. The training counts include the exercises."""

    train_tokens: int
    held_out_tokens: int
    train_documents: int
    held_out_documents: int
    train_text_bytes: int
    held_out_text_bytes: int
    roundtrip_documents: int = Field(description="a sample that was encoded, decoded and compared")
    roundtrip_failures: int
    exercise_documents: int = Field(default=0, description="of train_documents")
    exercise_tokens: int = Field(default=0, description="of train_tokens")


class ConversationsFacts(Record):
    """The SFT rows as tokens: ids and loss masks."""

    rows: int
    tokens: int
    target_tokens: int
    longest_row_tokens: int
    rows_over_context: int
    eval_rows_over_context: dict[str, int] = Field(
        default={},
        description="by skill, eval rows that do not fit: not asked, and counted as failed",
    )


class HonestyFacts(Record):
    """What the contamination scan found. Lists of row ids are sorted."""

    corpus_text_bytes: int = Field(description="corpus and exercises")
    scanned_text_bytes: int
    scanned_documents: int
    eval_rows: int
    sft_exact_prompts: int = Field(description="eval prompts that the SFT rows contain")
    sft_largest_coverage: float = Field(
        description="largest fraction of a prompt's 8-grams in one SFT row, without the template"
    )
    corpus_contaminated_by_skill: dict[str, int] = Field(
        description="eval rows found in the corpus"
    )
    eval_by_skill: dict[str, int]
    external_rows: dict[str, int]
    external_contaminated: dict[str, int] = Field(description="benchmark rows found in the corpus")
    contaminated_external_rows: dict[str, list[str]] = Field(
        default={}, description="row ids found in the corpus or in the SFT rows, by benchmark"
    )
    contaminated_eval_rows: list[str]


class Rate(Record):
    """`passed` of `count`, with the 95% Wilson interval; the fractions are None if count is 0."""

    passed: int
    count: int
    fraction: float | None
    low: float | None
    high: float | None


class TrivialScore(Record):
    """What one trivial answerer, which understands nothing, gets right of a skill's eval rows."""

    answerer: str
    line: str | None = Field(description="the reply, if it is the same to every row")
    all: Rate
    levels: dict[str, Rate]
    unanswerable: Rate = Field(description="of the rows that must be refused")
    answerable: Rate


class TrivialFacts(Record):
    """The scores of trivial answerers, by skill, best first; a skill without eval rows has none."""

    skills: dict[str, list[TrivialScore]]
    text_bytes: int = Field(description="of the corpus, in which options were counted")
    documents: int


class HostFacts(Record):
    """Measurements of real steps of this scale on this device. They are never part of a digest."""

    device_name: str
    attention_backend: str = Field(description="asked for, or chosen by `auto`")
    attention_error: float | None = Field(
        description="largest relative error against float32 math, forward and backward"
    )
    attention_problem: str | None
    attention_ways: list[str] = Field(
        default=[], description="every way to compute attention that was tried"
    )
    devices: int = Field(default=1, description="training processes, one for each device")
    tokens_per_second: float | None = Field(
        description=(
            "of all devices, at the median step; measured on one device, without communication"
        )
    )
    tokens_per_second_low: float | None = Field(
        default=None, description="one step in ten is slower"
    )
    tokens_per_second_high: float | None = Field(
        default=None, description="one step in ten is faster"
    )
    micro_batch: int | None = Field(
        default=None, description="sequences of one forward and backward pass that fit"
    )
    mfu: float | None = Field(
        description="non-causal convention; None if the device's peak is not known"
    )
    peak_memory_bytes: int | None
    free_memory_fraction: float | None = Field(
        description="device memory left free at the peak of a real step"
    )
    free_disk_bytes: int
    memory_bytes: int | None = Field(default=None, description="main memory of the host")
    compile_s: float | None = Field(description="what the first step took beyond the median")
    forward_tokens_per_second: float | None = Field(
        default=None, description="of a held-out evaluation, on all devices"
    )
    save_s: float | None = Field(
        default=None, description="that a step waits while the training state is copied"
    )
    measured_steps: int
    measured_sequences: int = Field(
        default=0, description="in each measured step; fewer than in training on a slow CPU"
    )
    measured_loss: float | None = Field(default=None, description="of the last measured step")


class FindingRecord(Record):
    """One finding of a verdict: what was measured, its bound, and what fixes a miss."""

    name: str
    status: Literal["pass", "warn", "block", "unmeasured"]
    measured: float | None
    unit: str
    bound: str
    message: str
    fix: str | None
    on_host: bool = Field(
        default=False, description="depends on the machine, so it stays out of digests"
    )


class PreflightFacts(Record):
    """The verdict before training, without host measurements (preflight.json has them)."""

    status: Literal["ready", "warn", "blocked"]
    profile: str
    findings: list[FindingRecord]


class TrainFacts(Record):
    """One trained checkpoint. Losses are in nats per token."""

    stage: Literal["base", "sft"]
    steps: int
    planned_steps: int
    tokens: int
    parameters: int
    first_loss: float | None
    final_loss: float | None
    losses_finite: bool
    spikes: int
    skipped_steps: int = Field(
        default=0, description="steps whose rows were skipped, by going back after a spike"
    )
    scored_step: int = Field(description="the step whose weights this checkpoint holds")
    held_out_loss: float | None = Field(
        description="at the scored step, on the whole held-out set of the stage"
    )
    held_out_bits_per_byte: float | None
    largest_centre_error: float | None = Field(
        description="largest |mean| over all projected groups"
    )
    states: str | None = Field(
        default=None,
        description="sha256 of the rows of states.jsonl of evaluations, as canonical JSON",
    )


def state_name(step: int) -> str:
    """The folder of the state that was saved after this step."""
    return f"step-{step:07d}"


class StateRow(Record):
    """One line of `states.jsonl`: a train state as it was saved, also one that is deleted since.

    Rows stand in the order of their steps. What a rollback trained again has only its later row.
    """

    step: int
    skipped: int = Field(description="steps whose rows were skipped up to here")
    files: dict[StateName, FileDigest] = Field(description="the files of its folder")

    @property
    def in_parts(self) -> bool:
        """Whether several processes wrote it, each a part: the published one is then whole."""
        return any(name.startswith("parts/") for name in self.files)


MetricsEvent = Literal["started", "report", "evaluation", "spike", "rollback", "saved", "resumed"]


class MetricsRow(Record):
    """One line of `metrics.jsonl`, which a training stage writes while it runs.

    A line has the fields of its `event`; the others are None.
    """

    event: MetricsEvent
    step: int = Field(description="finished steps; started: those of earlier processes")
    time: float = Field(description="seconds since 1970")
    tokens: int | None = Field(default=None, description="report: trained on so far")
    loss: float | None = Field(
        default=None, description="report, spike: of this step, in nats per token"
    )
    grad_norm: float | None = Field(
        default=None, description="report: global norm of this step, before clipping"
    )
    muon_lr: float | None = Field(default=None, description="report: of this step, for matrices")
    adamw_lr: float | None = Field(
        default=None, description="report: of this step, for what AdamW trains"
    )
    tokens_per_second: float | None = Field(
        default=None, description="report: since the last report, without evaluations"
    )
    mfu: float | None = Field(
        default=None,
        description=(
            "report: fraction of the device's dense bf16 peak, non-causal convention; absent if"
            " the peak is not known"
        ),
    )
    peak_memory_bytes: int | None = Field(
        default=None, description="report: so far; allocated on a GPU, resident on a CPU"
    )
    data_wait_fraction: float | None = Field(
        default=None, description="report: of the time, spent waiting for rows"
    )
    stage_seconds: float | None = Field(
        default=None,
        description="report: spent in this stage, earlier processes and evaluations included",
    )
    seconds_left: float | None = Field(
        default=None, description="report: at the speed of the latest reports, evaluations included"
    )
    usd_spent: float | None = Field(
        default=None, description="report: stage_seconds at gate.gpu_hour_usd, if it is set"
    )
    usd_left: float | None = Field(
        default=None, description="report: seconds_left at the same price"
    )
    held_out_loss: float | None = Field(
        default=None, description="evaluation: nats per target of the held-out set"
    )
    held_out_bits_per_byte: float | None = Field(
        default=None, description="evaluation: of raw text, if bytes are counted"
    )
    seconds: float | None = Field(
        default=None,
        description=(
            "evaluation: its duration; saved: how long training waited; started: from process start"
            " to second step"
        ),
    )
    parts: dict[str, float] | None = Field(
        default=None,
        description=(
            "started: seconds of each part; before_stage: interpreter, imports, earlier stages;"
            " first_report: opening trackers; first_step: compiling and warming up too"
        ),
    )
    planned_steps: int | None = Field(default=None, description="started: of the whole stage")
    mean_loss: float | None = Field(default=None, description="spike: the running mean of the loss")
    spikes: int | None = Field(
        default=None, description="spike: how many so far, this one included"
    )
    rollbacks: int | None = Field(
        default=None,
        description="rollback: how many so far, this one included; step is where it went back to",
    )
    from_step: int | None = Field(default=None, description="rollback: the step of the spike")


class SkillScore(Record):
    """One skill on the eval rows. `clean` leaves out rows that the contamination scan found."""

    all: Rate
    clean: Rate
    base: Rate = Field(description="the base model, before SFT, on the same rows")
    chance: float
    levels: dict[str, Rate]


class ExternalScore(Record):
    """The score on one external benchmark.

    `all`, `clean` and `base` use the accuracy named by `read_by`. `clean` leaves out rows that the
    contamination scan found. If one row has no finite score, nothing is counted: a part of a
    benchmark is not a measurement of it.
    """

    all: Rate
    clean: Rate
    chance: float | None
    base: Rate | None = Field(
        default=None, description="the base model, before SFT, on the same rows"
    )
    read_by: Literal["acc", "acc_norm"] = "acc_norm"
    acc: Rate | None = Field(default=None, description="by the largest log-likelihood of an option")
    acc_norm: Rate | None = Field(
        default=None, description="by the largest log-likelihood over an option's characters"
    )
    cut_rows: int = Field(
        default=0, description="rows longer than the context, read without their beginning"
    )
    too_long_rows: int = Field(
        default=0, description="rows with an option longer than the context, counted as failed"
    )


class OwnScore(Record):
    """The rows of one category that belong to no skill; rows without a rule are only counted."""

    all: Rate
    clean: Rate
    base: Rate = Field(description="the base model, before SFT, on the same rows")
    not_scored: int = Field(description="rows without a rule that a reply could fail")


class ScoresFacts(Record):
    """The scores, computed from replies and likelihoods in files alone, without a model."""

    base_bits_per_byte: float | None
    sft_bits_per_byte: float | None
    ngram_bits_per_byte: float | None
    ngram_train_tokens: int = Field(description="that the 5-gram baseline was trained on")
    skills: dict[str, SkillScore]
    own: dict[str, OwnScore] = Field(
        default={}, description="rows that belong to no skill of the project, by category"
    )
    sft_fit: Rate
    sft_held_out_fit: Rate
    refusal: Rate = Field(description="unsafe or unanswerable prompts that were refused")
    over_refusal: Rate = Field(description="benign look-alikes that were answered")
    choice_listed: Rate = Field(description="rows of a choice with the options in the prompt")
    prompt_echo: Rate
    unsupported_claims: Rate
    memorized: Rate = Field(
        description="sampled training prefixes continued word for word for 50 tokens"
    )
    scored_checkpoint: str = Field(description="digest of the SFT checkpoint that gave the replies")
    external: dict[str, ExternalScore] = Field(
        default={}, description="by benchmark; empty: none was run"
    )


class ParityFacts(Record):
    """The export against the model, both in float32 on the same weights."""

    reader: str | None = Field(
        description="library and version that read the export back; None: it was not read back"
    )
    largest_relative_difference: float | None
    greedy_tokens_equal: bool | None
    other_differences: int | None = Field(
        description="of weights' names, token ids, greedy tokens and the end of a reply"
    )


class GateFacts(Record):
    status: Literal["approved", "warn", "blocked"]
    profile: str
    findings: list[FindingRecord]
    weakest_skill: str | None


class PlanRecord(Record):
    """What the run would train on and cost. `hours` needs a speed measured on this host."""

    parameters: int
    planned_tokens: int
    target_tokens: int
    train_tokens: int | None
    exercise_fraction: float | None
    planned_epochs: float | None
    baseline_tokens: int | None = Field(
        default=None, description="training tokens that the 5-gram baseline will count"
    )
    hours: float | None
    usd: float | None
    hours_of: dict[str, float]


class PreflightReport(Record):
    """preflight.json: the whole verdict, host measurements included."""

    schema_version: int
    status: Literal["ready", "warn", "blocked"]
    profile: str
    long_run: bool
    plan: PlanRecord
    findings: list[FindingRecord]


class GateReport(Record):
    """gate.json: the verdict on a finished run."""

    schema_version: int
    status: Literal["approved", "warn", "blocked"]
    profile: str
    weakest_skill: str | None
    findings: list[FindingRecord]


# ---- a run as one value --------------------------------------------------------------------------


@dataclass(frozen=True)
class RunFacts:
    """The configuration of a run and the facts of its artifacts; None: there is no such artifact.

    Every verdict, page, card and comparison reads this. `read_facts` of run/graph.py makes it.

    artifacts: those that the facts were read from, by kind.
    host, preflight_report: read from volatile files; `preflight` is equal on every host.
    shipped_checkpoint: digest of the SFT checkpoint.
    changed_files: files that differ from their manifest; None: not counted.
    """

    config: RunConfig
    artifacts: Mapping[str, Artifact] = field(default_factory=dict[str, Artifact])
    corpus: CorpusFacts | None = None
    exercises: ExercisesFacts | None = None
    rows: RowsFacts | None = None
    benchmarks: BenchmarksFacts | None = None
    tokenizer: TokenizerFacts | None = None
    shards: ShardsFacts | None = None
    conversations: ConversationsFacts | None = None
    honesty: HonestyFacts | None = None
    trivial: TrivialFacts | None = None
    host: HostFacts | None = None
    preflight: PreflightFacts | None = None
    preflight_report: PreflightReport | None = None
    base: TrainFacts | None = None
    sft: TrainFacts | None = None
    scores: ScoresFacts | None = None
    parity: ParityFacts | None = None
    gate: GateFacts | None = None
    shipped_checkpoint: str | None = None
    changed_files: int | None = None

    def licences(self) -> dict[str, str | None]:
        """name -> licence of each source of text and of SFT rows; empty without sources of text."""
        if not self.corpus or not self.corpus.sources:
            return {}
        found = {source.label: source.licence for source in self.corpus.sources}
        rows = self.rows.sources if self.rows else []
        return found | {f"rows of {source.label}": source.licence for source in rows}


REPLAY_FOLDER = "replay"
"""Folder in a base checkpoint with the training state at the evaluation before the last.

A run that was evaluated only at its end has none.
"""
STATES = "states.jsonl"
"""Journal in a checkpoint with the digests of every state that was saved."""

F = TypeVar("F", bound=Record)


def facts_of(artifact: Artifact, model: type[F]) -> F:
    """The artifact's facts as `model`. Raises BadInput if the manifest's facts do not fit it."""
    return parse_record(model, artifact.facts, f"facts of {artifact.kind} {artifact.place}")
