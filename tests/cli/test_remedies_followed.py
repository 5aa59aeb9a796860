"""People in trouble: a pack with a fault is judged, the remedy is done as it is written, and the
same command is given again.
"""

from __future__ import annotations

import json
import pydoc_data.topics
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from picochat.cli.main import run_command
from tests.run.test_own_data import SMALL

WHOLE = "\n".join(pydoc_data.topics.topics.values())
TEXTS = [WHOLE[start : start + 1_200] for start in range(0, 300_000, 1_200)]
RELEASE = ["--long-run-gate-profile", "skill_release"]


class Folder:
    """A pack in a folder, and the command that judges it."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str], texts: int = 110) -> None:
        self.root, self.capsys = root, capsys
        self.pack, self.recipe = root / "dataset_pack.json", root / "corpus_recipe.json"
        for number, text in enumerate(TEXTS[:texts]):
            self.text(f"text/{number:03d}.txt", text)
        self.write(self.recipe, {"sources": [{"path": "text", "licence": "PSF-2.0"}]})
        self.write(self.pack, {"corpus": {"recipe": "corpus_recipe.json"}})

    def text(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(exist_ok=True)
        (self.root / name).write_text(text, encoding="utf-8")

    def write(self, path: Path, value: object) -> None:
        path.write_text(json.dumps(value))

    def rows(self, key: str, rows: Sequence[dict[str, Any]]) -> None:
        self.text(f"{key}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        self.write(self.pack, {**json.loads(self.pack.read_text()), key: f"{key}.jsonl"})

    def judged(self, *options: str) -> dict[str, dict[str, Any]]:
        """The findings of the preflight by name; what was printed is in `said`."""
        command = ["run", "tiny", "--dataset-pack", str(self.pack), "--preflight-only"]
        where = ["--out-dir", str(self.root / "run")]
        code = run_command([*command, *where, *replaced(SMALL, options)])
        told = self.capsys.readouterr()
        self.said, self.err = told.out, told.err
        assert code in (0, 3), told.err
        report = json.loads((self.root / "run" / "preflight.json").read_text())
        return {finding["name"]: finding for finding in report["findings"]}

    def command_of(self, fix: str) -> list[str]:
        """The picochat command of a remedy, with the path that was printed in place of PACK."""
        found = re.search(r"picochat ([^;]+)", fix)
        assert found
        return shlex.split(found[1].replace("PACK", shlex.quote(str(self.pack))))


def replaced(options: Sequence[str], more: Sequence[str]) -> list[str]:
    """Pairs of options, of which `more` replaces those of the same setting."""
    keys = {word.split("=")[0] for word in more if "=" in word}
    pairs = zip(options[::2], options[1::2], strict=True)
    return [w for pair in pairs if pair[1].split("=")[0] not in keys for w in pair] + [*more]


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Folder:
    (tmp_path / "my pack").mkdir()
    return Folder(tmp_path / "my pack", capsys)


def statuses(findings: dict[str, dict[str, Any]], names: Sequence[str]) -> set[str]:
    return {findings[name]["status"] for name in names}


def options_of(fix: str) -> list[str]:
    part = next(part for part in fix.split("; ") if re.search(r"(^|: )--", part))
    return shlex.split(re.sub(r"^.*?(?=--)", "", part))


# ---- rows ----------------------------------------------------------------------------------------


def test_rows_of_the_skills_are_made_by_the_command_as_it_is_printed(folder: Folder) -> None:
    small = ["--sft-rows", "40", "--eval-rows", "30"]
    assert run_command(["data", "task-pack", "--dataset-pack", str(folder.pack), *small]) == 0
    names = ("sft_rows", "eval_power", "eval_skill_release_coverage")
    before = folder.judged(*RELEASE)
    assert "pass" not in statuses(before, names)
    printed = {line for line in folder.said.splitlines() if "data task-pack" in line}
    command = folder.command_of(before["sft_rows"]["fix"])
    assert any(shlex.join(command) in line for line in printed), printed
    assert run_command(command) == 0
    after = folder.judged(*RELEASE)
    more = ("sft_category_balance", "sft_duplicate_prompts", "eval_independence")
    assert statuses(after, (*names, *more)) == {"pass"}


def asked(count: int) -> list[dict[str, Any]]:
    words = TEXTS[0].split()
    return [
        {"user": f"What is item {n} of {words[n % 50]}?", "reference_answer": f"It is {n}."}
        for n in range(count)
    ]


def told(count: int) -> list[dict[str, Any]]:
    return [
        {"user": f"Tell me of thing {n}.", "assistant": f"Thing {n} is thing."}
        for n in range(count)
    ]


OWN_ROWS = (
    "sft_rows",
    "sft_duplicate_prompts",
    "eval_power",
    "eval_rules",
    "eval_independence",
    "contamination_sft_eval",
)


def test_rows_of_ones_own_are_mended_as_the_remedies_say(folder: Folder) -> None:
    shared = {"user": "Is this asked and told on both of the two sides?", "assistant": "Yes."}
    unscored = {"user": "How do you like all of these notes?"}
    folder.rows("chat", [*told(20), *told(20), shared])
    folder.rows("eval", [*asked(6), {"user": shared["user"], "reference_answer": "Yes."}, unscored])
    before = folder.judged()
    assert "pass" not in statuses(before, OWN_ROWS)
    assert not [name for name in OWN_ROWS if "task-pack" in before[name]["fix"]]
    folder.rows("chat", told(700))
    folder.rows("eval", [*asked(50), {**unscored, "reference_answer": "Much."}])
    after = folder.judged()
    assert statuses(after, OWN_ROWS) == {"pass"}


def test_two_rows_of_nearly_one_wording_are_named_and_reworded(folder: Folder) -> None:
    words = "please tell me which of the seven hills of that old city was built on first"
    folder.rows("chat", [*told(9), {"user": f"{words} of all", "assistant": "That one."}])
    folder.rows("eval", [{"user": f"{words} of them", "reference_answer": "That one."}])
    before = folder.judged()["contamination_sft_eval"]
    assert before["status"] == "warn" and "reword" in before["fix"]
    assert "eval-line-1" in (folder.root / "run/honesty/report.md").read_text()
    folder.rows("chat", told(9))
    assert folder.judged()["contamination_sft_eval"]["status"] == "pass"


def test_a_context_of_the_remedy_holds_rows_and_questions(folder: Folder) -> None:
    long = " ".join(TEXTS[1].split()[:60])
    folder.rows("chat", [{"user": f"{n}: {long}", "assistant": "Yes."} for n in range(20)])
    folder.rows("eval", [{"user": f"{n}? {long}", "reference_answer": "No."} for n in range(20)])
    names = ("sft_fits_context", "eval_fits_context")
    before = folder.judged()
    assert statuses(before, names) == {"block"}
    after = folder.judged(*options_of(before["sft_fits_context"]["fix"]))
    assert statuses(after, names) == {"pass"}


# ---- text ----------------------------------------------------------------------------------------


def few_documents(folder: Folder) -> list[str]:
    for path in sorted((folder.root / "text").iterdir())[20:]:
        path.unlink()
    return []


def add_text(folder: Folder, fix: str) -> list[str]:
    assert fix.startswith("add text to the sources")
    for number, text in enumerate(TEXTS[:110]):
        folder.text(f"text/more-{number:03d}.txt", text)
    return []


def overlapping(folder: Folder) -> list[str]:
    for number, text in enumerate(TEXTS[:40]):
        folder.text(f"again/{number:03d}.txt", text)
    sources = [{"path": name, "licence": "PSF-2.0"} for name in ("text", "again")]
    folder.write(folder.recipe, {"sources": sources})
    return []


def drop_the_source_that_preview_names(folder: Folder, fix: str) -> list[str]:
    assert run_command([*folder.command_of(fix), "--no-html"]) == 0
    assert "again" in folder.capsys.readouterr().out
    folder.write(folder.recipe, {"sources": [{"path": "text", "licence": "PSF-2.0"}]})
    return []


def nearly_equal(folder: Folder) -> list[str]:
    for number, text in enumerate(TEXTS[:30]):
        folder.text(f"text/near-{number:03d}.txt", text + "\none more")
    return []


def as_options(folder: Folder, fix: str) -> list[str]:
    return options_of(fix)


def no_licence(folder: Folder) -> list[str]:
    folder.write(folder.recipe, {"sources": [{"path": "text"}]})
    return []


def name_the_licence(folder: Folder, fix: str) -> list[str]:
    assert '"licence" of the source in the pack' in fix
    folder.write(folder.recipe, {"sources": [{"path": "text", "licence": "PSF-2.0"}]})
    return []


def no_commercial_use(folder: Folder) -> list[str]:
    folder.write(folder.recipe, {"sources": [{"path": "text", "licence": "CC-BY-NC-4.0"}]})
    return ["--set", "gate.license=mit"]


def share_alike(folder: Folder) -> list[str]:
    folder.write(folder.recipe, {"sources": [{"path": "text", "licence": "CC BY-SA 4.0"}]})
    return []


def beside(licence: str) -> Callable[[Folder], list[str]]:
    """Another source, of this licence."""

    def situation(folder: Folder) -> list[str]:
        folder.text("more/1.txt", "Other text, of which there is little.")
        other = {"path": "more", "licence": licence}
        folder.write(folder.recipe, {"sources": [{"path": "text", "licence": "PSF-2.0"}, other]})
        return []

    return situation


def leave_the_source_out(folder: Folder, fix: str) -> list[str]:
    assert "leave more out of the pack" in fix
    folder.write(folder.recipe, {"sources": [{"path": "text", "licence": "PSF-2.0"}]})
    return []


def a_question_in_the_text(folder: Folder) -> list[str]:
    question = " ".join(TEXTS[2].split()[:20])
    folder.rows("eval", [{"user": question, "reference_answer": "Yes."}])
    return []


def leave_it_out(folder: Folder, fix: str) -> list[str]:
    report = json.loads((folder.root / "run/honesty/report.json").read_text())
    assert "documents_to_leave_out" in fix and "exclude_documents" in fix
    recipe = json.loads(folder.recipe.read_text())
    folder.write(folder.recipe, {**recipe, "exclude_documents": report["documents_to_leave_out"]})
    return []


def little_text(folder: Folder) -> list[str]:
    few_documents(folder)
    for path in sorted((folder.root / "text").iterdir())[4:]:
        path.unlink()
    return ["--set", "model.context=4096", "--set", "tokenizer.vocab_size=320"]


def no_stock_shape(folder: Folder) -> list[str]:
    return ["--set", "model.head_width=32", "--set", "model.centred=false"]


def stock_shape(folder: Folder, fix: str) -> list[str]:
    assert "model.head_width = model.width" in fix and "model.centred = true" in fix
    return ["--set", "model.head_width=16", "--set", "model.centred=true"]


def test_a_disk_with_room_again_is_measured_again(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr("picochat.sanity.host.free_disk_bytes", lambda folder: 10)
        before = folder.judged()["disk_space"]
    assert before["status"] == "block" and "host/ and preflight/ away" in before["fix"]
    assert folder.judged()["disk_space"]["status"] == "block", "what was measured stands"
    for name in ("host", "preflight"):
        (folder.root / "run" / name).rename(folder.root / name)
    assert folder.judged()["disk_space"]["status"] == "pass"


CASES: tuple[tuple[str, Callable[[Folder], list[str]], Callable[[Folder, str], list[str]]], ...] = (
    # check, the situation with its options, what the remedy says
    ("documents", few_documents, add_text),
    ("duplicate_documents", overlapping, drop_the_source_that_preview_names),
    ("near_duplicate_documents", nearly_equal, as_options),
    ("source_provenance", no_licence, name_the_licence),
    ("licence_fit", no_licence, name_the_licence),
    ("licence_fit", no_commercial_use, as_options),
    ("licence_fit", share_alike, as_options),
    ("licence_fit", beside("other"), leave_the_source_out),
    ("licence_fit", beside("cc-by-nd-4.0"), leave_the_source_out),
    ("contamination_corpus_eval", a_question_in_the_text, leave_it_out),
    ("training_rows", little_text, as_options),
    ("export_shape", no_stock_shape, stock_shape),
)


@pytest.mark.parametrize(
    ("name", "situation", "remedy"), CASES, ids=[f"{c[0]}-{c[2].__name__}" for c in CASES]
)
def test_the_remedy_of_a_check_mends_it(
    name: str,
    situation: Callable[[Folder], list[str]],
    remedy: Callable[[Folder, str], list[str]],
    folder: Folder,
) -> None:
    options = situation(folder)
    before = folder.judged(*options)[name]
    assert before["status"] != "pass"
    more = remedy(folder, before["fix"])
    after = folder.judged(*replaced(options, more))[name]
    assert after["status"] == "pass", after
