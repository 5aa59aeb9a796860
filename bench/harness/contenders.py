"""The training loops that bench/peers.py compares: runs one of them in this process.

Each is run at one shape on one file of rows. Every loop reads the same rows in the same order and
says when it takes the first row of a step, so that a step is what lies between two such moments,
whatever the loop does there: batch, forward, backward, clipping, optimizer, logging. No loop is
changed: each is its project's public entry, with the settings that its users would give. Needs
bench/peers-requirements.txt.

    python -m harness.contenders TASK.json DESCRIPTOR        (from bench/; peers.py does this)
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness import nanochat_loop
from harness.token_rows import summed_nats
from harness.turns import StepReporter
from picochat.config import ModelConfig

Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Recipe:
    """Of a peer. `schedule`: "linear to 0", "cosine to 10%" or "cosine to 0", after a warm-up.

    nanochat's schedule is its own; `lr` and `others` are factors of its matrix rate and of its
    other rates.
    """

    lr: float
    schedule: str
    others: float = 1.0
    warmup_fraction: float = 0.05
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)

    @property
    def name(self) -> str:
        others = f", others x{self.others:g}" if self.others != 1 else ""
        return f"{self.lr:g} {self.schedule}{others}"


@dataclass(frozen=True)
class Task:
    """`rows`: a .npy file (steps * sequences, context + 1), read in order.

    `stream`: a .npy file of all training tokens, in the order of the documents. `held`: as `rows`,
    for the held-out loss; None: no held-out loss. `device`: "cpu", or "cuda" for picochat and
    nanochat, which then compute in bf16 and compile.
    """

    contender: str
    scale: str
    threads: int
    sequences: int
    steps: int
    vocab_size: int
    bos: int
    rows: str
    stream: str
    held: str | None
    recipe: Recipe | None
    seed: int
    device: str


class Rows(Dataset[Tensor]):
    """The rows as int64 tensors of context + 1. Says when a step's first row is taken."""

    def __init__(self, task: Task, reporter: StepReporter | None) -> None:
        self.rows, self.task, self.reporter = np.load(task.rows, mmap_mode="r"), task, reporter

    def __len__(self) -> int:
        return self.task.steps * self.task.sequences

    def __getitem__(self, index: int) -> Tensor:
        if self.reporter and index % self.task.sequences == 0:
            self.reporter.step_begins()
        return torch.from_numpy(self.rows[index % len(self.rows)].astype(np.int64))


# ---- picochat ------------------------------------------------------------------------------------


def picochat(task: Task, reporter: StepReporter, *, optimizer: str, compiled: bool) -> Logits:
    """The public loop of picochat.train. All that touches it is here."""
    from picochat.config import HostConfig
    from picochat.model.counted_start import new_model
    from picochat.model.runtime import open_runtime
    from picochat.scales import find_scale
    from picochat.train.count_teacher import teaching
    from picochat.train.held_out import HeldOut
    from picochat.train.loader import Batch, HostLoader, shifted_batch
    from picochat.train.loop import Job, Trainer

    config = find_scale(task.scale).config
    settings = {
        "device": task.device,
        "precision": "float32" if task.device == "cpu" else "bf16",
        "threads": task.threads,
        "compile": compiled,
    }
    compute = open_runtime(config.runtime.model_copy(update=settings), config.model)
    changes: dict[str, Any] = {
        "steps": task.steps,
        "sequences_per_step": task.sequences,
        "matrix_optimizer": optimizer,
    }
    changes |= {"warmup_steps": max(5, task.steps // 20), "eval_every": None, "micro_batch": None}
    stream, began = np.load(task.stream), time.monotonic()
    model = new_model(
        config.model, task.vocab_size, task.seed, (lambda: stream) if config.counts.start else None
    )
    model.to(compute.device)
    teach = teaching(lambda: stream, task.vocab_size, task.steps, config.counts)
    if teach:
        teach.count()
    reporter.say(parameters=parameters_of(model), counting_s=time.monotonic() - began)
    rows = Rows(task, reporter)

    def batch_of(step: int) -> Batch:
        numbers = np.arange(step * task.sequences, (step + 1) * task.sequences)
        batch = shifted_batch(np.stack([rows[number].numpy() for number in numbers]))
        return teach(step, numbers, batch) if teach else batch

    # The next rows are made while a step trains: what lies between two batches is still one step.
    loader = HostLoader(batch_of, compute.device, fixed_shape=True)
    job = Job("base", config.base.model_copy(update=changes), loader, lambda _: HeldOut(0.0, None))
    with tempfile.TemporaryDirectory() as folder:
        Trainer(model, job, compute, HostConfig(checkpoint_minutes=1e6), Path(folder)).train()
    return model


# ---- Hugging Face Trainer ------------------------------------------------------------------------


def trainer(task: Task, reporter: StepReporter, *, compiled: bool) -> Logits:
    """transformers.Trainer on Qwen3ForCausalLM: the nearest stock class, with a sequential
    residual.
    """
    import transformers

    shape = shape_of(task.scale)
    transformers.set_seed(task.seed)
    model = transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(
            vocab_size=task.vocab_size,
            hidden_size=shape.width,
            intermediate_size=shape.mlp_width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.head_width,
            max_position_embeddings=shape.context,
            rms_norm_eps=shape.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
            tie_word_embeddings=True,
            attention_bias=False,
            use_cache=False,
            initializer_range=shape.init_std,
        )
    )
    reporter.say(parameters=parameters_of(model))
    recipe = task.recipe or Recipe(1e-3, "linear to 0")
    kind, extra = {
        "linear to 0": ("linear", None),
        "cosine to 0": ("cosine", None),
        "cosine to 10%": ("cosine_with_min_lr", {"min_lr_rate": 0.1}),
    }[recipe.schedule]
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            max_steps=task.steps,
            per_device_train_batch_size=task.sequences,
            train_sampling_strategy="sequential",
            learning_rate=recipe.lr,
            lr_scheduler_type=kind,
            lr_scheduler_kwargs=extra,
            warmup_steps=max(1, round(recipe.warmup_fraction * task.steps)),
            weight_decay=recipe.weight_decay,
            adam_beta1=recipe.betas[0],
            adam_beta2=recipe.betas[1],
            torch_compile=compiled,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=task.seed,
        )
        transformers.Trainer(
            model, arguments, train_dataset=Rows(task, reporter), data_collator=collate
        ).train()
    model.eval()
    return lambda ids_BT: model(input_ids=ids_BT).logits


def collate(rows: list[Tensor]) -> dict[str, Tensor]:
    """Inputs and targets as the other loops have them: `context` of each; every target counts."""
    block = torch.stack(rows)
    targets = block[:, 1:].contiguous()
    return {"input_ids": block[:, :-1].contiguous(), "labels": targets, "shift_labels": targets}


# ---- litgpt --------------------------------------------------------------------------------------


def litgpt(task: Task, reporter: StepReporter, *, micro_batch: int | None) -> Logits:
    """litgpt.pretrain.setup on its own model class.

    It compiles the model by itself. micro_batch None: a whole step at once.
    """
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.config import Config
    from litgpt.data import DataModule
    from litgpt.model import GPT
    from litgpt.pretrain import setup

    shape = shape_of(task.scale)
    config = Config(
        name="custom",
        block_size=shape.context,
        vocab_size=task.vocab_size,
        padded_vocab_size=task.vocab_size,
        n_layer=shape.layers,
        n_head=shape.heads,
        n_query_groups=shape.kv_heads,
        n_embd=shape.width,
        head_size=shape.head_width,
        rotary_percentage=1.0,
        rope_base=round(shape.rope_theta),
        parallel_residual=True,
        shared_attention_norm=True,
        norm_qk=True,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=shape.norm_eps,
        mlp_class_name="LLaMAMLP",
        intermediate_size=shape.mlp_width,
    )
    with torch.device("meta"):
        empty = GPT(config)
    reporter.say(
        parameters=parameters_of(empty) - task.vocab_size * shape.width
    )  # setup() ties head and embedding
    recipe = task.recipe or Recipe(1e-3, "cosine to 10%")
    least = {"cosine to 10%": 0.1, "cosine to 0": 0.0}[recipe.schedule] * recipe.lr
    rows_at_once = micro_batch or task.sequences

    class Data(DataModule):
        def connect(
            self, tokenizer: object = None, batch_size: int = 1, max_seq_length: int | None = None
        ) -> None:
            pass

        def train_dataloader(self) -> DataLoader[Tensor]:
            return DataLoader(Rows(task, reporter), batch_size=rows_at_once)

        def val_dataloader(self) -> DataLoader[Tensor]:
            return DataLoader(Rows(task, None), batch_size=rows_at_once)

    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["litgpt", "custom"]  # setup() reads its own command line again when it saves
        setup(
            model_name="custom",
            model_config=config,
            out_dir=Path(folder),
            precision="32-true",
            data=Data(),
            train=TrainArgs(
                save_interval=None,
                log_interval=10,
                global_batch_size=task.sequences,
                micro_batch_size=rows_at_once,
                max_tokens=task.steps * task.sequences * shape.context,
                max_norm=1.0,
                min_lr=least,
                lr_warmup_steps=max(1, round(recipe.warmup_fraction * task.steps)),
                tie_embeddings=True,
            ),
            eval=EvalArgs(
                interval=10**9, max_iters=1, initial_validation=False, final_validation=False
            ),
            optimizer={
                "class_path": "torch.optim.AdamW",
                "init_args": {
                    "lr": recipe.lr,
                    "weight_decay": recipe.weight_decay,
                    "betas": recipe.betas,
                },
            },
            devices=1,
            logger_name="csv",
            seed=task.seed,
        )
        # litgpt pickles its data loader beside the weights; the file is a minute old and our own.
        saved = torch.load(Path(folder) / "final" / "lit_model.pth", weights_only=False)
    model = GPT(config)
    model.load_state_dict(saved["model"])
    return model.eval()


# ---- nanochat ------------------------------------------------------------------------------------


def nanochat(task: Task, reporter: StepReporter, *, stripped: bool) -> Logits:
    shape, recipe = shape_of(task.scale), task.recipe or Recipe(64.0, "its own", others=16.0)
    return nanochat_loop.train(
        DataLoader(Rows(task, reporter), batch_size=task.sequences),
        vocab_size=task.vocab_size,
        context=shape.context,
        layers=shape.layers,
        width=shape.width,
        steps=task.steps,
        step_tokens=task.sequences * shape.context,
        matrix_times=recipe.lr,
        others_times=recipe.others,
        stripped=stripped,
        seed=task.seed,
        device=task.device,
        say=reporter.say,
    )


# ---- what they share -----------------------------------------------------------------------------

CONTENDERS: dict[str, Callable[[Task, StepReporter], Logits]] = {
    "picochat": lambda task, reporter: picochat(task, reporter, optimizer="adamw", compiled=False),
    "picochat-compiled": lambda task, reporter: picochat(
        task, reporter, optimizer="adamw", compiled=True
    ),
    "picochat-muon": lambda task, reporter: picochat(
        task, reporter, optimizer="muon", compiled=False
    ),
    "picochat-muon-compiled": lambda task, reporter: picochat(
        task, reporter, optimizer="muon", compiled=True
    ),
    "trainer": lambda task, reporter: trainer(task, reporter, compiled=False),
    "trainer-compiled": lambda task, reporter: trainer(task, reporter, compiled=True),
    "litgpt": lambda task, reporter: litgpt(task, reporter, micro_batch=None),
    "litgpt-micro-4": lambda task, reporter: litgpt(task, reporter, micro_batch=4),
    "nanochat": lambda task, reporter: nanochat(task, reporter, stripped=False),
    "nanochat-stripped": lambda task, reporter: nanochat(task, reporter, stripped=True),
}


def shape_of(scale: str) -> ModelConfig:
    from picochat.scales import find_scale

    return find_scale(scale).config.model


def parameters_of(model: torch.nn.Module) -> int:
    """A tied matrix counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def held_out_loss(logits_of: Logits, task: Task) -> float:
    """Nats per target over the held-out rows. A document's first token is no target."""
    assert task.held is not None, "a loss needs held-out rows"
    rows = torch.from_numpy(np.load(task.held))
    nats, targets = summed_nats(
        lambda ids_BT: logits_of(ids_BT.to(task.device)).cpu(), rows, task.bos
    )
    return nats / targets


def write_task(task: Task, place: Path) -> None:
    place.write_text(json.dumps(asdict(task)))


def read_task(place: Path) -> Task:
    row = json.loads(place.read_text())
    recipe = row.pop("recipe")
    return Task(
        **row, recipe=Recipe(**{**recipe, "betas": tuple(recipe["betas"])}) if recipe else None
    )


def main() -> None:
    task = read_task(Path(sys.argv[1]))
    reporter = StepReporter(int(sys.argv[2]))
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(task.threads)
    started = time.monotonic()
    logits_of = CONTENDERS[task.contender](task, reporter)
    reporter.say(
        train_s=time.monotonic() - started,
        peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    )
    if task.held is not None:
        reporter.say(held_out_loss=held_out_loss(logits_of, task))


if __name__ == "__main__":
    main()
