import json
from pathlib import Path

import pytest

from picochat.data.pack import load_pack
from picochat.preview.preview_pack import preview_pack
from picochat.preview.preview_record import Preview
from picochat.preview.preview_screen import render_preview
from picochat.scales import find_scale
from picochat.skills.prepare import split_sft_rows
from picochat.skills.row_files import read_sft_rows
from picochat.skills.skill_table import SKILLS
from tests.data.builders import make_pack, parquet_bytes, prose, write
from tests.small_pack import make_pack as make_small_pack


def _preview(
    pack: Path, scale: str = "tiny", sample_bytes: int | None = None, *, full: bool = False
) -> Preview:
    """sample_bytes: at most so much is read, however small the pack."""
    limits = {"sample_bytes": sample_bytes, "whole_bytes": 0} if sample_bytes else {}
    return preview_pack(load_pack(pack), find_scale(scale), full=full, **limits)


def _documents(first: int, count: int) -> list[tuple[str, str]]:
    return [(str(number), prose(number)) for number in range(first, first + count)]


def test_small_pack_is_counted_not_estimated(tmp_path: Path) -> None:
    documents = [*_documents(0, 300), *((f"again-{number}", prose(number)) for number in range(30))]
    found = _preview(make_pack(tmp_path, {"web": documents, "books": _documents(1000, 100)}))
    assert (found.documents, found.text_bytes) == (
        430,
        sum(len(text) for _, text in [*documents, *_documents(1000, 100)]),
    )
    assert all(source.exact for source in found.sources)
    assert found.duplicates.complete
    assert found.duplicates.exact_fraction == pytest.approx(30 / 430)
    assert found.sources[0].percentiles["p50"] > 100


def test_raw_files_beyond_the_sample_are_scaled_up_within_a_tenth(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    count = 0
    for file in range(4):
        rows = [{"text": prose(10_000 * file + row, words=20 + row % 30)} for row in range(800)]
        count += len(rows)
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = _preview(
        write(tmp_path / "dataset_pack.json", {"corpus": "raw"}), sample_bytes=200_000
    ).sources[0]
    assert not found.exact
    assert (
        found.looked_at_bytes
        < 1.1 * 200_000
        < sum(path.stat().st_size for path in folder.iterdir())
    )
    assert abs(found.documents - count) < 0.1 * count


def test_verdict_follows_the_epochs(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, {"web": _documents(0, 400)})
    small = _preview(pack, "h100-100m").fit
    assert small.epochs is not None
    assert small.epochs.value > 16
    assert "too small: preflight will block" in small.verdict
    assert "more documents like web's" in small.verdict
    assert small.planned_tokens == 33_000 * 128 * 512
    assert small.parameters == 106_969_856


def test_estimated_tokens_are_near_what_a_tokenizer_of_the_same_text_counts(tmp_path: Path) -> None:
    found = _preview(make_pack(tmp_path, {"web": _documents(0, 500)})).sources[0]
    # Twelve words and digits: most words are one token with their space, so some six bytes a token.
    assert found.bytes_per_token is not None
    assert found.tokens is not None
    assert (
        4.0
        < found.bytes_per_token.low
        <= found.bytes_per_token.value
        <= found.bytes_per_token.high
        < 8.0
    )
    assert found.tokens.value == round(
        found.text_bytes / found.bytes_per_token.value + found.documents
    )


def test_weight_enters_the_tokens(tmp_path: Path) -> None:
    once = _preview(make_pack(tmp_path / "a", {"web": _documents(0, 200)})).sources[0].tokens
    twice = (
        _preview(make_pack(tmp_path / "b", {"web": _documents(0, 200)}, web={"weight": 2.0}))
        .sources[0]
        .tokens
    )
    assert once is not None
    assert twice is not None
    assert twice.value == pytest.approx(2 * once.value, abs=2)


def test_screen_says_what_is_missing_and_fits_one_page(tmp_path: Path) -> None:
    screen = render_preview(
        _preview(make_pack(tmp_path, {"web": _documents(0, 50), "books": _documents(90, 50)}))
    )
    assert "picochat data task-pack --dataset-pack" in screen
    assert len(screen.splitlines()) < 40
    assert "licence not stated" in screen


def test_pack_without_text_is_unmeasured_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" ")
    found = _preview(write(tmp_path / "dataset_pack.json", {"corpus": "empty.txt"}))
    assert found.documents == 0
    assert found.fit.epochs is None
    assert found.fit.verdict.startswith("unmeasured")
    assert found.sources[0].unusable_rows == {"empty_text": 1}
    render_preview(found)


def test_full_reading_of_a_large_pack_counts_what_a_sample_estimates(tmp_path: Path) -> None:
    """Both sides of the bound: read as a whole, and read in full file by file with the corpus
    stage.
    """
    web = [*_documents(0, 300), *((f"again-{number}", prose(number)) for number in range(30))]
    web += [
        (f"near-{number}", prose(number).replace("Text", "Page", 1)) for number in range(100, 120)
    ]
    pack = make_pack(tmp_path, {"web": web, "books": _documents(1000, 100)})
    whole, full = _preview(pack), _preview(pack, sample_bytes=20_000, full=True)
    sampled = _preview(pack, sample_bytes=20_000)
    assert full.full
    assert "all of the text was read" in full.basis
    assert not sampled.duplicates.complete
    for one, other in zip(whole.sources, full.sources, strict=True):
        for name in (
            "documents",
            "text_bytes",
            "exact",
            "lengths",
            "percentiles",
            "mean_characters",
            "repeated_lines",
        ):
            assert getattr(one, name) == getattr(other, name), name
    for name in ("complete", "documents", "exact", "near", "exact_fraction", "near_fraction"):
        assert getattr(whole.duplicates, name) == getattr(full.duplicates, name), name
    near = [cluster for cluster in full.duplicates.clusters if cluster.kind == "near"]
    assert [len(cluster.texts) for cluster in near] == [2, 2, 2, 2]
    assert near[0].texts[0].text == prose(100)


def test_counts_of_parquet_files_come_from_their_footers(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    texts = [prose(number, words=10 + number % 90) for number in range(3_000)]
    (tmp_path / "raw" / "a.parquet").write_bytes(parquet_bytes(texts[:1_000], group_rows=500))
    (tmp_path / "raw" / "b.parquet").write_bytes(parquet_bytes(texts[1_000:], group_rows=500))
    found = _preview(
        write(tmp_path / "dataset_pack.json", {"corpus": "raw"}), sample_bytes=50_000
    ).sources[0]
    assert found.documents == 3_000
    assert found.text_bytes == pytest.approx(sum(map(len, texts)), rel=0.02)
    assert not found.exact


def test_a_recipe_that_asks_for_longer_texts_is_counted_so(tmp_path: Path) -> None:
    documents = [
        (str(number), prose(number, words=5 if number % 2 else 60)) for number in range(600)
    ]
    pack = make_pack(tmp_path, {"web": documents}, web={"min_chars": 200})
    found = _preview(pack, sample_bytes=40_000).sources[0]
    assert not found.exact
    assert found.documents == pytest.approx(300, rel=0.1)
    assert set(found.unusable_rows) == {"below_min_chars"}


def test_conversations_are_shown_with_what_is_trained(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, {"web": _documents(0, 50)})
    rows = [
        {"id": str(n), "system": "Be brief.", "user": f"Question {n}?", "assistant": f"Answer {n}."}
        for n in range(50)
    ]
    (pack.parent / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    found = _preview(pack).sft
    assert (found.rows, found.state) == (50, "50 in chat.jsonl")
    assert [parts[1].text for parts in found.conversations] == [
        f"Question {n}?" for n in range(0, 50, 10)
    ]
    assert [(part.role, part.trained) for part in found.conversations[0]] == [
        ("system", False),
        ("user", False),
        ("assistant", True),
    ]


def test_one_long_file_is_measured_in_parts(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("\n".join(prose(number) for number in range(3_000)))
    found = _preview(write(tmp_path / "dataset_pack.json", {"corpus": "book.txt"}))
    assert found.documents == 1
    assert found.sources[0].bytes_per_token is not None


def test_the_packs_rows_are_judged_as_the_preflight_judges_them(tmp_path: Path) -> None:
    pack = make_small_pack(tmp_path / "pack")
    found = {each.check: each for each in _preview(pack, "h100-100m").fit.forecasts}
    train, _ = split_sft_rows(read_sft_rows(pack.parent / "chat.jsonl").rows, 42)
    assert found["sft_rows"].measured.value == len(train) < 60
    assert found["sft_rows"].status == "block"  # 60 rows are fewer than 300
    assert found["eval_independence"].status == "pass"
    assert found["eval_trivial_answers"].measured.value > 0  # a line passes all 10 of identity
    assert found["gate_power"].status == "block"
    (tmp_path / "pack/eval.jsonl").write_text("\n")
    broken = {each.check for each in _preview(pack, "h100-100m").fit.forecasts}
    assert "documents" in broken
    assert not broken & {"sft_rows", "eval_independence", "eval_trivial_answers", "gate_power"}


def test_the_best_trivial_answer_of_each_skill_stands_beside_the_eval_rows(tmp_path: Path) -> None:
    details = _preview(make_small_pack(tmp_path / "pack"), "tiny").eval.details
    found = [line for line in details if "best trivial answer" in line]
    assert [line.split(":")[0] for line in found] == list(dict.fromkeys(s.name for s in SKILLS))
