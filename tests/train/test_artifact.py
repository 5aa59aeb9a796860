"""Facts of a checkpoint: computed from its files alone, without torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from picochat.core.errors import BadInput
from picochat.core.records import read_json, to_jsonable, write_json
from picochat.train.base import facts_from
from tests.train.builders import begin_run, small_config, train_base

RUINOUS = {"muon_lr": 3.0, "adamw_lr": 3.0, "warmup_steps": 12, "decay_fraction": 0.0}
"""Rates with which the first evaluation is the best."""


@pytest.mark.parametrize("publish", ["last", "best"])
def test_facts_are_computed_again_from_the_files(tmp_path: Path, publish: str) -> None:
    config = small_config(publish=publish, **RUINOUS)
    run = begin_run(tmp_path / "run", config)
    base = train_base(run, config)
    again = facts_from(base.place, {"tokenizer": run.artifact("tokenizer")}, config)
    assert to_jsonable(again) == base.facts
    assert again.scored_step == (12 if publish == "last" else 4)
    assert again.largest_centre_error is not None and 0 < again.largest_centre_error < 1e-6


def test_spikes_that_rollbacks_removed_from_the_curve_are_those_measured(tmp_path: Path) -> None:
    config = small_config()
    run = begin_run(tmp_path / "run", config)
    base, inputs = train_base(run, config), {"tokenizer": run.artifact("tokenizer")}
    measured = read_json(base.path("measured.json"))
    assert measured["skipped_steps"] == 0 and measured["spikes"] is None
    write_json(base.path("measured.json"), {**measured, "skipped_steps": 3, "spikes": 2})
    found = facts_from(base.place, inputs, config)
    assert (found.skipped_steps, found.spikes) == (3, 2)
    write_json(base.path("measured.json"), {**measured, "skipped_steps": 3})
    with pytest.raises(BadInput, match="counts no spikes"):
        facts_from(base.place, inputs, config)


def test_the_stages_can_be_imported_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import picochat.train.base, picochat.train.sft"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
