from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from picochat.core.errors import BadInput
from picochat.core.publish import open_artifact, publish
from picochat.core.records import write_jsonl
from picochat.rundir import RowsFacts, facts_of
from picochat.skills.rows import (
    EvalRow,
    SftRow,
    count_shared_items,
    prepare_rows,
    read_eval_rows,
    read_published_rows,
    read_sft_rows,
    row_json,
    skill_of,
    split_sft_rows,
)
from tests.skills.rows_builder import eval_row, release_rows, sft_row


@dataclass(frozen=True)
class PackWithRows:
    path: Path
    chat_path: Path | None
    eval_path: Path | None


def written(path: Path, *rows: dict[str, Any] | str) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def pack_of(folder: Path, sft: list[SftRow], evals: list[EvalRow]) -> PackWithRows:
    write_jsonl(folder / "chat.jsonl", [row_json(row) for row in sft])
    write_jsonl(folder / "eval.jsonl", [row_json(row) for row in evals])
    return PackWithRows(folder / "dataset_pack.json", folder / "chat.jsonl", folder / "eval.jsonl")


def problems_of(error: pytest.ExceptionInfo[BadInput]) -> str:
    return "\n".join(error.value.lines())


@pytest.mark.parametrize(
    ("category", "skill"),
    [
        ("identity", "identity"),
        ("refusal_benign", "refusal"),
        ("bench_choice_world", "choice"),
        ("bench_math_addition", "math"),
        ("bench_spelling_count", "spelling"),
        ("mathematics", "other"),
        ("chat", "other"),
    ],
)
def test_the_skill_follows_from_the_category(category: str, skill: str) -> None:
    assert skill_of(category) == skill
    assert eval_row(category=category).skill == skill


def test_rows_of_other_makers_are_read_in_the_known_fields(tmp_path: Path) -> None:
    path = written(
        tmp_path / "chat.jsonl",
        {"user": "Hi", "assistant": "Hello", "group_id": "g1", "mixture_profile": "x", "mixture_weight": 0.5},
        {"user": "2+2?", "assistant": "4", "category": "math", "template": "t", "fit_normalized_answer": "4"},
        "",
    )
    first, second = read_sft_rows(path)
    assert (first.id, first.group, first.tags) == ("sft-line-1", "g1", {"mixture_profile": "x", "mixture_weight": 0.5})
    assert (second.group, second.skill, second.fit_normalized_answer) == ("t", "math", "4")
    evals = written(tmp_path / "eval.jsonl", {"user": "2+2?", "expected": "4", "level": 2, "must_include_any": [["4"]]})
    assert read_eval_rows(evals)[0].expected == "4"


def test_all_problems_of_a_file_come_at_once_with_their_lines(tmp_path: Path) -> None:
    path = written(
        tmp_path / "chat.jsonl",
        {"user": "a", "assistant": "b", "id": "x"},
        {"user": 3, "assistant": "b"},
        {"user": "a", "asistant": "b"},
        "{broken",
        "[1]",
        {"user": "  ", "assistant": "b"},
        {"user": "a", "assistant": "b", "id": "x"},
    )
    with pytest.raises(BadInput) as error:
        read_sft_rows(path)
    text = problems_of(error)
    for part in (
        "line 2: user",
        "line 3: assistant: is missing",
        "line 3: asistant: unknown key, did you mean assistant?",
        "line 4: not valid JSON",
        "line 5: a JSON object is needed, found list",
        "line 6: user",
        "line 7: id 'x' stands on line 1 already",
        "picochat data task-pack",
    ):
        assert part in text
    assert error.value.exit_code == 4


def test_only_the_first_problems_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "eval.jsonl", *[{"user": 1}] * 50)
    with pytest.raises(BadInput) as error:
        read_eval_rows(path)
    assert len(error.value.problems) == 21
    assert "50 problems" in error.value.what
    assert "30 more" in error.value.problems[-1].what


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe\n", None])
def test_files_without_usable_rows_name_the_command_that_makes_them(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "eval.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput) as error:
        read_eval_rows(path)
    assert "picochat data task-pack" in problems_of(error)


def test_a_right_choice_that_is_no_label_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "e.jsonl", {"user": "q", "choice_labels": ["A"], "correct_choice": "B"})
    with pytest.raises(BadInput) as error:
        read_eval_rows(path)
    assert "none of choice_labels" in problems_of(error)


def test_rows_survive_writing_and_reading(tmp_path: Path) -> None:
    sft, evals = release_rows(64, 32)
    pack = pack_of(tmp_path, sft, evals)
    assert pack.chat_path
    assert pack.eval_path
    assert read_sft_rows(pack.chat_path) == sft
    assert read_eval_rows(pack.eval_path) == evals


def test_the_stage_splits_by_item_and_states_what_it_measured(tmp_path: Path) -> None:
    sft, evals = release_rows()
    pack = pack_of(tmp_path, sft, evals)
    with publish(tmp_path / "rows", "rows", "key", {}) as draft:
        prepare_rows(pack, 42, draft)
    artifact = open_artifact(tmp_path / "rows", "rows")
    facts = facts_of(artifact, RowsFacts)
    train = list(read_published_rows(artifact.path("sft_train.jsonl"), SftRow))
    held_out = list(read_published_rows(artifact.path("sft_held_out.jsonl"), SftRow))
    assert {row.item for row in train}.isdisjoint({row.item for row in held_out})
    assert sorted(row.id for row in train + held_out) == sorted(row.id for row in sft)
    assert 0.05 < len(held_out) / len(sft) < 0.16
    assert facts.sft_by_skill == {"choice": 56, "identity": 140, "math": 168, "refusal": 56, "spelling": 140}
    assert facts.eval_by_skill == {"choice": 24, "identity": 60, "math": 72, "refusal": 24, "spelling": 60}
    assert facts.eval_items_by_skill == facts.eval_by_skill
    assert (facts.shared_items, facts.eval_rows_without_rule, facts.repeated_sft_prompts) == (0, 0, 0)


def test_the_stage_counts_what_is_wrong_with_the_rows(tmp_path: Path) -> None:
    sft = [sft_row(id="1", item="i1"), sft_row(id="2", user="hello"), sft_row(id="3", user="Say: one two")]
    evals = [
        eval_row(id="e1", user="x", item="i1", normalized_answers=["1"]),
        eval_row(id="e2", user="say ONE two!", item="i2"),
        eval_row(id="e3", user="y", item="i3", must_include=["a"]),
    ]
    with publish(tmp_path / "rows", "rows", "key", {}) as draft:
        prepare_rows(pack_of(tmp_path, sft, evals), 42, draft)
    facts = facts_of(open_artifact(tmp_path / "rows", "rows"), RowsFacts)
    assert (facts.shared_items, facts.eval_rows_without_rule, facts.repeated_sft_prompts) == (2, 1, 1)


def test_missing_rows_of_both_kinds_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "chat.jsonl").touch()
    with pytest.raises(BadInput) as error, publish(tmp_path / "rows", "rows", "key", {}) as draft:
        prepare_rows(PackWithRows(tmp_path / "dataset_pack.json", tmp_path / "chat.jsonl", None), 42, draft)
    assert "has no rows" in problems_of(error)
    assert "eval: the pack names no file" in problems_of(error)
    assert f"--dataset-pack {tmp_path}" in problems_of(error)
    assert not (tmp_path / "rows").exists()


def test_the_split_follows_from_seed_and_item() -> None:
    rows = [sft_row(id=str(n), item=f"i{n // 2}") for n in range(2000)]
    train, held_out = split_sft_rows(rows, 1)
    assert (train, held_out) == split_sft_rows(rows, 1)
    assert held_out != split_sft_rows(rows, 2)[1]
    assert 140 < len(held_out) < 260


def test_a_shared_item_is_counted_once_however_many_rows_ask_it() -> None:
    sft = [sft_row(item="i1")]
    assert count_shared_items(sft, [eval_row(id="1", item="i1"), eval_row(id="2", item="i1")]) == 1


def test_an_sft_row_and_an_eval_row_may_not_share_an_id(tmp_path: Path) -> None:
    """Replies are kept and judged by id, so the rule of the SFT row would judge the eval row's reply."""
    pack = pack_of(tmp_path, [sft_row(id="1")], [eval_row(id="1", user="x", must_include=["a"])])
    with pytest.raises(BadInput) as error, publish(tmp_path / "rows", "rows", "key", {}) as draft:
        prepare_rows(pack, 1, draft)
    assert "ids stand for an SFT row and an eval row, the first: '1'" in problems_of(error)
