"""A run as the user asks for it, checked before anything is written.

It has pack, scale, flags and settings. Making the artifacts is `runner.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from picochat.config import ResolvedConfig, RunConfig, resolve
from picochat.core.errors import Problem, WrongUsage
from picochat.core.machine import process_count
from picochat.data.benchmarks.resolve import check_local
from picochat.data.pack import LoadedPack, load_pack
from picochat.run.folder import RunDir
from picochat.scales import Scale, find_scale
from picochat.train.trackers import check_trackers


@dataclass(frozen=True)
class RunRequest:
    """What the user asked for.

    `flags`: setting -> value or None; `settings`: texts of the form section.key=value.
    """

    out_dir: Path
    dataset_pack: Path
    scale: str
    flags: dict[str, object] = field(default_factory=dict[str, object])
    settings: list[str] = field(default_factory=list[str])
    preflight_only: bool = False
    train_anyway: bool = False


def open_request(request: RunRequest) -> tuple[RunDir, ResolvedConfig, LoadedPack]:
    """The run folder, the settings with their origins, and the pack.

    Raises WrongUsage or BadInput; writes nothing.
    """
    resolved = resolve(
        find_scale(request.scale).config, request.flags, parse_settings(request.settings)
    )
    return RunDir(request.out_dir), resolved, load_pack(request.dataset_pack)


def check_request(scale: str, config: RunConfig) -> None:
    """Raises what cannot work on this machine, before any data is read."""
    check_processes(find_scale(scale), config, process_count())
    check_trackers(config.host.track)
    check_local(config.external)
    check_device(config)


def parse_settings(texts: list[str]) -> dict[str, str]:
    """`section.key=value` texts as a mapping.

    Raises WrongUsage for a text without `=` and for a key given twice.
    """
    settings: dict[str, str] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise WrongUsage(
                f"--set {text}: no setting and value",
                fix="--set section.key=value, such as --set base.muon_lr=0.01",
            )
        if key.strip() in settings:
            raise WrongUsage(f"--set {key.strip()} is given twice")
        settings[key.strip()] = value.strip()
    return settings


def check_processes(scale: Scale, config: RunConfig, processes: int) -> None:
    """Raises WrongUsage where the number of processes does not fit the scale.

    One process cannot train a scale made for several GPUs, and the rows of a step must divide among
    the processes.
    """
    if scale.gpus > 1 and processes == 1:
        raise WrongUsage(
            f"scale {scale.name} is made for {scale.gpus} GPUs, and this is one process",
            fix=(
                f"torchrun --standalone --nproc-per-node {scale.gpus} --no-python picochat run tiny"
                f" --scale {scale.name} ..."
            ),
        )
    uneven = [
        Problem(f"{stage}.sequences_per_step is {train.sequences_per_step}")
        for stage, train in (("base", config.base), ("sft", config.sft))
        if train.sequences_per_step % processes
    ]
    if uneven:
        raise WrongUsage(
            f"{processes} processes cannot share out the rows of a step",
            problems=uneven,
            fix=(
                "a number of processes that divides them, or --set base.sequences_per_step=..."
                " sft.sequences_per_step=..."
            ),
        )


def check_device(config: RunConfig) -> None:
    """Refuse a device that is not here before any data is read."""
    from picochat.model.runtime import find_device
    from picochat.train.distributed import current_group, require_devices

    find_device(config.runtime)
    require_devices(config.runtime, current_group())
