"""Describes this machine without importing torch.

The description has processors, memory, disk, the GPU as its driver's tool reports it, versions and
the commit. All of it is an observation: it is recorded, and is never part of an artifact's digest.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from picochat.core.records import Record

RECORDED_PACKAGES = (
    "picochat",
    "torch",
    "numpy",
    "tokenizers",
    "tiktoken",
    "pyarrow",
    "huggingface_hub",
    "transformers",
    "safetensors",
    "pydantic",
)
GPU_QUERY = "name,memory.total,driver_version,power.limit"


class MachineRecord(Record):
    """The host as the run saw it. `gpus` holds one line of the driver's tool for each GPU."""

    system: str
    python: str
    cpu: str
    cores: int
    memory_bytes: int | None
    gpus: list[str]
    versions: dict[str, str]
    commit: str | None


def machine_record() -> MachineRecord:
    return MachineRecord(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=sys.version.split()[0],
        cpu=_cpu_name(),
        cores=usable_cores(),
        memory_bytes=memory_bytes(),
        gpus=_gpu_lines(),
        versions=_versions(),
        commit=_commit(),
    )


def usable_cores() -> int:
    """Cores that this process may run on, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def process_count() -> int:
    """Processes that torchrun started for this command, on all machines together; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_age_s() -> float | None:
    """Seconds since the system started this process; None where the system does not say.

    Only Linux says.
    """
    try:
        # The command in parentheses may hold spaces; field 22 of stat(5) is the start in clock
        # ticks since boot.
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None


def free_disk_bytes(folder: Path) -> int:
    """Free bytes on the disk that holds `folder` or its nearest existing parent."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _gpu_lines() -> list[str]:
    command = ["nvidia-smi", f"--query-gpu={GPU_QUERY}", "--format=csv,noheader"]
    return [line.strip() for line in _output(command).splitlines() if line.strip()]


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def picochat_version() -> str:
    """The installed version and the commit of the checkout, as far as they are known.

    Example: `0.1.0 at 3f2a...`.
    """
    commit = _commit()
    return _versions().get("picochat", "not installed") + (f" at {commit}" if commit else "")


def _commit() -> str | None:
    """The commit of the checkout that this code runs from; None outside a checkout.

    It ends in `-dirty` where files differ from the commit.
    """
    here = Path(__file__).resolve().parent
    return (
        _output(["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]).strip()
        or None
    )


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def cache_folder() -> Path:
    """The folder where runs share work.

    It is $PICOCHAT_HOME, else $XDG_CACHE_HOME/picochat, else ~/.cache/picochat.
    """
    if home := os.environ.get("PICOCHAT_HOME"):
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "picochat"
