from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from picochat.core.errors import BadInput, WrongUsage
from picochat.core.records import digest_file
from picochat.honesty.normalize import normalized_text
from picochat.skills.mixture import make_rows, weights_of
from picochat.skills.row_files import read_eval_rows, read_sft_rows
from picochat.skills.skill import divide_rows
from picochat.skills.skill_table import SKILLS
from picochat.skills.task_pack import (
    SkillCount,
    TaskPackReport,
    TaskPackRequest,
    count_skills,
    make_task_pack,
)
from picochat.skills.task_rows import scored_by
from tests.skills.rows_builder import release_rows


def make(folder: Path, **changes: Any) -> TaskPackReport:
    pack = folder / "dataset_pack.json"
    if not pack.exists():
        pack.write_text(
            json.dumps(
                {"name": "p", "corpus": "corpus.txt", "chat": "chat.jsonl", "eval": "eval.jsonl"}
            )
        )
        for name in ("corpus.txt", "chat.jsonl", "eval.jsonl"):
            (folder / name).touch()
    arguments: dict[str, Any] = {
        "sft_rows": 100,
        "eval_rows": 40,
        "profile": "release_skills",
        "answer_style": "scratchpad",
        "source": "offline",
        "seed": 42,
        "promote": False,
    }
    return make_task_pack(TaskPackRequest(pack, folder, **{**arguments, **changes}))


def test_the_runbooks_numbers_give_enough_independent_rows_of_each_skill() -> None:
    sft, evals = release_rows(2800, 700)
    counts = {count.skill: count for count in count_skills(sft, evals)}
    parts = divide_rows(700, weights_of("release_skills", None))
    assert {name: count.eval_rows for name, count in counts.items()} == parts
    assert all(count.eval_items == count.eval_rows for count in counts.values())
    assert len({normalized_text(row.user) for row in sft}) == 2800
    assert all(len(row.user) + len(row.assistant) <= 400 for row in sft)
    small = {count.skill: count.eval_rows for count in count_skills(*release_rows(100, 240))}
    assert small == divide_rows(240, weights_of("release_skills", None))


def test_the_same_seed_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    report = make(tmp_path)
    code = (
        "from picochat.skills.mixture import make_rows\nfrom picochat.skills.task_pack import"
        " _jsonl\nimport sys\nsft, evals = make_rows('release_skills', 100, 40, 'scratchpad',"
        " 42)\nsys.stdout.buffer.write(_jsonl(sft) + _jsonl(evals))"
    )
    env = {"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)}
    again = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env=env
    ).stdout
    assert report.chat.read_bytes() + report.eval.read_bytes() == again
    assert make_rows("release_skills", 100, 40, "scratchpad", 43) != make_rows(
        "release_skills", 100, 40, "scratchpad", 42
    )


def test_files_are_where_the_runbook_expects_them_and_can_be_read(tmp_path: Path) -> None:
    report = make(tmp_path)
    names = [
        "chat_task_mixture_release_skills.jsonl",
        "eval_task_mixture_release_skills.jsonl",
        "task_mixture_release_skills.md",
    ]
    assert [path.name for path in (report.chat, report.eval, report.page)] == names
    assert len(read_sft_rows(report.chat).rows) == 100
    assert len(read_eval_rows(report.eval).rows) == 40
    page = report.page.read_text()
    assert str(tmp_path) not in page
    weights = weights_of("release_skills", None)
    sft_rows, eval_rows = (divide_rows(count, weights)["math"] for count in (100, 40))
    assert f"| math | {sft_rows} | {sft_rows} | {eval_rows} | {eval_rows} |" in page
    assert any(line.startswith("math") for line in report.lines())


def test_different_rows_are_not_overwritten_without_force(tmp_path: Path) -> None:
    report = make(tmp_path)
    make(tmp_path)
    before = report.chat.read_bytes()
    with pytest.raises(WrongUsage) as error:
        make(tmp_path, seed=7)
    assert len(error.value.problems) == 3
    assert report.chat.read_bytes() == before
    make(tmp_path, seed=7, force=True)
    assert report.chat.read_bytes() != before


def test_empty_files_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "chat.jsonl").touch()
    report = make(tmp_path, chat_out=tmp_path / "chat.jsonl", eval_out=tmp_path / "eval.jsonl")
    assert report.chat == tmp_path / "chat.jsonl"
    assert len(read_sft_rows(report.chat).rows) == 100


def test_wrong_arguments_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(WrongUsage) as error:
        make(tmp_path, profile="release_skill", answer_style="long", source="hub", sft_rows=3)
    text = "\n".join(error.value.lines())
    assert "did you mean release_skills?" in text
    assert "--skill-answer-style long" in text
    assert "--source hub" in text
    assert "--sft-rows 3" in text


def test_more_eval_rows_than_items_are_refused_with_every_level_that_is_short(
    tmp_path: Path,
) -> None:
    with pytest.raises(WrongUsage) as error:
        make(tmp_path, eval_rows=5000)
    text = "\n".join(error.value.lines())
    assert "identity, open:" in text
    assert "choice, choice:" in text
    assert "a smaller --eval-rows" in text
    assert not list(tmp_path.glob("*task_mixture*"))


def test_a_missing_pack_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        make_task_pack(
            TaskPackRequest(
                tmp_path / "none.json",
                tmp_path,
                sft_rows=100,
                eval_rows=40,
                profile="release_skills",
                answer_style="direct",
                source="offline",
                seed=1,
            )
        )


def test_weights_can_be_given_and_are_on_the_page(tmp_path: Path) -> None:
    report = make(tmp_path, skill_weights="math=3, spelling=1", eval_rows=40)
    assert {count.skill: count.sft_rows for count in report.counts} == {"math": 75, "spelling": 25}
    assert {count.skill: count.eval_rows for count in report.counts} == {"math": 30, "spelling": 10}
    assert "Weights of the skills: math 0.75, spelling 0.25." in report.page.read_text()
    assert sum(weights_of("release_skills", "refusal=2,choice=5").values()) == pytest.approx(1)
    (tmp_path / "plain").mkdir()
    plain = make(tmp_path / "plain")
    stated = weights_of("release_skills", None)
    text = ",".join(f"{name}={weight}" for name, weight in stated.items())
    same = make(tmp_path, skill_weights=text, force=True)
    assert same.chat.read_bytes() == plain.chat.read_bytes()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("maths=1", "did you mean math?"),
        ("math=1,math=2", "given twice"),
        ("math=-1", "no weight"),
        ("math=nan", "no weight"),
        ("math", "no weight"),
        ("math=0", "all weights are 0"),
    ],
)
def test_weights_that_say_nothing_are_refused_with_an_example(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(WrongUsage) as error:
        make(tmp_path, skill_weights=text)
    assert said in "\n".join(error.value.lines())
    assert "--skill-weights math=.3" in "\n".join(error.value.lines())


def test_promotion_names_the_rows_in_the_pack_and_changes_nothing_else(tmp_path: Path) -> None:
    report = make(tmp_path, promote=True)
    pack = json.loads((tmp_path / "dataset_pack.json").read_text())
    assert pack == {
        "name": "p",
        "corpus": "corpus.txt",
        "chat": report.chat.name,
        "eval": report.eval.name,
        "rows_from": "task-pack",
    }


def test_skills_import_no_torch() -> None:
    code = (
        "import sys, picochat.skills.task_pack, picochat.honesty.contamination_scan;"
        " sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}
        ).returncode
        == 0
    )


def test_the_page_states_the_digests_of_the_files_beside_it(tmp_path: Path) -> None:
    report = make(tmp_path)
    page = report.page.read_text()
    assert f"SFT rows sha256 {digest_file(report.chat)}" in page
    assert f"Eval rows sha256 {digest_file(report.eval)}" in page
    assert "Eval items that the SFT rows contain: 0." in page
    for count in report.counts:
        _, _, part = page.partition(f"## {count.skill}\n")
        assert "SFT:" in part and "Eval:" in part


def test_every_level_has_its_eval_rows_on_the_page(tmp_path: Path) -> None:
    report = make(tmp_path, eval_rows=120)
    page = report.page.read_text()
    levels = {skill.name: list(skill.levels) for skill in SKILLS}
    for count in report.counts:
        assert list(count.eval_levels) == levels[count.skill]
        assert sum(count.eval_levels.values()) == count.eval_rows
        assert ", ".join(f"{level} {n}" for level, n in count.eval_levels.items()) in page


def test_what_is_printed_says_whether_the_pack_was_changed(tmp_path: Path) -> None:
    assert "left as it is" in "\n".join(make(tmp_path).lines())
    assert "now names these rows" in "\n".join(make(tmp_path, promote=True).lines())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"public_rows": 20}, "--public-rows 20: a number of rows of --source hf"),
        ({"source": "hf", "public_rows": 0}, "--public-rows 0"),
        ({"eval_rows": 15}, "--eval-rows 15: at least 16 are needed"),
        ({"answer_style": "Direct"}, "one of: direct, scratchpad"),
        ({"profile": "ful"}, "did you mean full?"),
    ],
)
def test_a_request_that_cannot_be_met_writes_nothing(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(WrongUsage) as error:
        make(tmp_path, **changes)
    assert said in "\n".join(error.value.lines())
    assert not list(tmp_path.glob("*task_mixture*"))


def test_a_folder_is_no_pack(tmp_path: Path) -> None:
    request = TaskPackRequest(tmp_path, tmp_path, 100, 40, "full", "direct", "offline", 1)
    with pytest.raises(BadInput, match="is a folder without"):
        make_task_pack(request)


def test_the_seed_and_the_style_change_the_rows_and_the_page_says_which(tmp_path: Path) -> None:
    first = make(tmp_path).chat.read_bytes()
    for changes in ({"seed": 7}, {"answer_style": "direct"}):
        report = make(tmp_path, force=True, **changes)
        assert report.chat.read_bytes() != first
        assert str(next(iter(changes.values()))) in report.page.read_text().splitlines()[2]


def own_pack(folder: Path) -> Path:
    """A pack with rows of somebody's own."""
    (folder / "corpus.txt").write_text("text")
    (folder / "mine.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    pack = folder / "dataset_pack.json"
    pack.write_text(
        json.dumps({"corpus": "corpus.txt", "chat": "mine.jsonl", "eval": "mine.jsonl"})
    )
    return pack


def test_rows_of_a_packs_own_are_never_replaced_unasked(tmp_path: Path) -> None:
    pack = own_pack(tmp_path)
    before = pack.read_bytes()
    with pytest.raises(WrongUsage) as error:
        make(tmp_path, promote=True)
    assert "the pack names rows of its own" in error.value.problems[0].what
    assert "mine.jsonl" in error.value.problems[0].what
    assert pack.read_bytes() == before
    assert not list(tmp_path.glob("chat_task*"))


def test_with_force_the_report_names_what_the_pack_no_longer_names(tmp_path: Path) -> None:
    pack = own_pack(tmp_path)
    report = make(tmp_path, promote=True, force=True)
    assert any("no longer names" in line and "mine.jsonl" in line for line in report.lines())
    assert (tmp_path / "mine.jsonl").read_text().startswith('{"prompt"')
    assert json.loads(pack.read_text())["rows_from"] == "task-pack"
    again = make(tmp_path, promote=True)
    assert not again.replaced


def test_own_rows_are_kept_among_the_new_ones_and_stay_the_packs_own(tmp_path: Path) -> None:
    pack = own_pack(tmp_path)
    (tmp_path / "chat.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "Which way is the sea?"},'
        ' {"role": "assistant", "content": "Down the hill."}]}\n'
    )
    (tmp_path / "asked.jsonl").write_text(
        '{"prompt": "Who has the key?", "reference_answer": "Maud"}\n'
    )
    value = {"corpus": "corpus.txt", "chat": "chat.jsonl", "eval": "asked.jsonl"}
    pack.write_text(json.dumps(value))
    report = make(tmp_path, promote=True, add=True)
    assert [path.name for path in report.kept] == ["chat.jsonl", "asked.jsonl"]
    sft, evals = read_sft_rows(report.chat).rows, read_eval_rows(report.eval).rows
    assert [row.assistant for row in sft if row.user == "Which way is the sea?"] == [
        "Down the hill."
    ]
    assert [scored_by(row) for row in evals if row.user == "Who has the key?"] == ["exact answer"]
    assert len(sft) == report_rows(report.counts) + 1

    named = json.loads(pack.read_text())
    assert (named["own_chat"], named["own_eval"]) == ("chat.jsonl", "asked.jsonl")
    first = report.chat.read_bytes()
    assert make(tmp_path, promote=True, add=True).chat.read_bytes() == first
    with pytest.raises(WrongUsage, match="would be replaced"):
        make(tmp_path, promote=True)
    make(tmp_path, promote=True, force=True)
    assert json.loads(pack.read_text()).keys() == {"corpus", "chat", "eval", "rows_from"}


def report_rows(counts: Sequence[SkillCount]) -> int:
    return sum(count.sft_rows for count in counts)
