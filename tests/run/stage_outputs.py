"""What each stage makes from a small fixed input, as values that two machines agree on.

`described` turns a run folder into one JSON value for each kind of artifact: `makes` stands for its
files and facts, `made_from` for those of its inputs. Text and counts are compared exactly, by
sha256. Where a kind depends on trained weights (NUMERIC), numbers are kept and compared within
TOLERANCE, and what a barely trained model replied is left out: machines round differently.

`python -m tests.run.stage_outputs` writes tests/run/golden/stage_outputs.json again.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from picochat.core.publish import Artifact
from picochat.core.records import digest_bytes, digest_file, digest_json
from picochat.run.folder import RunDir
from picochat.run.graph import ARTIFACTS
from tests.forger import make_real_run
from tests.run_builder import make_run

GOLDEN = Path(__file__).parent / "golden" / "stage_outputs.json"
TOLERANCE = 0.02  # relative; a changed formula moves a loss or a norm further than rounding does
TRAINED = ("base", "sft", "scores", "parity")
DECIDED = ("preflight", "gate", "summary")
"""Made from facts alone: described for the stated facts of `make_run`, not for trained weights."""
DIGEST = re.compile("[0-9a-f]{32}|[0-9a-f]{64}")
MODEL_WROTE = {
    "reply",
    "base_reply",
    "log_likelihoods",
    "base_log_likelihoods",
    "continued",
    "passed",
    "fraction",
    "low",
    "high",
    "reason",
    "reader",
    "clock",
    "time",
    "versions",
}


def make_runs(folder: Path) -> tuple[RunDir, RunDir]:
    """(a run of a few real steps, a run of stated facts)."""
    (folder / "real").mkdir()
    return make_real_run(folder / "real"), make_run(folder / "stated")


def described(real: RunDir, stated: RunDir) -> dict[str, dict[str, Any]]:
    """For each kind of artifact its version, what it was made from, and what was made."""
    makes: dict[str, Any] = {}
    found: dict[str, dict[str, Any]] = {}
    for spec in ARTIFACTS:
        if spec.kind == "host":
            continue  # measured on this machine: nothing in it is a promise
        artifact = (stated if spec.kind in DECIDED else real).artifact(spec.kind)
        makes[spec.kind] = _makes(artifact)
        inputs = [] if spec.kind in DECIDED else [kind for kind in spec.inputs if kind in makes]
        found[spec.kind] = {
            "version": spec.version,
            "made_from": {kind: digest_json(_rounded(makes[kind])) for kind in inputs},
            "makes": makes[spec.kind],
        }
    return found


def _makes(artifact: Artifact) -> dict[str, Any]:
    numeric = artifact.kind in TRAINED
    files: dict[str, Any] = {}
    for name in sorted(artifact.manifest.files):
        path = artifact.path(name)
        if path.suffix == ".safetensors":
            files[name] = {
                key: [list(tensor.shape), float(abs(tensor.astype("float64")).mean())]
                for key, tensor in sorted(load_file(path).items())
            }
        elif numeric and path.suffix == ".json":
            files[name] = _kept(json.loads(path.read_bytes()))
        elif numeric and path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]
            files[name] = _digested([_kept(row) for row in rows])
        elif numeric and path.suffix == ".md":
            files[name] = path.read_text("utf-8").splitlines()[0]
        else:
            files[name] = digest_file(path)
    facts = artifact.manifest.facts
    return {"files": files, "facts": _kept(facts) if numeric else digest_json(facts)}


def _kept(value: Any) -> Any:
    """The value without what the model wrote and what was measured on this machine."""
    if isinstance(value, dict):
        return {key: _kept(item) for key, item in value.items() if key not in MODEL_WROTE}
    if isinstance(value, list):
        return [_kept(item) for item in value]
    if isinstance(value, str) and DIGEST.fullmatch(value):
        return "a digest"  # of files that hold floating-point numbers
    return value


def _digested(rows: list[Any]) -> Any:
    """Short journals row by row; long tables of replies as one digest."""
    return rows if len(rows) <= 8 else digest_bytes(json.dumps(rows, sort_keys=True).encode())


def _rounded(value: Any) -> Any:
    """One digit: enough to tell whether the inputs are those of the golden file."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.0e}") if isinstance(value, float) and math.isfinite(value) else value


def differing(golden: Any, now: Any, path: str = "") -> list[str]:
    """Paths at which two described values differ, numbers beyond the tolerance."""
    if isinstance(golden, dict) and isinstance(now, dict):
        return [
            found
            for key in sorted({*golden, *now})
            for found in differing(golden.get(key), now.get(key), f"{path}/{key}")
        ]
    if isinstance(golden, list) and isinstance(now, list) and len(golden) == len(now):
        pairs = enumerate(zip(golden, now, strict=True))
        return [found for i, (a, b) in pairs for found in differing(a, b, f"{path}[{i}]")]
    if isinstance(golden, float) and isinstance(now, (int, float)):
        same = math.isclose(golden, now, rel_tol=TOLERANCE, abs_tol=1e-3)
        return [] if same else [f"{path}: {golden} -> {now}"]
    return [] if golden == now else [f"{path}: {golden} -> {now}"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = described(*make_runs(Path(folder)))
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
