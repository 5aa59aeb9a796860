"""The scales: whole configurations by name, each for one kind of machine. Data, nothing else.

`tiny` is the demo, `h100-100m` the runbook's. Where a value was chosen by measurement, docs/experiments.md has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass

from picochat.config import EvalConfig, GateConfig, ModelConfig, RunConfig, RuntimeConfig, TokenizerConfig, TrainConfig
from picochat.core.errors import WrongUsage, did_you_mean


@dataclass(frozen=True)
class Scale:
    """A preset. `gpus`: devices it is made for (0: a CPU). `purpose`: one line for `picochat scales`."""

    name: str
    purpose: str
    gpus: int
    config: RunConfig


GPU = RuntimeConfig(device="cuda", precision="bf16", compile=True)

SCALES: tuple[Scale, ...] = (
    Scale(
        name="tiny",
        purpose="the demo: minutes on a laptop's CPU",
        gpus=0,
        config=RunConfig(
            scale="tiny",
            tokenizer=TokenizerConfig(vocab_size=2048),
            model=ModelConfig(context=256, layers=4, width=192, heads=3, kv_heads=1, mlp_width=512),
            base=TrainConfig(steps=300, sequences_per_step=8, warmup_steps=20, eval_every=50),
            sft=TrainConfig(steps=100, sequences_per_step=16, warmup_steps=5, muon_lr=0.005, adamw_lr=0.001, eval_every=25),
        ),
    ),
    Scale(
        name="small",
        purpose="a laptop, under an hour",
        gpus=0,
        config=RunConfig(
            scale="small",
            tokenizer=TokenizerConfig(vocab_size=4096),
            model=ModelConfig(context=256, layers=6, width=256, heads=4, kv_heads=2, mlp_width=640),
            base=TrainConfig(steps=2_000, sequences_per_step=16, warmup_steps=40, eval_every=200),
            sft=TrainConfig(steps=400, sequences_per_step=16, warmup_steps=10, muon_lr=0.005, adamw_lr=0.001, eval_every=50),
        ),
    ),
    Scale(
        name="h100-pilot",
        purpose="one GPU, minutes: the whole path before the real one",
        gpus=1,
        config=RunConfig(
            scale="h100-pilot",
            model=ModelConfig(layers=8, width=384, heads=6, kv_heads=2, mlp_width=1024),
            base=TrainConfig(steps=5_000, warmup_steps=100, eval_every=500),
            sft=TrainConfig(steps=400, sequences_per_step=32, warmup_steps=20, muon_lr=0.005, adamw_lr=0.001, eval_every=50),
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
            base=TrainConfig(steps=33_000, warmup_steps=200, eval_every=1_375),
            sft=TrainConfig(steps=400, sequences_per_step=32, warmup_steps=20, muon_lr=0.005, adamw_lr=0.001, eval_every=50),
            evals=EvalConfig(batch_rows=256),
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
            base=TrainConfig(steps=4_125, sequences_per_step=1_024, warmup_steps=100, eval_every=172),
            sft=TrainConfig(steps=400, sequences_per_step=32, warmup_steps=20, muon_lr=0.005, adamw_lr=0.001, eval_every=50),
            evals=EvalConfig(batch_rows=256),
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
            tokenizer=TokenizerConfig(vocab_size=32_768, train_bytes=1_000_000_000),
            model=ModelConfig(context=2048, layers=24, width=2048, heads=16, kv_heads=4, head_width=128, mlp_width=5_632),
            base=TrainConfig(steps=21_400, sequences_per_step=512, warmup_steps=200, eval_every=1_070),
            sft=TrainConfig(steps=400, sequences_per_step=32, warmup_steps=20, muon_lr=0.005, adamw_lr=0.001, eval_every=50),
            evals=EvalConfig(batch_rows=256),
            gate=GateConfig(profile="skill_release"),
            runtime=GPU,
        ),
    ),
)


def find_scale(name: str) -> Scale:
    """The scale of that name. Raises WrongUsage that lists the names."""
    for scale in SCALES:
        if scale.name == name:
            return scale
    names = [scale.name for scale in SCALES]
    raise WrongUsage(f"there is no scale {name!r}{did_you_mean(name, names)}", fix=f"one of: {', '.join(names)}")
