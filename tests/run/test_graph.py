"""The graph of a run: rows agree with the functions that they name, and reading them is cheap."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from unittest.mock import create_autospec

import pytest

from picochat.config import RunConfig
from picochat.facts import RunFacts
from picochat.run import graph
from picochat.run.graph import ARTIFACTS, FRONT_PAGES, ArtifactSpec, spec_of

IMPORTED_WHEN_CALLED = {
    "host": ("picochat.sanity.host", "measure_host"),
    "parity": ("picochat.export.parity", "measure_parity"),
}
OTHER_SETTINGS = {"facts", "pack", "benchmark_files", "gpu_hour_usd", "track", "timings", "machine"}


def given_to(spec: ArtifactSpec) -> set[str]:
    inputs = () if "facts" in spec.settings else spec.inputs
    return {*inputs, *spec.settings, "staging"}


@pytest.mark.parametrize("spec", ARTIFACTS, ids=lambda spec: spec.kind)
def test_each_stage_function_takes_what_its_row_says(
    spec: ArtifactSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {*spec.settings} <= {*RunConfig.model_fields, *OTHER_SETTINGS}
    arguments = {name: object() for name in given_to(spec)}
    if spec.kind not in IMPORTED_WHEN_CALLED:
        assert set(inspect.signature(spec.make).parameters) == set(arguments)
        return
    module_name, name = IMPORTED_WHEN_CALLED[spec.kind]
    module = import_module(module_name)
    stage = create_autospec(getattr(module, name))
    monkeypatch.setattr(module, name, stage)
    spec.make(**arguments)
    stage.assert_called_once_with(**arguments)


def test_every_input_is_made_by_an_earlier_row() -> None:
    seen: set[str] = set()
    for spec in ARTIFACTS:
        assert seen >= set(spec.inputs), spec.kind
        assert spec.kind not in seen and spec is spec_of(spec.kind)
        seen.add(spec.kind)
    assert len({spec.folder for spec in ARTIFACTS}) == len(ARTIFACTS)


def test_a_runs_facts_have_a_field_for_each_kind_that_states_facts() -> None:
    assert {spec.kind for spec in ARTIFACTS if spec.facts} < {
        field.name for field in fields(RunFacts)
    }


def test_front_pages_are_files_of_their_artifact() -> None:
    for page in FRONT_PAGES:
        assert page.file in spec_of(page.kind).files.split()


def test_reading_the_graph_imports_no_torch() -> None:
    code = f"import sys; sys.modules['torch'] = None; import {graph.__name__}"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
