import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from picochat.cli.data import app
from picochat.cli.main import run_command
from picochat.core.errors import WrongUsage
from picochat.data.formats.file_rows import FORMATS
from tests.data.builders import make_pack, prose

RUNBOOK_FLAGS = (
    "--dataset",
    "--config",
    "--split",
    "--text-column",
    "--out",
    "--documents-dir",
    "--report",
)


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_import_command_takes_the_flags_of_the_runbook(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"text": prose(number)}) + "\n" for number in range(30))
    (tmp_path / "train.jsonl").write_text(rows)
    values = (
        str(tmp_path / "train.jsonl"),
        "",
        "train",
        "text",
        "corpus.txt",
        "deep/documents",
        "import_report.json",
    )
    arguments: list[str] = []
    for flag, value in zip(RUNBOOK_FLAGS, values, strict=True):
        if flag in ("--out", "--documents-dir", "--report"):
            value = str(tmp_path / "out" / value)
        arguments += [flag, value] if value else []
    _run(
        "hf-import",
        *arguments,
        "--max-rows",
        "20",
        "--min-chars",
        "10",
        "--document-shard-rows",
        "5",
    )
    assert (tmp_path / "out" / "deep" / "documents" / "shard-000003.jsonl.zst").is_file()
    assert (tmp_path / "out" / "import_report.json").is_file()
    assert (tmp_path / "out" / "import_report.md").is_file()
    assert (tmp_path / "out" / "corpus.txt").is_file()


@pytest.mark.parametrize("flag", ["--dataset-pack", "--pack"])
def test_preview_prints_a_screen_or_one_json_object(flag: str, tmp_path: Path) -> None:
    pack = str(make_pack(tmp_path, {"web": [(str(number), prose(number)) for number in range(50)]}))
    assert "h100-100m" in _run("preview", flag, pack)
    assert (
        json.loads(_run("preview", flag, pack, "--scale", "tiny", "--json"))["schema_version"] == 4
    )


def test_unknown_scale_is_wrong_usage(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, {"web": [("1", prose(1))]})
    with pytest.raises(WrongUsage, match="there is no scale"):
        _run("preview", "--pack", str(pack), "--scale", "tinny")


def test_help_of_the_import_names_every_ending_that_is_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command(["data", "hf-import", "--help"]) == 0
    words = set(capsys.readouterr().out.replace(",", " ").split())
    named = {word.removesuffix(".") for word in words if word.startswith(".")}
    assert named == {ending for ending, _ in FORMATS}


def test_help_imports_neither_torch_nor_the_hub_nor_arrow() -> None:
    code = (
        "import sys, picochat.cli.data\nprint([m for m in ('torch', 'huggingface_hub', 'pyarrow',"
        " 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_preview_writes_its_page_beside_the_pack_unless_told_otherwise(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, {"web": [(str(number), prose(number)) for number in range(50)]})
    page = pack.parent / "preview.html"
    _run("preview", "--pack", str(pack), "--scale", "tiny", "--no-html")
    _run("preview", "--pack", str(pack), "--scale", "tiny", "--json")
    assert not page.exists()
    _run("preview", "--pack", str(pack), "--scale", "tiny", "--full")
    assert page.is_file()
    _run(
        "preview",
        "--pack",
        str(pack),
        "--scale",
        "tiny",
        "--json",
        "--html",
        str(tmp_path / "new" / "page.html"),
    )
    assert (tmp_path / "new" / "page.html").read_bytes() == page.read_bytes()


def test_a_page_and_no_page_contradict(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, {"web": [("1", prose(1))]})
    with pytest.raises(WrongUsage, match="contradict"):
        _run("preview", "--pack", str(pack), "--html", "x.html", "--no-html")


def test_honesty_writes_its_reports_beside_the_pack_and_exits_3_where_a_release_would_be_blocked(
    tmp_path: Path,
) -> None:
    pack = make_pack(
        tmp_path,
        {
            "web": [
                ("1", prose(1)),
                ("2", f"{prose(2)} How many rivers does this little country have?"),
            ]
        },
    )
    rows = tmp_path / "rows.jsonl"
    pack.write_text(json.dumps({"corpus": {"recipe": "corpus_recipe.json"}}))
    for prompt, code in (
        ("How many rivers does this little country have?", 3),
        ("Which word of these has seven letters?", 0),
    ):
        rows.write_text(json.dumps({"id": "1", "user": prompt, "expected": "6"}) + "\n")
        result = CliRunner().invoke(
            app, ["honesty", "--pack", str(pack), "--eval-input", str(rows), "--json"]
        )
        assert result.exit_code == code, result.output
        report = json.loads(result.stdout)
        assert report == json.loads((pack.parent / "honesty/report.json").read_text())
        assert (pack.parent / "honesty/report.md").is_file()
        assert report["documents_to_leave_out"] == (["web:2"] if code else [])


def test_honesty_looks_for_the_rows_of_a_named_benchmark_too(tmp_path: Path) -> None:
    question = "Which of these rivers flows through the most countries of them all?"
    pack = make_pack(tmp_path, {"web": [("1", prose(1)), ("2", f"{prose(2)} {question}")]})
    pack.write_text(json.dumps({"corpus": {"recipe": "corpus_recipe.json"}}))
    quiz = tmp_path / "quiz.jsonl"
    quiz.write_text(
        json.dumps({"question": question, "choices": ["Danube", "Rhine"], "answer": 0}) + "\n"
    )
    result = CliRunner().invoke(
        app, ["honesty", "--pack", str(pack), "--external-eval", f"quiz={quiz}", "--json"]
    )
    assert result.exit_code == 3, result.output
    facts = json.loads(result.stdout)["facts"]
    assert (facts["external_rows"], facts["external_contaminated"]) == ({"quiz": 1}, {"quiz": 1})
    with pytest.raises(WrongUsage, match="settings cannot be used"):
        _run("honesty", "--pack", str(pack), "--external-eval", "No Name")
