from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from picochat.core.errors import BadInput
from picochat.core.publish import open_artifact, publish
from picochat.core.records import write_jsonl
from picochat.facts import RowsFacts, RowSource, facts_of
from picochat.skills.mixture import rows_by_skill
from picochat.skills.prepare import eval_cells, facts_from, prepare_rows, split_sft_rows
from picochat.skills.task_rows import EvalRow, SftRow, read_published_rows, row_json
from tests.builders import make_config
from tests.skills.rows_builder import eval_row, release_rows, sft_row


@dataclass(frozen=True)
class PackWithRows:
    path: Path
    chat_path: Path | None
    eval_path: Path | None
    row_sources: list[RowSource] = field(default_factory=list)


def pack_of(folder: Path, sft: list[SftRow], evals: list[EvalRow]) -> PackWithRows:
    write_jsonl(folder / "chat.jsonl", [row_json(row) for row in sft])
    write_jsonl(folder / "eval.jsonl", [row_json(row) for row in evals])
    return PackWithRows(folder / "dataset_pack.json", folder / "chat.jsonl", folder / "eval.jsonl")


def test_the_stage_splits_by_item_and_states_what_it_measured(tmp_path: Path) -> None:
    sft, evals = release_rows()
    pack = pack_of(tmp_path, sft, evals)
    with publish(tmp_path / "rows", "rows", "key", {}) as staging:
        prepare_rows(pack, 42, staging)
    artifact = open_artifact(tmp_path / "rows", "rows")
    facts = facts_of(artifact, RowsFacts)
    train = list(read_published_rows(artifact.path("sft_train.jsonl"), SftRow))
    held_out = list(read_published_rows(artifact.path("sft_held_out.jsonl"), SftRow))
    assert {row.item for row in train}.isdisjoint({row.item for row in held_out})
    assert sorted(row.id for row in train + held_out) == sorted(row.id for row in sft)
    assert 0.05 < len(held_out) / len(sft) < 0.16
    assert facts.sft_by_skill == rows_by_skill("release_skills", len(sft), "sft")
    assert facts.eval_by_skill == rows_by_skill("release_skills", len(evals), "eval")
    assert list(facts.sft_by_skill) == list(facts.eval_by_skill) == sorted(facts.sft_by_skill)
    assert facts.eval_items_by_skill == facts.eval_by_skill
    assert (facts.shared_items, facts.eval_rows_without_rule, facts.repeated_sft_prompts) == (
        0,
        0,
        0,
    )


def test_the_sources_that_the_pack_states_of_its_rows_are_facts(tmp_path: Path) -> None:
    sources = [RowSource(label="arc", dataset="a/b", revision="c", licence="cc-by-sa-4.0")]
    pack = replace(pack_of(tmp_path, *release_rows(64, 32)), row_sources=sources)
    with publish(tmp_path / "rows", "rows", "key", {}) as staging:
        prepare_rows(pack, 42, staging)
    assert facts_of(open_artifact(tmp_path / "rows", "rows"), RowsFacts).sources == sources


def test_eval_rows_are_counted_by_skill_level_side_and_rows_of_an_item() -> None:
    rows = [
        eval_row(category="refusal", curriculum_stage="unsafe", answerable=False, item=item)
        for item in ("a", "a", "a", "b", "c")
    ]
    rows += [eval_row(category="math", item="1 + 1"), eval_row(category="math", user="2 + 2?")]
    rows.append(eval_row(category="own"))
    assert [cell.model_dump() for cell in eval_cells(rows)] == [
        {"skill": "math", "level": None, "answerable": True, "rows": 2, "items": {"1": 2}},
        {
            "skill": "refusal",
            "level": "unsafe",
            "answerable": False,
            "rows": 5,
            "items": {"1": 2, "3": 1},
        },
    ]


def test_the_stage_counts_what_is_wrong_with_the_rows(tmp_path: Path) -> None:
    sft = [
        sft_row(id="1", item="i1"),
        sft_row(id="2", user="hello"),
        sft_row(id="3", user="Say: one two"),
        sft_row(id="4", user="A kitten is what?", assistant="A young cat."),
    ]
    evals = [
        eval_row(id="e1", user="x", item="i1", normalized_answers=["1"]),
        eval_row(id="e2", user="say ONE two!", item="i2"),
        eval_row(id="e3", user="y", item="i3", must_include=["a"]),
        eval_row(id="e4", user="z", item="i4", subject="cat", reference_answer="kitten"),
    ]
    with publish(tmp_path / "rows", "rows", "key", {}) as staging:
        prepare_rows(pack_of(tmp_path, sft, evals), 42, staging)
    facts = facts_of(open_artifact(tmp_path / "rows", "rows"), RowsFacts)
    assert (facts.shared_items, facts.eval_rows_without_rule, facts.repeated_sft_prompts) == (
        3,
        1,
        1,
    )


def test_empty_files_of_both_kinds_are_told_at_once(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("chat.jsonl", "eval.jsonl")]
    for path in paths:
        path.touch()
    with pytest.raises(BadInput) as error, publish(tmp_path / "rows", "rows", "key", {}) as staging:
        prepare_rows(PackWithRows(tmp_path / "dataset_pack.json", *paths), 42, staging)
    said = "\n".join(error.value.lines())
    assert said.count("has no rows") == 2
    assert said.count("fix: write rows into it") == 2
    assert not (tmp_path / "rows").exists()


def test_a_pack_that_names_no_rows_has_none(tmp_path: Path) -> None:
    with publish(tmp_path / "rows", "rows", "key", {}) as staging:
        prepare_rows(PackWithRows(tmp_path / "dataset_pack.json", None, None), 42, staging)
    facts = facts_of(open_artifact(tmp_path / "rows", "rows"), RowsFacts)
    assert (facts.sft_train_rows, facts.sft_held_out_rows, facts.eval_rows) == (0, 0, 0)


def test_the_split_follows_from_seed_and_item() -> None:
    rows = [sft_row(id=str(n), item=f"i{n // 2}") for n in range(2000)]
    train, held_out = split_sft_rows(rows, 1)
    assert (train, held_out) == split_sft_rows(rows, 1)
    assert held_out != split_sft_rows(rows, 2)[1]
    assert 140 < len(held_out) < 260


def test_an_sft_row_and_an_eval_row_may_not_share_an_id(tmp_path: Path) -> None:
    """Replies are scored by id: the rule of the SFT row would score the reply to the eval row."""
    pack = pack_of(tmp_path, [sft_row(id="1")], [eval_row(id="1", user="x", must_include=["a"])])
    with pytest.raises(BadInput) as error, publish(tmp_path / "rows", "rows", "key", {}) as staging:
        prepare_rows(pack, 1, staging)
    assert "ids stand for an SFT row and an eval row, the first: '1'" in "\n".join(
        error.value.lines()
    )


def test_facts_are_computed_again_from_the_published_rows(tmp_path: Path) -> None:
    with publish(tmp_path / "rows", "rows", "key", {}) as staging:
        prepare_rows(pack_of(tmp_path, *release_rows(64, 32)), 42, staging)
    artifact = open_artifact(tmp_path / "rows", "rows")
    stated = facts_of(artifact, RowsFacts)
    assert facts_from(artifact.place, {}, make_config()) == stated
    evals = artifact.path("eval.jsonl")
    first, *rest = evals.read_bytes().splitlines(keepends=True)
    evals.write_bytes(b"".join(rest))
    again = facts_from(artifact.place, {}, make_config())
    assert again.eval_rows == stated.eval_rows - 1
    evals.write_bytes(b"".join([first, first, *rest]))
    again = facts_from(artifact.place, {}, make_config())
    assert sum(again.eval_by_skill.values()) == stated.eval_rows + 1
    assert again.eval_items_by_skill == stated.eval_items_by_skill


def test_problems_of_both_files_come_together(tmp_path: Path) -> None:
    pack = pack_of(tmp_path, [sft_row()], [eval_row()])
    for name in ("chat", "eval"):
        with (tmp_path / f"{name}.jsonl").open("a") as stream:
            stream.write('{"user": "a", "asistant": "b", "skill": "maths"}\n')
    with pytest.raises(BadInput) as error, publish(tmp_path / "rows", "rows", "key", {}) as staging:
        prepare_rows(pack, 1, staging)
    said = "\n".join(error.value.lines())
    assert said.count("asistant: unknown key") == 2
    assert said.count("skill: value error, no skill; it is one of math, spelling") == 2


def test_rows_of_one_item_stay_on_one_side_and_without_items_prompts_decide() -> None:
    rows = [sft_row(id=str(n), user=f"Is {n // 3} even?") for n in range(900)]
    train, held_out = split_sft_rows(rows, 5)
    assert {row.user for row in train}.isdisjoint(row.user for row in held_out)
    grouped = [row.model_copy(update={"group": "all of them"}) for row in rows]
    assert [] in split_sft_rows(grouped, 5)


def test_chats_that_end_in_the_same_question_are_different_prompts(tmp_path: Path) -> None:
    chats = [
        sft_row(
            id=str(n),
            user="Thanks, and how far?",
            history=[
                {"role": "user", "content": f"Where is house {n}?"},
                {"role": "assistant", "content": "Near the sea."},
            ],
        )
        for n in range(900)
    ]
    train, held_out = split_sft_rows(chats, 5)
    assert 50 < len(held_out) < 150 and train
    pack = pack_of(tmp_path, [*chats, chats[0].model_copy(update={"id": "again"})], [eval_row()])
    with publish(tmp_path / "rows", "rows", "key", {}) as staging:
        prepare_rows(pack, 5, staging)
    assert facts_of(open_artifact(tmp_path / "rows", "rows"), RowsFacts).repeated_sft_prompts == 1
