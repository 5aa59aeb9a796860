"""A base stage of a few seconds: real shards of text, a small model, the real stage function."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from picochat.config import (
    HostConfig,
    ModelConfig,
    ResolvedConfig,
    RunConfig,
    RuntimeConfig,
    SftConfig,
    TokenizerConfig,
    TrainConfig,
    flatten,
)
from picochat.core.machine import machine_record
from picochat.core.publish import Artifact, publish
from picochat.core.records import write_json
from picochat.run.folder import RunDir
from picochat.train.base import pretrain
from tests.tokens.builders import (
    make_job,
    publish_shards,
    published,
    short_documents,
    write_tokenizer_file,
)

SMALL_MODEL = ModelConfig(
    context=32, layers=2, width=32, heads=2, kv_heads=1, head_width=16, mlp_width=48
)
EVERY_STEP = 1e-6
"""`checkpoint_minutes` after which every step is saved."""


SPIKING: dict[str, object] = {
    "steps": 32,
    "eval_every": 8,
    "spike_factor": 1.003,
    "spike_nats": 0.0,
    "spike_rollbacks": 9,
    "muon_lr": 1e-6,
    "adamw_lr": 1e-6,
}
"""A base stage that learns nothing and takes any loss a little over its mean for a spike."""


def small_config(**base: object) -> RunConfig:
    """Twelve steps with an evaluation after each fourth, unless `base` says otherwise."""
    values = {
        "steps": 12,
        "sequences_per_step": 4,
        "eval_every": 4,
        "muon_lr": 0.01,
        "adamw_lr": 0.01,
        **base,
    }
    return RunConfig(
        scale="tests",
        tokenizer=TokenizerConfig(vocab_size=512),
        model=SMALL_MODEL,
        base=TrainConfig.model_validate(values),
        sft=SftConfig(steps=1),
        runtime=RuntimeConfig(threads=1),
    )


def begin_run(root: Path, config: RunConfig) -> RunDir:
    """A run folder up to its token shards."""
    shutil.copytree(_shards_of_the_manual(), root)
    run = RunDir(root)
    write_json(
        run.config, ResolvedConfig(config=config, origins=dict.fromkeys(flatten(config), "scale"))
    )
    write_json(run.machine, machine_record())
    return run


@lru_cache
def _shards_of_the_manual() -> Path:
    """A folder with tokenizer and token shards, made once in a process."""
    folder = Path(tempfile.mkdtemp(prefix="picochat-test-shards-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    run = RunDir(folder)
    with publish(run.place("tokenizer"), "tokenizer", "key", {}) as staging:
        write_tokenizer_file(staging.folder)
        staging.path("chat_template.jinja").write_text("")
        staging.facts = {"vocab_size": 512, "merges": 248}
    run.write_front_pages()
    (folder / "base").mkdir()
    documents = short_documents(300)
    job = make_job(run.place("tokenizer") / "tokenizer.json", documents[:280], documents[280:])
    publish_shards(run.place("shards"), job, {"tokenizer": run.artifact("tokenizer").digest})
    return folder


def train_base(
    run: RunDir, config: RunConfig, host: HostConfig | None = None, place: Path | None = None
) -> Artifact:
    """The base checkpoint of a run that has its shards, published as a run publishes it.

    place: where to publish it instead of in the run.
    """
    shards, tokenizer = run.artifact("shards"), run.artifact("tokenizer")
    inputs = {"shards": shards.digest, "tokenizer": tokenizer.digest}
    with publish(place or run.place("base"), "base", "key", inputs) as staging:
        pretrain(
            shards,
            tokenizer,
            config.model,
            config.counts,
            config.base,
            config.runtime,
            host or HostConfig(),
            config.training_seed,
            None,
            run.track,
            staging,
        )
    return published(staging)
