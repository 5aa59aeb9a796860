import json
from pathlib import Path

import pytest

from picochat.data.pack import load_pack
from picochat.data.preview import preview_pack
from picochat.data.preview_record import Preview
from picochat.data.preview_terminal import render_preview
from picochat.data.preview_text import character_mix
from picochat.scales import find_scale
from tests.data.builders import make_pack, prose, write


def _preview(pack: Path, scale: str = "tiny", sample_bytes: int | None = None, *, full: bool = False) -> Preview:
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
    assert found.duplicates.exact_share == pytest.approx(30 / 430)
    assert found.sources[0].percentiles["p50"] > 100


def test_raw_files_beyond_the_sample_are_scaled_up_within_a_tenth(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    count = 0
    for file in range(4):
        rows = [{"text": prose(10_000 * file + row, words=20 + row % 30)} for row in range(800)]
        count += len(rows)
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = _preview(write(tmp_path / "dataset_pack.json", {"corpus": "raw"}), sample_bytes=200_000).sources[0]
    assert not found.exact
    assert found.looked_at_bytes < 1.1 * 200_000 < sum(path.stat().st_size for path in folder.iterdir())
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
    assert 4.0 < found.bytes_per_token.low <= found.bytes_per_token.value <= found.bytes_per_token.high < 8.0
    assert found.tokens.value == round(found.text_bytes / found.bytes_per_token.value + found.documents)


def test_weight_enters_the_tokens(tmp_path: Path) -> None:
    once = _preview(make_pack(tmp_path / "a", {"web": _documents(0, 200)})).sources[0].tokens
    twice = _preview(make_pack(tmp_path / "b", {"web": _documents(0, 200)}, web={"weight": 2.0})).sources[0].tokens
    assert once is not None
    assert twice is not None
    assert twice.value == pytest.approx(2 * once.value, abs=2)


def test_scripts_are_shares_of_letters() -> None:
    ascii_share, scripts, kinds = character_mix(["abcd жжжж 1234"])
    assert ascii_share == 0.5
    assert scripts == {"LATIN": 0.5, "CYRILLIC": 0.5}
    assert kinds == pytest.approx({"letters": 8 / 14, "digits": 4 / 14, "spaces": 2 / 14})
    assert character_mix(["1234"]) == (None, {}, {"digits": 1.0})


def test_screen_says_what_is_missing_and_fits_one_page(tmp_path: Path) -> None:
    screen = render_preview(_preview(make_pack(tmp_path, {"web": _documents(0, 50), "books": _documents(90, 50)})))
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
