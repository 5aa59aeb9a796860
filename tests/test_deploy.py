"""deploy/: the files parse, name fields that their launchers document, and run the runbook's
commands in its order.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.cli.test_runbook import commands_of, parse

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
# docs.skypilot.co, reference/yaml-spec: the fields of a task and of its resources that these files
# may use.
TASK_FIELDS = {
    "name",
    "workdir",
    "num_nodes",
    "resources",
    "envs",
    "secrets",
    "file_mounts",
    "setup",
    "run",
    "config",
}
RESOURCE_FIELDS = {
    "infra",
    "accelerators",
    "cpus",
    "memory",
    "instance_type",
    "use_spot",
    "disk_size",
    "disk_tier",
    "image_id",
}
STUB = """#!/usr/bin/env bash
printf '%q ' "$(basename "$0")" "$@" >> "$CALLS"
echo >> "$CALLS"
if [ "$(basename "$0")" = torchrun ]; then
  while [ "$1" != picochat ]; do shift; done
  shift
fi
case "$*" in
  "run tiny"*--preflight-only*|"run tiny"*dryrun*) exit 0 ;;
  "run tiny"*) exit "$VERDICT" ;;
esac
"""


def run_stubbed(tmp_path: Path, *arguments: str, verdict: int) -> tuple[int, list[list[str]]]:
    """(exit code, calls) of the script with stand-ins for the commands; every call parses against
    the command line.
    """
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("picochat", "torchrun"):
        (programs / name).write_text(STUB)
        (programs / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "VERDICT": str(verdict),
        "PICOCHAT_USD": "3.0",
    }
    done = subprocess.run(
        ["bash", str(DEPLOY / "runbook.sh"), *arguments], cwd=tmp_path, env=environment, timeout=60
    )
    calls = [shlex.split(line) for line in (tmp_path / "calls").read_text().splitlines()]
    for call in calls:
        parse(call[call.index("picochat") + 1 :])
    return done.returncode, calls


def order(calls: list[list[str]]) -> list[tuple[str, str]]:
    """The first two words of each call; calls of one command in a row count once."""
    words = [(call[0], call[1]) for call in calls]
    return [pair for number, pair in enumerate(words) if number == 0 or pair != words[number - 1]]


def test_scripts_are_bash() -> None:
    for script in (*DEPLOY.glob("*.sh"), *DEPLOY.glob("*.sbatch")):
        subprocess.run(["bash", "-n", str(script)], check=True, timeout=30)


@pytest.mark.parametrize(
    ("name", "accelerators"), [("sky.yaml", "H100:1"), ("sky-8gpu.yaml", "H100:8")]
)
def test_skypilot_files_use_documented_fields(name: str, accelerators: str, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    task = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    assert task.keys() <= TASK_FIELDS and task["resources"].keys() <= RESOURCE_FIELDS
    assert task["resources"]["accelerators"] == accelerators
    assert all(isinstance(value, str) for value in task["envs"].values())
    for part in ("setup", "run"):
        subprocess.run(["bash", "-n"], input=task[part], text=True, check=True, timeout=30)
    called = re.findall(r"bash (deploy/\S+) (\S+)", task["run"])
    assert len(called) == 1 and (ROOT / called[0][0]).exists()


def test_the_script_runs_the_commands_of_the_runbook_in_their_order(tmp_path: Path) -> None:
    code, calls = run_stubbed(tmp_path, verdict=0)
    assert code == 0
    runbook = commands_of((ROOT / "docs" / "runbook.md").read_text(encoding="utf-8"))
    assert order([call[1:] for call in calls]) == order(
        [words for words in runbook if "--push-to-hub" not in words]
    )
    runs = [call for call in calls if call[1:3] == ["run", "tiny"]]
    assert len(runs) == 3 and all(call[call.index("--scale") + 1] == "h100-100m" for call in runs)
    assert {path.name for path in (tmp_path / "logs").iterdir()} >= {
        "train-h100-100m.log",
        "preflight-h100-100m.log",
    }


def test_several_gpus_start_runs_by_torchrun_and_a_no_is_bundled(tmp_path: Path) -> None:
    code, calls = run_stubbed(tmp_path, "h100-100m-ddp8", "8", verdict=3)
    assert code == 3
    started = [call for call in calls if call[0] == "torchrun"]
    assert len(started) == 3
    prefix = "torchrun --standalone --nproc-per-node 8 --no-python picochat run tiny"
    assert all(" ".join(call).startswith(prefix) for call in started)
    assert [call[1:3] for call in calls[-2:]] == [["run", "bundle"], ["run", "verify"]], (
        "no export of a blocked run"
    )
