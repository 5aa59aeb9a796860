"""The bill of materials is valid CycloneDX, and says what the facts say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from picochat.facts import BenchmarksFacts, ExercisesFacts, RunFacts
from picochat.release.bom import render_bom
from picochat.release.card import notices
from picochat.report.summary import Provenance, provenance_of
from tests.builders import make_benchmark_facts
from tests.export_builders import RunParts, gate_facts, make_run
from tests.release.test_card import subject
from tests.run_builder import facts_of_run

WEIGHTS = "9" * 64
PARTS = RunParts(
    gate=gate_facts("blocked"),
    exercises=ExercisesFacts(fraction_asked=0.1, documents=90, text_bytes=108_000, words=500),
)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> RunFacts:
    run = make_run(tmp_path_factory.mktemp("bom") / "run", PARTS)
    benchmarks = BenchmarksFacts(benchmarks={"riddles": make_benchmark_facts()}, unresolved=[])
    return replace(facts_of_run(run), benchmarks=benchmarks)


def bom_of(facts: RunFacts | None, **changes: Any) -> dict[str, Any]:
    given = {
        "commit": "f00dfeed" * 5,
        "versions": {"picochat": "0.1.0", "torch": "2.13.0+cpu"},
        "provenance": provenance_of(facts) if facts else (),
    }
    text = render_bom(subject(**{**given, **changes}), facts, WEIGHTS)
    assert errors_of(text) is None
    return json.loads(text)


def errors_of(text: str) -> object:
    """What the validator of CycloneDX finds in the text; None where it is valid."""
    pytest.importorskip(
        "cyclonedx", reason="cyclonedx-python-lib is not installed: pip install 'picochat[dev]'"
    )
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


def parts(bom: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {part["bom-ref"]: part for part in bom["components"]}


def properties(part: dict[str, Any]) -> dict[str, str]:
    return {one["name"].removeprefix("picochat:"): one["value"] for one in part["properties"]}


def test_the_validator_refuses_what_is_no_bom(facts: RunFacts) -> None:
    bom = bom_of(facts)
    bom["metadata"]["component"]["modelCard"]["score"] = 1
    assert errors_of(json.dumps(bom)) is not None


def test_a_checkpoint_without_a_run_and_one_that_was_not_scored_are_valid(facts: RunFacts) -> None:
    for bom in (bom_of(None), bom_of(facts, scored=False)):
        card = bom["metadata"]["component"]["modelCard"]
        assert card["quantitativeAnalysis"]["performanceMetrics"] == []
        assert "benchmark:riddles" not in parts(bom)


def test_the_model_is_named_by_its_digests_and_licence(facts: RunFacts) -> None:
    model = bom_of(facts)["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert (model["name"], model["version"]) == ("pico-test", "c" * 64)
    assert model["hashes"] == [{"alg": "SHA-256", "content": WEIGHTS}]
    assert model["licenses"] == [{"license": {"name": "mit"}}]
    assert properties(model)["parameters"] == "106969856"
    stated = model["modelCard"]["modelParameters"]
    assert stated["modelArchitecture"] == "StableLmForCausalLM"


def test_every_source_and_benchmark_stands_with_revision_licence_and_digests(
    facts: RunFacts,
) -> None:
    bom = bom_of(facts)
    data = {name: part for name, part in parts(bom).items() if part["type"] == "data"}
    assert list(data) == ["source:web", "source:wiki", "exercises", "rows", "benchmark:riddles"]
    web, wiki, exercises, rows, riddles = data.values()
    assert (web["name"], web["version"]) == ("someone/some-corpus", "0123abcd" * 5)
    assert web["licenses"] == [{"license": {"name": "odc-by"}}]
    # git's digest of a small file is of more than its bytes
    assert [(file["name"], file["hashes"][0]["content"]) for file in web["components"]] == [
        ("web.parquet", "7" * 64)
    ]
    assert properties(web) == {
        "use": "training",
        "config": "plain",
        "documents": "801",
        "text_bytes": "90001",
    }
    assert wiki["name"] == "wiki" and "version" not in wiki and "externalReferences" not in wiki
    assert riddles["name"] == "someone/questions" and properties(riddles)["use"] == "evaluation"
    assert riddles["components"][0]["hashes"][0]["content"] == "6" * 64
    for part, kind in ((exercises, "exercises"), (rows, "rows")):
        artifact = facts.artifacts[kind]
        assert part["version"] == artifact.digest
        assert {file["name"]: file["hashes"][0]["content"] for file in part["components"]} == {
            name: file.sha256 for name, file in artifact.manifest.files.items()
        }
    assert properties(rows)["sft_train_rows"] == "251"
    named = bom["metadata"]["component"]["modelCard"]["modelParameters"]["datasets"]
    assert named == [{"ref": name} for name in data]
    assert bom["dependencies"][0]["dependsOn"] == list(parts(bom))


def test_the_code_stands_with_its_commit_and_the_libraries_with_their_versions(
    facts: RunFacts,
) -> None:
    found = parts(bom_of(facts))
    assert found["code:picochat"]["pedigree"] == {"commits": [{"uid": "f00dfeed" * 5}]}
    assert found["code:torch"]["purl"] == "pkg:pypi/torch@2.13.0%2Bcpu"


def test_every_rate_stands_with_its_interval_and_the_verdict_with_its_words(
    facts: RunFacts,
) -> None:
    card = bom_of(facts)["metadata"]["component"]["modelCard"]
    metrics = {one["slice"]: one for one in card["quantitativeAnalysis"]["performanceMetrics"]}
    assert facts.scores
    skill = facts.scores.skills["math"].all
    assert metrics["math (43 of 70)"] == {
        "type": "fraction",
        "slice": "math (43 of 70)",
        "value": str(43 / 70),
        "confidenceInterval": {"lowerBound": str(skill.low), "upperBound": str(skill.high)},
    }
    assert metrics["held-out text, this model"]["value"] == str(facts.scores.sft_bits_per_byte)
    assert card["considerations"]["technicalLimitations"] == list(notices(subject(), facts))
    assert "blocked" in card["considerations"]["technicalLimitations"][0]


def test_names_of_other_people_stay_names(facts: RunFacts) -> None:
    evil = 'x"}]\n\x1b[2J\u202e <img src=x>'
    assert facts.corpus
    source = facts.corpus.sources[0].model_copy(update={"licence": evil})
    forged = replace(facts, corpus=facts.corpus.model_copy(update={"sources": [source]}))
    bom = bom_of(forged, model_name=evil, provenance=(Provenance("web", evil, evil, evil),))
    shown = json.dumps(bom, ensure_ascii=False)
    assert "\\u001b" not in shown and "\u202e" not in shown
    assert "externalReferences" not in parts(bom)["source:web"]


def test_equal_exports_give_equal_bytes_whenever_they_are_made(
    facts: RunFacts, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "again", PARTS)
    again = replace(facts_of_run(run), benchmarks=facts.benchmarks)
    first, second = (
        render_bom(subject(provenance=provenance_of(each)), each, WEIGHTS)
        for each in (facts, again)
    )
    assert first == second
    assert "serialNumber" not in first and "timestamp" not in first
