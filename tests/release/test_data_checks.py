"""An import report must state the origin and the files of its source, and add up.

Each forgery changes one thing of a report of a real import, or of what the corpus states of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from picochat.core.records import read_record
from picochat.data.corpus.reader import CorpusSources
from picochat.data.importing.hf_import import import_dataset
from picochat.data.importing.import_report import ImportReport
from picochat.data.pack import load_pack
from picochat.release.data_checks import import_problems
from tests.data.builders import make_corpus, parquet_files, request
from tests.forger import change_json

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of a pack whose one source was imported from parquet files."""
    root = tmp_path_factory.mktemp("imported")
    for name, data in parquet_files().items():
        (root / "dataset" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "dataset" / name).write_bytes(data)
    import_dataset(request(root / "web", str(root / "dataset"), min_chars=199))
    (root / "pack").mkdir()
    (root / "pack" / "recipe.json").write_text('{"sources": [{"path": "../web/documents"}]}')
    for name in ("chat.jsonl", "eval.jsonl"):
        (root / "pack" / name).write_text('{"user": "a", "assistant": "b"}\n')
    (root / "pack" / "dataset_pack.json").write_text(
        '{"name": "p", "corpus": {"recipe": "recipe.json"}, "chat": "chat.jsonl",'
        ' "eval": "eval.jsonl"}'
    )
    return make_corpus(load_pack(root / "pack" / "dataset_pack.json"), root / "corpus").place


@pytest.fixture
def corpus(imported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(imported, tmp_path / "corpus"))


def found(corpus: Path) -> list[str]:
    source = read_record(CorpusSources, corpus / "sources.json", "corpus sources").sources[0]
    assert source.import_report
    report = read_record(ImportReport, corpus / source.import_report, "import report")
    return [problem.what for problem in import_problems(source, report)]


def test_an_honest_import_holds(corpus: Path) -> None:
    report = read_record(ImportReport, corpus / "import_reports/web.json", "import report")
    assert report.rows_skipped > 0 and len(report.document_files) > 1
    assert found(corpus) == []


def first_source(change: Change) -> Callable[[Path], None]:
    return lambda corpus: change_json(
        corpus / "sources.json", lambda listing: change(listing["sources"][0])
    )


def report(change: Change) -> Callable[[Path], None]:
    return lambda corpus: change_json(corpus / "import_reports" / "web.json", change)


FORGERIES: tuple[tuple[str, Callable[[Path], None], str], ...] = (
    ("dataset", first_source(lambda s: s["provenance"].update(dataset="better/text")), "dataset"),
    ("revision", report(lambda r: r.update(revision="files:0")), "revision"),
    ("split", report(lambda r: r.update(split="test")), "split"),
    ("licence of the report", report(lambda r: r.update(licence="mit")), "licence"),
    ("licence of the source", first_source(lambda s: s.update(licence="mit")), "licence"),
    (
        "a file with another digest",
        report(lambda r: r["document_files"][0].update(sha256="0" * 64)),
        "is not a file that import_reports/web.json lists",
    ),
    (
        "a file that was never imported",
        first_source(lambda s: s["files"][0].update(name="other.jsonl.zst")),
        "is not a file that import_reports/web.json lists",
    ),
    ("rows that were dropped", report(lambda r: r.update(skip_reasons={})), "rows_skipped"),
    ("rows seen", report(lambda r: r.update(rows_seen=10**6)), "rows_seen: states 1000000"),
    ("rows written", report(lambda r: r.update(rows_written=10**6)), "rows_written: states"),
    ("text", report(lambda r: r.update(text_bytes_written=10**9)), "text_bytes_written: states"),
    ("characters", report(lambda r: r.update(characters_written=1)), "characters_written: states"),
    ("no origin", first_source(lambda s: s.update(provenance=None)), "no origin"),
)


@pytest.mark.parametrize(
    ("forge", "what"), [row[1:] for row in FORGERIES], ids=[row[0] for row in FORGERIES]
)
def test_a_report_that_does_not_agree_is_found(
    corpus: Path, forge: Callable[[Path], None], what: str
) -> None:
    forge(corpus)
    assert any(what in problem for problem in found(corpus)), found(corpus)
