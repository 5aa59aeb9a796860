"""The scales: whole configurations by name, each for one kind of machine.

`tiny` is the demo, `h100-100m` the scale of the runbook. docs/experiments.md has the measurements
behind values. Costs are estimates from the assumptions below; `run tiny --preflight-only` measures.
"""

from __future__ import annotations

from dataclasses import dataclass

from picochat.config import (
    CountsConfig,
    EvalConfig,
    ExercisesConfig,
    ExternalConfig,
    GateConfig,
    ModelConfig,
    RunConfig,
    RuntimeConfig,
    SftConfig,
    TokenizerConfig,
    TrainConfig,
    flatten,
    flops_per_token,
    parameter_count,
    step_tokens,
)
from picochat.core.errors import WrongUsage, did_you_mean
from picochat.core.records import Record
from picochat.present.values import duration, quantity


@dataclass(frozen=True)
class Scale:
    """A preset. `gpus`: the devices that it is made for; 0: a CPU."""

    name: str
    purpose: str
    gpus: int
    config: RunConfig


GPU = RuntimeConfig(device="cuda", precision="bf16", compile=True)
GPU_SFT = SftConfig(
    steps=400, sequences_per_step=32, warmup_steps=20, muon_lr=0.005, adamw_lr=0.001, eval_every=50
)

# The fractions of exercises at the GPU scales were not measured. They give 10 to 45 million tokens
# of exercises; half a million taught a small model to add (docs/experiments.md).

SCALES: tuple[Scale, ...] = (
    Scale(
        name="tiny",
        purpose="the demo: minutes on a laptop's CPU",
        gpus=0,
        config=RunConfig(
            scale="tiny",
            exercises=ExercisesConfig(fraction=0.3),
            tokenizer=TokenizerConfig(vocab_size=2048),
            model=ModelConfig(context=256, layers=2, width=256, heads=4, kv_heads=2, mlp_width=768),
            counts=CountsConfig(teacher=1.0),
            base=TrainConfig(
                # So many that the base model predicts text better than a count of 5-grams does.
                steps=640,
                sequences_per_step=8,
                warmup_steps=20,
                # With so few steps a shorter average has the lower loss (docs/experiments.md).
                muon_momentum=0.8,
                decay_fraction=0.8,
                eval_every=80,
            ),
            sft=SftConfig(
                steps=130, sequences_per_step=24, warmup_steps=5, adamw_lr=0.005, eval_every=26
            ),
        ),
    ),
    Scale(
        name="small",
        purpose="a laptop, under an hour",
        gpus=0,
        config=RunConfig(
            scale="small",
            exercises=ExercisesConfig(fraction=0.4),
            tokenizer=TokenizerConfig(vocab_size=2048),
            model=ModelConfig(context=256, layers=4, width=256, heads=4, kv_heads=2, mlp_width=640),
            counts=CountsConfig(teacher=1.0),
            base=TrainConfig(steps=1_800, sequences_per_step=8, warmup_steps=20, eval_every=300),
            sft=SftConfig(
                steps=700, sequences_per_step=16, warmup_steps=10, adamw_lr=0.005, eval_every=100
            ),
        ),
    ),
    Scale(
        name="h100-pilot",
        purpose="one GPU, minutes: the whole path before the real one",
        gpus=1,
        config=RunConfig(
            scale="h100-pilot",
            exercises=ExercisesConfig(fraction=0.03),
            model=ModelConfig(layers=8, width=384, heads=6, kv_heads=2, mlp_width=1024),
            base=TrainConfig(steps=5_000, warmup_steps=100, eval_every=500),
            sft=GPU_SFT,
            gate=GateConfig(profile="first_release"),
            runtime=GPU,
        ),
    ),
    Scale(
        name="h100-100m",
        purpose="one H100, about an hour: the public proof",
        gpus=1,
        config=RunConfig(
            scale="h100-100m",
            exercises=ExercisesConfig(fraction=0.01),
            base=TrainConfig(steps=33_000, warmup_steps=200, eval_every=1_375),
            sft=GPU_SFT,
            evals=EvalConfig(batch_rows=256),
            external=ExternalConfig(benchmarks=("auto",)),
            gate=GateConfig(profile="skill_release"),
            runtime=GPU,
        ),
    ),
    Scale(
        name="h100-100m-ddp8",
        purpose="eight H100s: the same model, the same tokens",
        gpus=8,
        config=RunConfig(
            scale="h100-100m-ddp8",
            exercises=ExercisesConfig(fraction=0.01),
            base=TrainConfig(
                steps=4_125, sequences_per_step=1_024, warmup_steps=100, eval_every=172
            ),
            sft=GPU_SFT,
            evals=EvalConfig(batch_rows=256),
            external=ExternalConfig(benchmarks=("auto",)),
            gate=GateConfig(profile="skill_release"),
            runtime=GPU,
        ),
    ),
    Scale(
        name="h200-1b-ddp8",
        purpose="eight H200s: a 1B model",
        gpus=8,
        config=RunConfig(
            scale="h200-1b-ddp8",
            exercises=ExercisesConfig(fraction=0.002),
            tokenizer=TokenizerConfig(vocab_size=32_768, train_bytes=1_000_000_000),
            model=ModelConfig(
                context=2048,
                layers=24,
                width=2048,
                heads=16,
                kv_heads=4,
                head_width=128,
                mlp_width=5_632,
            ),
            base=TrainConfig(
                steps=21_400,
                sequences_per_step=512,
                micro_batch=8,
                warmup_steps=200,
                eval_every=1_070,
            ),
            sft=GPU_SFT,
            evals=EvalConfig(batch_rows=256),
            external=ExternalConfig(benchmarks=("auto",)),
            gate=GateConfig(profile="skill_release"),
            runtime=GPU.model_copy(
                update={"sharding": "sharded", "activation_checkpointing": True}
            ),
        ),
    ),
)


def find_scale(name: str) -> Scale:
    """The scale of that name. Raises WrongUsage if there is none."""
    for scale in SCALES:
        if scale.name == name:
            return scale
    names = [scale.name for scale in SCALES]
    raise WrongUsage(
        f"there is no scale {name!r}{did_you_mean(name, names)}", fix=f"one of: {', '.join(names)}"
    )


# ---- what a scale costs, estimated ---------------------------------------------------------------

ASSUMED_GPU_FLOPS = 0.40 * 989e12
"""FLOP/s: 40% of an H100's dense bf16 peak, as published logs of compiled PyTorch reach."""
ASSUMED_CPU_FLOPS = 50e9
"""FLOP/s of two cores without bf16 units at these shapes."""
ACTIVATION_BYTES_PER_TOKEN_LAYER_WIDTH = 34
"""bf16 activations kept for the backward pass with fused attention, an estimate."""


class ScaleCost(Record):
    """An estimate. `memory_bytes`: of training, on one device."""

    name: str
    purpose: str
    parameters: int
    base_steps: int
    step_tokens: int
    base_tokens: int
    tokens_per_parameter: float
    memory_bytes: int
    base_hours: float


def cost_of(scale: Scale) -> ScaleCost:
    config = scale.config
    parameters = parameter_count(config.model, config.tokenizer.vocab_size)
    tokens_per_step = step_tokens(config.base, config.model)
    tokens = config.base.steps * tokens_per_step
    flops = tokens * flops_per_token(config.model, config.tokenizer.vocab_size)
    rate = ASSUMED_GPU_FLOPS * scale.gpus if scale.gpus else ASSUMED_CPU_FLOPS
    return ScaleCost(
        name=scale.name,
        purpose=scale.purpose,
        parameters=parameters,
        base_steps=config.base.steps,
        step_tokens=tokens_per_step,
        base_tokens=tokens,
        tokens_per_parameter=tokens / parameters,
        memory_bytes=_memory_bytes(scale, parameters),
        base_hours=flops / rate / 3600,
    )


def _memory_bytes(scale: Scale, parameters: int) -> int:
    """Weights, gradients and two moments in float32, activations and logits of a micro-batch."""
    config = scale.config
    rows = config.base.micro_batch or config.base.sequences_per_step // max(1, scale.gpus)
    tokens = rows * config.model.context
    activations = ACTIVATION_BYTES_PER_TOKEN_LAYER_WIDTH * config.model.layers * config.model.width
    if not scale.gpus:
        activations *= 2  # float32
    return 16 * parameters + tokens * (activations + 6 * config.tokenizer.vocab_size)


def scales_lines() -> list[str]:
    """The table of `picochat scales`."""
    return [
        f"{'scale':15} {'parameters':>12} {'base tokens':>12} {'per param':>9} {'memory':>8}"
        f" {'base time':>9}  purpose",
        *(
            f"{cost.name:15} {cost.parameters:>12,} {quantity(cost.base_tokens):>12}"
            f" {cost.tokens_per_parameter:>9.1f} {quantity(cost.memory_bytes / 1e9) + 'G':>8}"
            f" {duration(3600 * cost.base_hours):>9}  {cost.purpose}"
            for cost in map(cost_of, SCALES)
        ),
        "",
        "Memory and time are estimates: 40% of an H100's peak for each GPU, 50 GFLOP/s for a CPU."
        " The preflight measures.",
    ]


def keys_lines() -> list[str]:
    """Every setting with its value at each scale, for `--set section.key=value`."""
    flat = [flatten(scale.config) for scale in SCALES]
    lines = [f"{'setting':32} " + " ".join(f"{scale.name:>15}" for scale in SCALES)]
    lines += [f"{key:32} " + " ".join(f"{values[key]!s:>15}" for values in flat) for key in flat[0]]
    return lines
