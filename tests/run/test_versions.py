"""A stage that makes something else from the same input has a new version.

Otherwise a finished run folder would keep what the older code made, and nobody would be told.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from picochat.run.graph import ARTIFACTS
from tests.run.stage_outputs import GOLDEN, described, differing, make_runs

WRITE_AGAIN = "python -m tests.run.stage_outputs"


def problems(golden: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> list[str]:
    """What to do about each stage whose output, inputs or version is not the golden file's."""
    found: list[str] = []
    for kind, entry in now.items():
        before = golden.get(kind)
        if before is None:
            found.append(f"{kind} is new: {WRITE_AGAIN}")
            continue
        changes = differing(before["makes"], entry["makes"])
        if changes and before["made_from"] == entry["made_from"]:
            first = "; ".join(changes[:3])
            if before["version"] == entry["version"]:
                found.append(
                    f"{kind} makes something else from the same input, and its version is still"
                    f" {entry['version']}: raise it in src/picochat/run/graph.py, then"
                    f" {WRITE_AGAIN} ({first})"
                )
            else:
                found.append(f"{kind} has a new version and makes something else: {WRITE_AGAIN}")
        elif before["version"] != entry["version"]:
            found.append(f"{kind} has another version than the golden file: {WRITE_AGAIN}")
        elif changes:
            found.append(f"{kind} was given other inputs: {WRITE_AGAIN}")
    return found


def test_no_stage_makes_something_else_under_its_old_version(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    now = described(*make_runs(tmp_path_factory.mktemp("stages")))
    assert problems(json.loads(GOLDEN.read_text("utf-8")), now) == []


def test_the_golden_file_describes_every_stage_but_the_hosts() -> None:
    golden = json.loads(GOLDEN.read_text("utf-8"))
    assert set(golden) == {spec.kind for spec in ARTIFACTS} - {"host"}
    assert all(entry["makes"]["files"] or entry["makes"]["facts"] for entry in golden.values())


def changed(kind: str, *path: str | int, to: Any) -> dict[str, Any]:
    golden = copy.deepcopy(json.loads(GOLDEN.read_text("utf-8")))
    place = golden[kind]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return golden


@pytest.mark.parametrize("kind", json.loads(GOLDEN.read_text("utf-8")))
def test_another_file_under_the_old_version_is_named_with_what_to_do(kind: str) -> None:
    golden = json.loads(GOLDEN.read_text("utf-8"))
    files = golden[kind]["makes"]["files"]
    path = ("files", next(iter(files))) if files else ("facts",)
    (problem,) = problems(golden, changed(kind, "makes", *path, to="another"))
    assert problem.startswith(f"{kind} makes something else") and "raise it in" in problem
    assert WRITE_AGAIN in problem and path[-1] in problem


def test_a_moved_loss_is_noticed_and_rounding_is_not() -> None:
    golden = json.loads(GOLDEN.read_text("utf-8"))
    loss = golden["base"]["makes"]["facts"]["final_loss"]
    moved = changed("base", "makes", "facts", "final_loss", to=loss * 1.05)
    assert len(problems(golden, moved)) == 1
    rounded = changed("base", "makes", "facts", "final_loss", to=loss * (1 + 1e-5))
    assert problems(golden, rounded) == []


def test_a_stage_with_other_inputs_is_not_blamed() -> None:
    golden = json.loads(GOLDEN.read_text("utf-8"))
    now = changed("shards", "makes", "facts", to="others")
    now["shards"]["made_from"]["corpus"] = "another"
    (problem,) = problems(golden, now)
    assert problem == f"shards was given other inputs: {WRITE_AGAIN}"


def test_a_new_version_asks_for_a_new_golden_file() -> None:
    golden = json.loads(GOLDEN.read_text("utf-8"))
    (problem,) = problems(golden, changed("tokenizer", "version", to=99))
    assert WRITE_AGAIN in problem and "version" in problem
