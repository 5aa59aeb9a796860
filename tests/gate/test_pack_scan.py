from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from picochat.core.errors import BadInput
from picochat.core.records import read_json, read_jsonl
from picochat.data.pack import load_pack
from picochat.gate.pack_scan import contamination_findings, scan_pack, write_reports
from picochat.honesty.items import scan_item
from picochat.scales import find_scale
from tests.builders import make_honesty_facts

PROMPTS = [
    f"How many letters has the word {word * 2} when nobody looks?"
    for word in ("gar", "den", "moon", "tree")
]


def make_pack(
    folder: Path,
    documents: dict[str, str],
    evals: list[dict[str, Any]] | None = None,
    chat: str = "Hi",
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"id": f"e{n}", "user": prompt, "category": "spelling", "expected": "6"}
        for n, prompt in enumerate(PROMPTS)
    ]
    for name, lines in (
        ("documents", [{"id": id, "text": text} for id, text in documents.items()]),
        ("chat", [{"user": chat, "assistant": "Hello"}]),
        ("eval", rows if evals is None else evals),
    ):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "recipe.json").write_text(
        '{"sources": [{"path": "documents.jsonl", "label": "web"}]}'
    )
    pack = {"corpus": {"recipe": "recipe.json"}, "chat": "chat.jsonl", "eval": "eval.jsonl"}
    (folder / "pack.json").write_text(json.dumps(pack))
    return folder / "pack.json"


def test_a_clean_pack_is_ready(tmp_path: Path) -> None:
    report = scan_pack(
        load_pack(make_pack(tmp_path, {"a": "plain text", "b": "more of it"})), workers=1
    )
    assert (report.status, report.exit_code) == ("ready", 0)
    assert report.found.facts.scanned_documents == 2
    assert report.found.facts.scanned_text_bytes == report.found.facts.corpus_text_bytes == 20


def test_a_row_in_the_documents_blocks_and_leaving_the_document_out_mends_it(
    tmp_path: Path,
) -> None:
    path = make_pack(
        tmp_path, {"a": "plain text", "leak": f"It says: {PROMPTS[1].upper()}", "b": "x"}
    )
    report = scan_pack(load_pack(path), workers=1)
    assert (report.status, report.exit_code) == ("blocked", 3)
    (blocked,) = [finding for finding in report.findings if finding.status == "block"]
    assert (blocked.name, blocked.measured) == ("contamination_corpus_eval", 0.25)
    assert "exclude_documents" in (blocked.fix or "")
    leave_out = report.to_json()["documents_to_leave_out"]
    assert leave_out == ["web:leak"]
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    (tmp_path / "recipe.json").write_text(json.dumps({**recipe, "exclude_documents": leave_out}))
    mended = scan_pack(load_pack(path), workers=1)
    assert (mended.status, mended.found.facts.scanned_documents) == ("ready", 2)


def test_a_row_in_the_sft_rows_blocks(tmp_path: Path) -> None:
    report = scan_pack(load_pack(make_pack(tmp_path, {"a": "x"}, chat=PROMPTS[0])), workers=1)
    assert [finding.name for finding in report.findings if finding.status == "block"] == [
        "contamination_sft_eval"
    ]


def test_rows_of_another_file_and_of_any_skill_are_judged(tmp_path: Path) -> None:
    path = make_pack(tmp_path, {"a": f"So: {PROMPTS[0]}"}, evals=[])
    mine = tmp_path / "mine.jsonl"
    mine.write_text(json.dumps({"id": "m1", "user": PROMPTS[0], "expected": "6"}) + "\n")
    report = scan_pack(load_pack(path), eval_input=mine, workers=1)
    assert report.found.facts.eval_by_skill == {"other": 1}
    assert report.exit_code == 3


def test_benchmarks_are_judged_where_they_are_given(tmp_path: Path) -> None:
    pack = load_pack(make_pack(tmp_path, {"a": "So why does ice float on water in a lake?"}))
    rows = [
        scan_item("1", "arc", "Why does ice float on water in a lake?"),
        scan_item("2", "arc", "Why is the sky so blue at noon?"),
    ]
    report = scan_pack(pack, benchmarks={"arc": rows}, workers=1)
    (finding,) = [
        finding for finding in report.findings if finding.name == "contamination_external"
    ]
    assert (finding.status, finding.measured) == ("block", 0.5)
    assert any(line.split() == ["arc", "2", "1"] for line in report.lines())


def test_a_pack_without_eval_rows_is_refused_with_the_command_that_makes_some(
    tmp_path: Path,
) -> None:
    path = make_pack(tmp_path, {"a": "x"})
    path.write_text('{"corpus": {"recipe": "recipe.json"}}')
    with pytest.raises(BadInput, match="names no eval rows") as raised:
        scan_pack(load_pack(path))
    assert "task-pack" in (raised.value.fix or "")


def test_the_reports_tell_what_the_terminal_tells(tmp_path: Path) -> None:
    report = scan_pack(load_pack(make_pack(tmp_path, {"leak": PROMPTS[1]})), workers=1)
    write_reports(report, tmp_path / "out")
    stored = read_json(tmp_path / "out/report.json")
    assert stored["status"] == "blocked"
    assert stored["facts"]["contaminated_eval_rows"] == ["e1"]
    (hit,) = [row for _, row in read_jsonl(tmp_path / "out/hits.jsonl")]
    assert (hit["document"], hit["row"], hit["offset"]) == ("web:leak", "e1", 0)
    assert "web:leak" in (tmp_path / "out/report.md").read_text()
    lines = "\n".join(report.lines())
    assert "contamination: blocked" in lines
    assert "e1 in web:leak at 0: how many letters" in lines


def test_only_what_was_looked_for_is_judged() -> None:
    config = find_scale("tiny").config
    names = {
        finding.name
        for finding in contamination_findings(
            make_honesty_facts(external_rows={}, external_contaminated={}), config
        )
    }
    assert names == {"contamination_sft_eval", "contamination_corpus_eval"}
