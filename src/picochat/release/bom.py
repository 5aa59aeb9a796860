"""`bom.cdx.json`: the exported model as a CycloneDX 1.6 ML-BOM, from the facts that the card shows.

It names the weights by their digest, what they were trained and scored on (with revision, licence
and the digests of the files that were read), the code and the libraries, and every rate with its
interval. It has no time and no random serial number: the same export gives the same bytes. Licences
are names as their publishers wrote them, not looked up in SPDX. The form is checked by the schema
of CycloneDX in the tests, not here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from picochat.core.network import PUBLIC_ENDPOINT
from picochat.core.records import pretty_json, read_json
from picochat.facts import BenchmarkFacts, RunFacts, SourceFacts
from picochat.present.printable import printable_line
from picochat.release.card import Subject, is_on_hub, notices, score_rows
from picochat.report.summary import Provenance

BOM = "bom.cdx.json"
Json = dict[str, Any]


def render_bom(subject: Subject, facts: RunFacts | None, weights_sha256: str) -> str:
    """The BOM. `facts` is None for a checkpoint that lies in no run folder."""
    data = _data(subject, facts)
    parts = [*data, *_code(subject)]
    model = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": printable_line(subject.model_name),
        "version": subject.checkpoint_digest,
        "hashes": [_sha256(weights_sha256)],
        **_licences(subject.licence),
        "externalReferences": [
            {"type": "model-card", "url": "README.md"},
            *([{"type": "evidence", "url": "evidence/"}] if facts else []),
        ],
        "modelCard": _model_card(subject, facts, data),
        "properties": _properties(
            tokenizer=subject.tokenizer_digest, parameters=subject.parameters, dtype=subject.dtype
        ),
    }
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": model},
        "components": parts,
        "dependencies": [{"ref": "model", "dependsOn": [part["bom-ref"] for part in parts]}],
    }
    return pretty_json(bom).decode()


def _model_card(subject: Subject, facts: RunFacts | None, data: list[Json]) -> Json:
    return {
        "modelParameters": {
            "task": "text-generation",
            "architectureFamily": "transformer",
            "modelArchitecture": subject.architecture,
            "datasets": [{"ref": part["bom-ref"]} for part in data],
            "inputs": [{"format": "text"}],
            "outputs": [{"format": "text"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": list(_metrics(subject, facts))},
        "considerations": {"technicalLimitations": list(notices(subject, facts))},
    }


def _metrics(subject: Subject, facts: RunFacts | None) -> Iterator[Json]:
    if facts is None or facts.scores is None or not subject.scored:
        return
    for score in score_rows(facts.scores, facts):
        if score.rate.fraction is not None:
            yield {
                "type": "fraction",
                "slice": printable_line(
                    f"{score.name} ({score.rate.passed} of {score.rate.count})"
                ),
                "value": str(score.rate.fraction),
                "confidenceInterval": {
                    "lowerBound": str(score.rate.low),
                    "upperBound": str(score.rate.high),
                },
            }
    for whose, value in (
        ("base model", facts.scores.base_bits_per_byte),
        ("this model", facts.scores.sft_bits_per_byte),
    ):
        if value is not None:
            yield {"type": "bits per byte", "slice": f"held-out text, {whose}", "value": str(value)}


# ---- the parts -----------------------------------------------------------------------------------


def _data(subject: Subject, facts: RunFacts | None) -> list[Json]:
    if facts is None:
        return []
    sources = facts.corpus.sources if facts.corpus else []
    benchmarks = facts.benchmarks.benchmarks if facts.benchmarks and subject.scored else {}
    provenance = {item.label: item for item in subject.provenance}
    return [
        *(_source(source, provenance.get(source.label), facts) for source in sources),
        *_made_rows(facts),
        *(_benchmark(name, found) for name, found in benchmarks.items()),
    ]


def _source(source: SourceFacts, origin: Provenance | None, facts: RunFacts) -> Json:
    """One source of the corpus, with the files that its import read."""
    read: Mapping[str, str] = {}
    if origin is not None:
        path = facts.artifacts["corpus"].path(f"import_reports/{source.label}.json")
        report: Any = read_json(path, "import report")
        read = {file["name"]: file["digest"] for file in report.get("data_files", [])}
    return _dataset(
        f"source:{source.label}",
        (origin and origin.dataset) or source.label,
        origin and origin.revision,
        source.licence,
        {name: digest.removeprefix("sha256:") for name, digest in read.items()},
        is_on_hub(source, origin),
        _properties(
            use="training",
            config=origin and origin.config,
            documents=source.documents,
            text_bytes=source.text_bytes,
        ),
    )


def _made_rows(facts: RunFacts) -> Iterator[Json]:
    """What the run made of the pack and by rule: exercises, and the rows of SFT and eval."""
    if facts.exercises and facts.exercises.documents:
        counts = _properties(use="training", documents=facts.exercises.documents)
        yield _artifact_data("exercises", "skill exercises", facts, counts)
    if facts.rows:
        counts = _properties(
            use="training and evaluation",
            sft_train_rows=facts.rows.sft_train_rows,
            sft_held_out_rows=facts.rows.sft_held_out_rows,
            eval_rows=facts.rows.eval_rows,
        )
        yield _artifact_data("rows", "SFT and eval rows", facts, counts)


def _artifact_data(kind: str, name: str, facts: RunFacts, properties: list[Json]) -> Json:
    artifact = facts.artifacts[kind]
    files = {name: file.sha256 for name, file in artifact.manifest.files.items()}
    return _dataset(kind, name, artifact.digest, None, files, False, properties)


def _benchmark(name: str, found: BenchmarkFacts) -> Json:
    return _dataset(
        f"benchmark:{name}",
        found.dataset or name,
        found.revision,
        found.licence,
        found.files,
        found.dataset is not None,
        _properties(use="evaluation", config=found.config, split=found.split, rows=found.rows),
    )


def _dataset(
    reference: str,
    name: str,
    revision: str | None,
    licence: str | None,
    files: Mapping[str, str],
    on_hub: bool,
    properties: list[Json],
) -> Json:
    """files: name -> sha256, or another digest, which is left out: the Hub names small files so."""
    address = f"{PUBLIC_ENDPOINT}/datasets/{quote(name)}"
    hashed = [
        {"type": "file", "name": file, "hashes": [_sha256(digest)]}
        for file, digest in sorted(files.items())
        if ":" not in digest
    ]
    return {
        "type": "data",
        "bom-ref": reference,
        "name": printable_line(name),
        **({"version": printable_line(revision)} if revision else {}),
        **_licences(licence),
        "data": [{"type": "dataset", "name": printable_line(name)}],
        **({"components": hashed} if hashed else {}),
        **({"externalReferences": [{"type": "website", "url": address}]} if on_hub else {}),
        "properties": properties,
    }


def _code(subject: Subject) -> Iterator[Json]:
    """The code of the training and the libraries that the machine record names."""
    for name, version in sorted(subject.versions.items()):
        part: Json = {
            "type": "library",
            "bom-ref": f"code:{name}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{quote(version)}",
        }
        if name == "picochat":
            part["type"] = "application"
            del part["purl"]  # a checkout, which the commit names
            if subject.commit:
                part["pedigree"] = {"commits": [{"uid": subject.commit}]}
        yield part


def _sha256(digest: str) -> Json:
    return {"alg": "SHA-256", "content": digest}


def _licences(name: str | None) -> Json:
    return {"licenses": [{"license": {"name": printable_line(name)}}]} if name else {}


def _properties(**values: object) -> list[Json]:
    return [
        {"name": f"picochat:{name}", "value": printable_line(str(value))}
        for name, value in values.items()
        if value is not None
    ]
