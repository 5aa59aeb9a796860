"""Every setting of a run, in the order in which the stages use them.

A run's configuration is one frozen `RunConfig`. A scale overrides the defaults below, and the
command line overrides the scale (a flag, or `--set section.key=value`, but not both for one key).
`run.json` records every value with its origin. None means off, unless a description says otherwise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from shlex import quote
from typing import Any, Literal, cast

from pydantic import Field, PositiveInt, ValidationError, field_validator, model_validator

from picochat.core.errors import Problem, WrongUsage, did_you_mean
from picochat.core.records import Record

Tracker = Literal["tensorboard", "trackio", "wandb"]


class DataConfig(Record):
    """Which documents of the pack are kept, and which of them are held out."""

    min_chars: int = Field(default=1, ge=1, description="shorter documents are dropped and counted")
    drop_near_duplicates: bool = Field(
        default=False, description="drop all but the first document of each near-duplicate cluster"
    )
    near_duplicate_jaccard: float = Field(
        default=0.8,
        gt=0,
        lt=1,
        description="Jaccard similarity of word 5-shingles of near-duplicates",
    )
    held_out_fraction: float = Field(
        default=0.01, gt=0, le=0.2, description="fraction of documents that are never trained on"
    )
    held_out_bytes: PositiveInt = Field(
        default=8_000_000,
        description="held-out text at most, about: a larger corpus holds out a smaller fraction",
    )


class ExercisesConfig(Record):
    """Exercises of the skills that the base stage also trains on. They use SFT items alone."""

    fraction: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="of the training tokens, about; the token shards state the exact count",
    )


class TokenizerConfig(Record):
    vocab_size: int = Field(
        default=8192,
        ge=320,
        le=65536,
        description="special tokens and 256 bytes included; ids fit 16 bits",
    )
    train_bytes: PositiveInt = Field(
        default=60_000_000,
        description="text that the tokenizer is trained on: a seeded sample of documents",
    )


class ShardsConfig(Record):
    shard_tokens: PositiveInt = Field(default=100_000_000, description="tokens in one .bin file")


class ModelConfig(Record):
    """The shape of the transformer in model/gpt.py.

    It has parallel residual branches with one RMSNorm, grouped heads with QK-norm, RoPE, SwiGLU and
    tied embeddings.
    """

    context: PositiveInt = Field(default=512, description="longest sequence, in tokens")
    layers: PositiveInt = 16
    width: PositiveInt = 768
    heads: PositiveInt = Field(default=12, description="query heads")
    kv_heads: PositiveInt = Field(
        default=4, description="key and value heads, shared by groups of query heads"
    )
    head_width: PositiveInt = 64
    mlp_width: PositiveInt = Field(default=2048, description="SwiGLU width")
    rope_theta: float = Field(default=10_000.0, gt=1)
    norm_eps: float = Field(
        default=1e-6, gt=0, description="the same in every norm, in training and in the export"
    )
    init_std: float = Field(default=0.02, gt=0)
    centred: bool = Field(
        default=True,
        description="keep the residual stream at mean zero, so that stock classes load the weights",
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelConfig:
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})"
            )
        if self.head_width % 2:
            raise ValueError(f"head_width ({self.head_width}) must be even, for RoPE")
        return self


class CountsConfig(Record):
    """What the base stage takes from counts of its training text.

    model/counted_start.py and train/count_teacher.py say what they are.
    """

    start: bool = Field(
        default=True,
        description="weights start from counts of neighbouring tokens, not all from random numbers",
    )
    teacher: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description=(
            "how much of the targets of the first step is what usually follows the last two tokens;"
            " falls linearly"
        ),
    )
    teacher_until: float = Field(
        default=1.0, gt=0, le=1, description="fraction of the steps at whose end it has fallen to 0"
    )
    tokens: int = Field(
        default=10_000_000,
        ge=1_000,
        lt=2**31,
        description="training tokens that are counted, spread over all shards",
    )


class TrainConfig(Record):
    """One stage of training. Base and SFT use the same loop with different settings."""

    steps: PositiveInt
    sequences_per_step: PositiveInt = Field(
        default=128, description="of one optimizer step, over all micro-batches and processes"
    )
    micro_batch: PositiveInt | None = Field(
        default=None, description="sequences of one forward and backward pass; None: all of a step"
    )
    matrix_optimizer: Literal["muon", "adamw"] = "muon"
    muon_lr: float = Field(default=0.02, gt=0, description="peak for the matrices of the blocks")
    muon_momentum: float = Field(default=0.95, ge=0, lt=1)
    adamw_lr: float = Field(
        default=0.004,
        gt=0,
        description="peak for embedding and gains; with AdamW alone, for all weights",
    )
    adamw_beta1: float = Field(default=0.9, ge=0, lt=1)
    adamw_beta2: float = Field(default=0.95, ge=0, lt=1)
    weight_decay: float = Field(
        default=0.0, ge=0, description="decoupled, on matrices of the blocks only"
    )
    warmup_steps: int = Field(default=0, ge=0)
    decay_fraction: float = Field(
        default=0.6,
        ge=0,
        le=1,
        description="last fraction of the steps, in which the rate falls linearly",
    )
    final_lr_fraction: float = Field(
        default=0.0, ge=0, le=1, description="of the peak, at the last step"
    )
    grad_clip: float | None = Field(default=None, gt=0, description="largest global gradient norm")
    eval_every: PositiveInt | None = Field(
        default=None, description="steps between held-out evaluations; None: only at the end"
    )
    spike_factor: float = Field(
        default=2.0, gt=1, description="a spike is a loss above this many times its running mean"
    )
    spike_nats: float = Field(
        default=0.5,
        ge=0,
        description="a spike is also more than this above the mean, which can come close to zero",
    )
    spike_rollbacks: int = Field(
        default=0,
        ge=0,
        description="times that training may go back to the evaluation before a spike",
    )
    publish: Literal["last", "best"] = Field(
        default="last",
        description="publish the weights of the last step, or of the best held-out evaluation",
    )


class SftConfig(TrainConfig):
    """The SFT stage: as `base`, with text of the base stage beside the conversations on request."""

    text_sequences: int = Field(
        default=0,
        ge=0,
        description=(
            "of the sequences of a step, those that are text of the base stage and no conversation"
        ),
    )

    @property
    def conversations_per_step(self) -> int:
        return self.sequences_per_step - self.text_sequences

    @model_validator(mode="after")
    def _has_conversations(self) -> SftConfig:
        if self.conversations_per_step < 1:
            raise ValueError(
                f"text_sequences ({self.text_sequences}) must be smaller than sequences_per_step"
                f" ({self.sequences_per_step})"
            )
        return self


class EvalConfig(Record):
    max_new_tokens: PositiveInt = Field(default=64, description="of one reply")
    fit_rows: PositiveInt = Field(
        default=100,
        description="SFT rows that are asked, of the trained and of the held-out rows each",
    )
    batch_rows: PositiveInt = Field(default=128, description="rows that are generated together")
    ngram_train_tokens: PositiveInt = Field(
        default=50_000_000,
        lt=2**31,
        description="tokens that the 5-gram baseline is trained on, spread over all shards",
    )
    memorization_samples: PositiveInt = Field(
        default=64, description="training prefixes that the model is asked to continue"
    )


class ExternalConfig(Record):
    """Published benchmarks that the models are scored on."""

    benchmarks: tuple[str, ...] | None = Field(
        default=None,
        description=(
            "auto (ARC-Easy, HellaSwag and PIQA from the Hub), one of these names, or NAME=PATH of"
            " a file"
        ),
    )
    max_rows: int = Field(
        default=0, ge=0, description="of each benchmark, the same rows in every run; 0: all"
    )

    @field_validator("benchmarks")
    @classmethod
    def _named(cls, texts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if not texts or texts == ("none",):
            return None
        if "none" in texts or not all(
            re.fullmatch(r"[a-z0-9][a-z0-9_-]*(=.+)?", text) for text in texts
        ):
            raise ValueError(
                "auto, none by itself, a name, or name=path with a name of a-z, 0-9, - and _"
            )
        names = [text.partition("=")[0] for text in texts]
        if len(set(names)) < len(names):
            raise ValueError("a name is given twice")
        return texts


class HonestyConfig(Record):
    """Sizes of the contamination scan, in words of normalized text.

    A value above its default is refused, because longer runs of words would find less.
    """

    hit_words: PositiveInt = Field(default=13, le=13, description="words in a row that make a hit")
    coverage_words: PositiveInt = Field(
        default=8, le=8, description="words of an n-gram that the coverage counts"
    )


class GateConfig(Record):
    profile: Literal["research", "first_release", "skill_release"] = "research"
    license: str | None = Field(
        default=None,
        description="what the model shall be published under, such as mit; the preflight compares"
        " the licences of the sources with it",
    )
    target_tokens_per_parameter: float = Field(default=20.0, gt=0)
    gpu_hour_usd: float | None = Field(
        default=None, gt=0, description="price of one GPU for an hour"
    )
    budget_usd: float | None = Field(default=None, gt=0, description="the forecast warns above it")


class RuntimeConfig(Record):
    """How the numbers are computed.

    All of it can change the last bits, so all of it enters the keys of trained stages.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["float32", "bf16"] = "float32"
    matmul_precision: Literal["highest", "high", "medium"] = "high"
    attention_backend: Literal["auto", "flash", "cudnn", "efficient", "math", "fa3"] = "auto"
    compile: bool = False
    max_autotune: bool = Field(
        default=False,
        description="the compiler times more variants of each kernel: minutes once, then cached",
    )
    deterministic: bool = Field(
        default=False,
        description="the same bits each time on a GPU too, but slower; a CPU is deterministic",
    )
    threads: PositiveInt | None = Field(
        default=None, description="CPU threads of torch; None: one for each usable core"
    )
    sharding: Literal["replicated", "sharded"] = Field(
        default="replicated",
        description="each of several processes has all weights (DDP) or a part of each (FSDP2)",
    )
    activation_checkpointing: bool = Field(
        default=False,
        description="compute blocks again in the backward pass: less memory, more time",
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> RuntimeConfig:
        if self.max_autotune and self.deterministic:
            raise ValueError(
                "max_autotune picks kernels by the clock, which deterministic forbids: choose one"
            )
        return self


class HostConfig(Record):
    """Settings that change no result."""

    checkpoint_minutes: float = Field(default=5.0, gt=0)
    keep_states: bool = Field(
        default=False,
        description=(
            "keep every saved state of the base stage in base/states, for `run challenge`; one is"
            " two to three times as large as the weights"
        ),
    )
    workers: PositiveInt | None = Field(
        default=None, description="processes for data work; None: one for each usable core"
    )
    track: tuple[Tracker, ...] | None = Field(
        default=None, description="trackers that also get the metrics of training, as a JSON list"
    )


class RunConfig(Record):
    scale: str
    seed: int = Field(
        default=42, ge=0, lt=1 << 63, description="of splits, samples, skill rows and exercises"
    )
    training_seed: int = Field(
        default=42,
        ge=0,
        lt=1 << 63,
        description="of the first weights and the order of training rows; --seed sets both seeds",
    )
    data: DataConfig = DataConfig()
    exercises: ExercisesConfig = ExercisesConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    shards: ShardsConfig = ShardsConfig()
    model: ModelConfig = ModelConfig()
    counts: CountsConfig = CountsConfig()
    base: TrainConfig
    sft: SftConfig
    evals: EvalConfig = EvalConfig()
    external: ExternalConfig = ExternalConfig()
    honesty: HonestyConfig = HonestyConfig()
    gate: GateConfig = GateConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    host: HostConfig = HostConfig()


class ResolvedConfig(Record):
    """A configuration, and the origin of each value: default, scale, flag or set."""

    config: RunConfig
    origins: dict[str, str]


def parameter_count(model: ModelConfig, vocab_size: int) -> int:
    """Trained parameters. The tied embedding counts once, norm gains are included."""
    attention = 2 * model.width * model.head_width * (model.heads + model.kv_heads)
    block = attention + 3 * model.width * model.mlp_width + model.width + 2 * model.head_width
    return vocab_size * model.width + model.layers * block + model.width


def flops_per_token(model: ModelConfig, vocab_size: int) -> int:
    """FLOPs of forward and backward, non-causal: 6 N + 12 L T (heads x head width).

    As in PaLM (arXiv 2204.02311). N includes the output head; the embedding lookup is free.
    """
    gains = model.layers * (model.width + 2 * model.head_width) + model.width
    matrices = parameter_count(model, vocab_size) - gains
    return 6 * matrices + 12 * model.layers * model.context * model.heads * model.head_width


def step_tokens(train: TrainConfig, model: ModelConfig) -> int:
    return train.sequences_per_step * model.context


def is_long_run(config: RunConfig) -> bool:
    """Whether the preflight of a release profile blocks. A short run is only warned."""
    return config.base.steps >= 5_000


def flatten(config: RunConfig) -> dict[str, object]:
    """`section.key` -> value, in the order of this file."""
    flat: dict[str, object] = {}
    for section, value in config.model_dump(mode="json").items():
        if isinstance(value, dict):
            flat.update(
                {f"{section}.{key}": item for key, item in cast("dict[str, object]", value).items()}
            )
        else:
            flat[section] = value
    return flat


KNOWN_SETTINGS = "choose one of these settings: picochat scales --keys"


def resolve(
    scale: RunConfig,
    flags: Mapping[str, object],
    settings: Mapping[str, str],
    pack: Mapping[str, object] | None = None,
) -> ResolvedConfig:
    """The configuration of the scale, with what the pack asks for, flags and `--set` over it.

    flags: `section.key` -> value, where None means that the flag was not given. pack: `section.key`
    -> value; a flag or a `--set` of the same key wins.

    Raises WrongUsage that lists the unknown keys and those given both ways, else the wrong values.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    known = flatten(scale)
    failed = "the settings cannot be used"
    problems = [
        Problem(f"{key}: unknown setting{did_you_mean(key, known)}", fix=KNOWN_SETTINGS)
        for key in settings
        if key not in known
    ]
    if "scale" in settings:  # would change the name and none of the settings that it stands for
        problems.append(
            Problem("scale: names all settings at once", fix=f"--scale {quote(settings['scale'])}")
        )
    problems += [
        Problem(f"{key}: given both as a flag and by --set", fix="leave one of them out")
        for key in settings
        if key in given
    ]
    if problems:
        raise WrongUsage(failed, problems=problems)
    of_pack = {key: value for key, value in (pack or {}).items() if value != known[key]}
    overrides = {**of_pack, **given, **{key: _json_or_text(text) for key, text in settings.items()}}
    tree = scale.model_dump(mode="json")
    for key, value in overrides.items():
        section, _, name = key.rpartition(".")
        (tree[section] if section else tree)[name] = value
    try:
        config = RunConfig.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise WrongUsage(failed, problems=[_problem(item) for item in error.errors()]) from None
    defaults = flatten(
        RunConfig(scale=scale.scale, base=TrainConfig(steps=1), sft=SftConfig(steps=1))
    )
    origins = {key: "default" if known[key] == defaults[key] else "scale" for key in known}
    origins.update(dict.fromkeys(of_pack, "pack"))
    origins.update(dict.fromkeys(given, "flag"))
    origins.update(dict.fromkeys(settings, "set"))
    return ResolvedConfig(config=config, origins=origins)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _problem(error: Any) -> Problem:
    location = ".".join(str(part) for part in error["loc"])
    return Problem(f"{location}: {error['msg']}, found {error['input']!r}"[:200])
