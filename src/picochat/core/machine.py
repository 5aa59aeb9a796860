"""Describes this machine without importing torch: processors, memory, GPUs, versions, commit.

These are observations. They are recorded, but are never part of an artifact's digest.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from picochat.core.errors import WrongUsage
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
NVIDIA_SMI = [
    "nvidia-smi",
    "--query-gpu=name,memory.total,driver_version,power.limit",
    "--format=csv,noheader",
]


class MachineRecord(Record):
    """The host as the run saw it. `gpus` holds one line of nvidia-smi for each GPU."""

    system: str
    python: str
    cpu: str
    cores: int
    memory_bytes: int | None
    gpus: list[str]
    versions: dict[str, str]
    commit: str | None

    @property
    def picochat(self) -> str:
        """The code of the run, in the form of `picochat_version`."""
        return _version_text(self.versions, self.commit)


def machine_record() -> MachineRecord:
    return MachineRecord(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=sys.version.split()[0],
        cpu=_cpu_name(),
        cores=usable_cores(),
        memory_bytes=memory_bytes(),
        gpus=_output(NVIDIA_SMI).splitlines(),
        versions=_versions(),
        commit=_commit(),
    )


def usable_cores() -> int:
    """Cores that this process may run on; a container or scheduler may allow fewer than exist."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def process_count() -> int:
    """Number of processes that torchrun started, on all machines together; 1 without torchrun."""
    return environment_count("WORLD_SIZE", 1)


def environment_count(name: str, default: int) -> int:
    """The whole number >= 0 in the environment variable, `default` where it is not set.

    Raises WrongUsage for anything else.
    """
    value = os.environ.get(name, "").strip()
    if value and not (value.isascii() and value.isdigit()):
        raise WrongUsage(
            f"the environment variable {name} is {value!r}, not a whole number",
            fix=f"unset {name}, or correct it",
        )
    return int(value) if value else default


def process_age_s() -> float | None:
    """Seconds since this process started; None if the system is not Linux."""
    try:
        # Field 22 of proc_pid_stat(5) is the start time in clock ticks since boot. The fields are
        # split after the ")" because the command name before it may hold spaces.
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


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def picochat_version() -> str:
    """The installed version, and the commit if this is a checkout: `0.1.0 at 3f2a...`."""
    return _version_text(_versions(), _commit())


def _version_text(versions: Mapping[str, str], commit: str | None) -> str:
    return versions.get("picochat", "not installed") + (f" at {commit}" if commit else "")


def _commit() -> str | None:
    """The commit of the checkout that this code runs from; None outside a checkout.

    It ends in `-dirty` if files differ from the commit.
    """
    git = ["git", "-C", str(Path(__file__).resolve().parent)]
    return _output([*git, "describe", "--always", "--dirty", "--abbrev=40"]).strip() or None


def _output(command: list[str]) -> str:
    """What the command prints; empty if it is missing or fails."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def cache_folder() -> Path:
    """The cache of all runs: $PICOCHAT_HOME, $XDG_CACHE_HOME/picochat or ~/.cache/picochat."""
    if home := os.environ.get("PICOCHAT_HOME"):
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "picochat"
