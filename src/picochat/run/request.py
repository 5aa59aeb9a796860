"""What the user asks of a run: pack, scale, flags and settings, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from picochat.config import ResolvedConfig, RunConfig, resolve
from picochat.core.errors import Problem, WrongUsage
from picochat.core.machine import process_count
from picochat.core.progress import say
from picochat.data.benchmarks.resolve import check_local
from picochat.data.init_pack import PackInputs, init_pack
from picochat.data.pack import LoadedPack, load_pack
from picochat.run.folder import RunDir
from picochat.scales import Scale, find_scale
from picochat.train.schedule import evaluation_before
from picochat.train.trackers import check_trackers


@dataclass(frozen=True)
class RunRequest:
    """The command line of a run.

    flags: setting -> value, None if the flag was not given. settings: `section.key=value` texts.
    """

    out_dir: Path
    dataset_pack: Path | None
    scale: str
    flags: dict[str, object] = field(default_factory=dict[str, object])
    settings: list[str] = field(default_factory=list[str])
    inputs: PackInputs | None = None
    preflight_only: bool = False
    train_anyway: bool = False


def open_request(request: RunRequest) -> tuple[RunDir, ResolvedConfig, LoadedPack]:
    """The run folder, the settings with their origins, and the pack.

    Raises WrongUsage or BadInput. Writes nothing but the pack of `--input`.
    """
    settings = parse_settings(request.settings)
    scale = find_scale(request.scale).config
    resolve(scale, request.flags, settings)  # before files are read: a wrong flag is said at once
    pack = load_pack(pack_of(request))
    resolved = resolve(scale, request.flags, settings, pack.settings())
    return RunDir(request.out_dir), resolved, pack


def pack_of(request: RunRequest) -> Path:
    """The pack that is asked for; that of `--input` is written into the run folder."""
    if request.inputs is None:
        if request.dataset_pack is None:
            raise WrongUsage(
                "a run needs a pack or input files",
                fix="--input FOLDER takes a folder of text; --dataset-pack FILE a pack",
            )
        return request.dataset_pack
    if request.dataset_pack is not None:
        raise WrongUsage(
            "--input and --dataset-pack contradict each other",
            fix="give one of them; picochat data init-pack writes a pack that you can edit",
        )
    pack = init_pack(request.inputs, request.out_dir / "pack", of_run=request.out_dir)
    for line in pack.lines:
        say(line)
    return pack.path


def check_rollbacks(config: RunConfig) -> None:
    """Raise WrongUsage if training shall go back to an evaluation, and none is made before the end.

    See `spike_rollbacks` of the configuration.
    """
    never = {
        f"{stage}.eval_every": max(1, train.steps // 10)
        for stage, train in (("base", config.base), ("sft", config.sft))
        if train.spike_rollbacks and evaluation_before(train.steps, train) is None
    }
    if never:
        stages = " and ".join(key.partition(".")[0] for key in never)
        raise WrongUsage(
            f"after a spike, {stages} cannot go back to an evaluation: none is made before the end",
            fix=f"evaluate more often: {set_options(never)}",
        )


def check_request(scale: str, config: RunConfig) -> None:
    """Raise an error for a request that cannot work on this machine, before data is read."""
    check_processes(find_scale(scale), config, process_count())
    check_rollbacks(config)
    check_trackers(config.host.track)
    check_local(config.external)
    # These load torch, which takes seconds, so the checks that need none of it come first.
    from picochat.model.runtime import find_device
    from picochat.train.distributed import current_group, require_devices

    find_device(config.runtime)
    require_devices(config.runtime, current_group())
    _require_shards(config, process_count())


def _require_shards(config: RunConfig, processes: int) -> None:
    """Raise WrongUsage if the processes cannot split the model, which training would only say."""
    if config.runtime.sharding == "replicated" or processes == 1:
        return
    import torch

    from picochat.model.gpt import GPT
    from picochat.model.sharding import require_columns

    with torch.device("meta"):
        require_columns(GPT(config.model, config.tokenizer.vocab_size), processes)


def set_options(settings: Mapping[str, object]) -> str:
    """The options of the command line that set these settings."""
    return " ".join(f"--set {key}={value}" for key, value in settings.items())


def parse_settings(texts: list[str]) -> dict[str, str]:
    """Texts `section.key=value` as a mapping. Raises WrongUsage for other text or a double key."""
    settings: dict[str, str] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise WrongUsage(
                f"--set {text}: no setting and value",
                fix="--set section.key=value, such as --set base.muon_lr=0.01",
            )
        if key.strip() in settings:
            raise WrongUsage(f"--set {key.strip()} is given twice", fix="leave one of them out")
        settings[key.strip()] = value.strip()
    return settings


def check_processes(scale: Scale, config: RunConfig, processes: int) -> None:
    """Raise WrongUsage if the number of processes does not fit the scale.

    A scale for several GPUs needs several processes. The sequences of a step must divide evenly
    among the processes.
    """
    if scale.gpus > 1 and processes == 1:
        raise WrongUsage(
            f"scale {scale.name} is made for {scale.gpus} GPUs, and this is one process",
            fix=(
                f"torchrun --standalone --nproc-per-node {scale.gpus} --no-python picochat run tiny"
                f" --scale {scale.name} ..."
            ),
        )
    uneven = {
        f"{stage}.sequences_per_step": train.sequences_per_step
        for stage, train in (("base", config.base), ("sft", config.sft))
        if train.sequences_per_step % processes
    }
    if uneven:
        even = {key: -(-rows // processes) * processes for key, rows in uneven.items()}
        raise WrongUsage(
            f"{processes} processes cannot share out the rows of a step",
            problems=[Problem(f"{key} is {rows}") for key, rows in uneven.items()],
            fix=f"rows that they can share: {set_options(even)}",
        )
