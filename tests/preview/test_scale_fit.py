import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from picochat.cli.data import app
from picochat.config import ExercisesConfig
from picochat.data.importing.hf_import import import_dataset
from picochat.data.pack import LoadedPack, load_pack
from picochat.facts import RowsFacts
from picochat.gate.measures import JUDGED_SKILLS as SKILLS
from picochat.gate.preflight import CHECKS, decide_preflight
from picochat.preview.preview_record import Duplicates, Interval, ScaleFit, SourcePreview
from picochat.preview.scale_fit import added, estimated_facts, fit_scale, round_up
from picochat.scales import Scale, find_scale
from tests.builders import change, own_rows
from tests.data.builders import make_pack, parquet_files, prose, request, write

PLANNED = 33_000 * 128 * 512
ROWS = RowsFacts(
    chat_read=own_rows(440),
    eval_read=own_rows(300),
    sft_turns=440,
    eval_scored_by={"exact answer": 300},
    sft_train_rows=400,
    sft_held_out_rows=40,
    eval_rows=300,
    sft_by_skill=dict.fromkeys(SKILLS, 88),
    eval_by_skill=dict.fromkeys(SKILLS, 60),
    eval_items_by_skill=dict.fromkeys(SKILLS, 60),
    repeated_sft_prompts=0,
    eval_rows_without_rule=0,
    shared_items=0,
)


def _without_exercises(name: str) -> Scale:
    scale = find_scale(name)
    return replace(scale, config=change(scale.config, exercises=ExercisesConfig(fraction=0)))


WITHOUT_EXERCISES = _without_exercises("h100-100m")
NO_DUPLICATES = Duplicates(
    complete=True,
    basis="all",
    documents=1,
    exact=0,
    near=0,
    exact_fraction=0.0,
    near_fraction=0.0,
    pairs=[],
    clusters=[],
)


def _source(label: str = "web", tokens: float | None = 3e8, **changes: object) -> SourcePreview:
    """A source of 1,000 tokens a document at 4 bytes each, the interval one percent wide."""
    found = Interval(value=tokens, low=tokens * 0.995, high=tokens * 1.005) if tokens else None
    source = SourcePreview(
        label=label,
        origin=label,
        licence=None,
        files=1,
        weight=1.0,
        exact=True,
        documents=round((tokens or 0) / 1_000),
        text_bytes=round((tokens or 0) * 4),
        looked_at_documents=1,
        looked_at_bytes=1,
        mean_characters=1.0,
        percentiles={},
        lengths=[],
        unusable_rows={},
        skipped_at_import={},
        files_left_out={},
        repeated_ids=0,
        ascii_letter_fraction=1.0,
        scripts={},
        characters={},
        languages=None,
        bytes_per_token=Interval(value=4.0, low=3.98, high=4.02) if tokens else None,
        tokens=found,
        repeated_lines=[],
        shown=[],
    )
    return change(source, **changes)


def _imported_pack(
    folder: Path, *, rows: int = 300, max_rows: int = 300, files: int = 4
) -> LoadedPack:
    """A pack over a local import of `rows` rows at most."""
    for name, data in parquet_files(files=files, rows=200).items():
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "data" / name).write_bytes(data)
    out = folder / "web"
    import_dataset(request(out, str(folder / "data"), max_rows=max_rows))
    pack = write(folder / "dataset_pack.json", {"corpus": {"recipe": "r.json"}})
    write(folder / "r.json", {"sources": [{"path": "web/documents", "label": "web"}]})
    return load_pack(pack)


def _fit(
    pack: LoadedPack, *sources: SourcePreview, duplicates: Duplicates = NO_DUPLICATES
) -> ScaleFit:
    return fit_scale(sources, pack.sources[: len(sources)], duplicates, WITHOUT_EXERCISES)


@pytest.fixture
def plain_pack(tmp_path: Path) -> LoadedPack:
    return load_pack(make_pack(tmp_path, {"web": [("1", prose(1))], "books": [("2", prose(2))]}))


@pytest.mark.parametrize(
    ("tokens", "status", "says"),
    [
        (5e7, "block", "too small: preflight will block"),
        (3e8, "warn", "small: preflight will warn"),
        (1e9, "pass", "enough"),
        (4e9, "pass", "enough; 46% of the text would never be read"),
        (2e10, "warn", "too large: 89% of the text would never be read"),
    ],
)
def test_verdict_says_small_enough_or_large(
    plain_pack: LoadedPack, tokens: float, status: str, says: str
) -> None:
    fit = _fit(plain_pack, _source(tokens=tokens))
    assert fit.status == status
    assert fit.verdict.startswith(says)
    assert fit.planned_tokens == PLANNED


@pytest.mark.parametrize(("scale", "status"), [("h100-100m", "block"), ("tiny", "warn")])
def test_only_a_long_run_of_a_release_profile_is_foreseen_as_blocked(
    plain_pack: LoadedPack, scale: str, status: str
) -> None:
    fit = fit_scale(
        [_source(tokens=1_000.0)], plain_pack.sources[:1], NO_DUPLICATES, find_scale(scale)
    )
    assert fit.status == status
    assert f"preflight will {status}" in fit.verdict
    assert fit.profile == find_scale(scale).config.gate.profile


def test_a_plan_that_is_met_is_told_apart_from_a_target_that_is_not(plain_pack: LoadedPack) -> None:
    fit = fit_scale(
        [_source(tokens=1.846e6)], plain_pack.sources[:1], NO_DUPLICATES, _without_exercises("tiny")
    )
    assert fit.verdict.startswith(
        "enough for the plan; 28% of the text would never be read; but 23 epochs"
    )
    assert fit.status == "warn"


def test_following_the_advice_makes_four_epochs(plain_pack: LoadedPack) -> None:
    fit = _fit(plain_pack, _source("web", 2e8), _source("books", 5e7))
    words = fit.verdict.split()
    more = int(words[words.index("more") - 1].replace(",", ""))
    assert "documents like web's" in fit.verdict
    again = _fit(plain_pack, _source("web", 2e8 + 1_000 * more), _source("books", 5e7))
    assert again.epochs is not None
    assert 3.7 < again.epochs.value <= 4.0


def test_exact_duplicates_are_no_training_tokens(plain_pack: LoadedPack) -> None:
    once, half = (
        _fit(
            plain_pack,
            _source(tokens=1e8),
            duplicates=change(NO_DUPLICATES, exact_fraction=fraction),
        )
        for fraction in (0.0, 0.5)
    )
    assert once.train_tokens is not None
    assert half.train_tokens is not None
    assert half.train_tokens.value == pytest.approx(once.train_tokens.value / 2)


def test_an_unmeasured_source_makes_the_whole_unmeasured(plain_pack: LoadedPack) -> None:
    fit = _fit(plain_pack, _source(), _source("books", None))
    assert (fit.epochs, fit.status, fit.advice) == (None, "unmeasured", [])
    assert fit.verdict.startswith("unmeasured")


def test_an_interval_over_a_bound_counts_as_the_worse(plain_pack: LoadedPack) -> None:
    tokens = PLANNED / 3.9
    wide = Interval(value=tokens, low=tokens * 0.9, high=tokens * 1.1)
    fit = _fit(plain_pack, change(_source(tokens=tokens), tokens=wide))
    forecast = next(each for each in fit.forecasts if each.check == "base_exposure")
    assert forecast.measured.value < 4.0
    assert (forecast.status, forecast.better) == ("warn", "pass")


def test_a_sample_forecasts_duplicates_only_where_they_are_too_many_already(
    plain_pack: LoadedPack,
) -> None:
    def status(fraction: float) -> str:
        sampled = change(NO_DUPLICATES, complete=False, exact_fraction=fraction)
        fit = _fit(plain_pack, _source(), duplicates=sampled)
        return next(each.status for each in fit.forecasts if each.check == "duplicate_documents")

    assert [status(0.001), status(0.05), status(0.2)] == ["unmeasured", "warn", "block"]


def test_forecasts_are_what_the_preflight_decides_at_either_end(plain_pack: LoadedPack) -> None:
    """The verdict on a run whose shards hold the low, and the high, end of the tokens."""
    tokens = PLANNED / 3.99
    wide = Interval(value=tokens, low=tokens * 0.2, high=tokens * 1.2)
    sources, scale = [change(_source(tokens=tokens), tokens=wide)], find_scale("h100-100m")
    fit = fit_scale(sources, plain_pack.sources[:1], NO_DUPLICATES, scale, ROWS)
    reports = [
        decide_preflight(
            estimated_facts(sources, plain_pack.sources[:1], NO_DUPLICATES, ROWS, scale.config, end)
        )
        for end in (wide.low, wide.high)
    ]
    ends = [{finding.name: finding for finding in report.findings} for report in reports]
    assert {each.check for each in fit.forecasts} >= {"base_exposure", "sft_rows", "eval_power"}
    for each in fit.forecasts:
        assert {each.status, each.better} == {end[each.check].status for end in ends}, each.check
        numbers = [number for end in ends if (number := end[each.check].measured) is not None]
        assert [each.measured.low, each.measured.high] == sorted(numbers), each.check
        assert each.bound in {end[each.check].bound for end in ends}
    exposure = next(each for each in fit.forecasts if each.check == "base_exposure")
    assert (exposure.better, exposure.status) == ("pass", "block")
    bounds = [str(row.block) for row in CHECKS if row.name == "base_exposure"]
    assert exposure.bound in bounds


def test_a_check_without_evidence_is_not_forecast(plain_pack: LoadedPack) -> None:
    seen = {each.check for each in _fit(plain_pack, _source()).forecasts}
    assert "base_exposure" in seen
    assert not seen & {"sft_rows", "tokenizer_roundtrip", "contamination_sft_eval", "memory_fit"}
    without_tokens = {each.check for each in _fit(plain_pack, _source(tokens=None)).forecasts}
    assert "documents" in without_tokens
    assert not without_tokens & {"base_exposure", "held_out_tokens", "release_token_budget"}


def test_exercises_are_training_tokens_and_shorten_what_is_missing(plain_pack: LoadedPack) -> None:
    """`tiny` asks for 30%, of tokens counted at 3.5 bytes of text each."""
    scale, tokens = find_scale("tiny"), 1.5e6
    sources = [_source(tokens=tokens)]
    fit = fit_scale(sources, plain_pack.sources[:1], NO_DUPLICATES, scale)
    assert fit.train_tokens is not None
    text = 0.99 * tokens
    assert fit.exercise_tokens == pytest.approx(text * 4 / 3.5 * 0.3 / 0.7, rel=1e-4)
    assert fit.train_tokens.value == pytest.approx(text + fit.exercise_tokens, rel=1e-4)
    words = fit.verdict.split()
    more = int(words[words.index("more") - 1].replace(",", ""))
    again = fit_scale(
        [_source(tokens=tokens + 1_000 * more)], plain_pack.sources[:1], NO_DUPLICATES, scale
    )
    assert again.train_tokens is not None
    assert 3.7 < again.target_tokens / again.train_tokens.value <= 4.0


def test_nobody_is_sent_for_rows_that_a_dataset_does_not_have(tmp_path: Path) -> None:
    pack = _imported_pack(tmp_path, rows=800, max_rows=5_000)  # four files of 200 rows
    fit = _fit(pack, _source(tokens=2e8))
    assert fit.advice == []
    assert "web was imported whole, so they must come from another dataset" in fit.verdict


def test_the_advised_import_is_a_command_that_runs(tmp_path: Path) -> None:
    pack = _imported_pack(tmp_path, max_rows=300)
    fit = _fit(pack, _source(tokens=2e8))
    (advice,) = fit.advice
    assert advice.rows_now == 300
    needed = (PLANNED / 4 - 2e8) / 1_000
    assert needed < advice.max_rows < 1.2 * needed + 1_000
    command = shlex.split(advice.command)
    assert command[:3] == ["picochat", "data", "hf-import"]
    before = pack.sources[0].manifest
    result = CliRunner().invoke(app, command[2:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    after = load_pack(pack.path).sources[0].manifest
    assert before is not None
    assert after is not None
    assert before.documents < after.documents == 800
    report = json.loads((tmp_path / "web" / "hf_import_report.json").read_text())
    assert report["max_rows"] == advice.max_rows


def test_a_dataset_without_further_rows_is_not_advised_to_give_more(tmp_path: Path) -> None:
    web = _imported_pack(tmp_path / "a", max_rows=300).sources[0]
    spent = _imported_pack(tmp_path / "b", max_rows=5_000).sources[0]
    fit = fit_scale(
        [_source("web", 1e8), _source("spent", 2e8)], [web, spent], NO_DUPLICATES, WITHOUT_EXERCISES
    )
    assert [advice.source for advice in fit.advice] == ["web"]
    assert "documents like web's" in fit.verdict


def test_a_pack_that_is_too_large_is_advised_fewer_rows_of_every_import(tmp_path: Path) -> None:
    sources = [_imported_pack(tmp_path / name, max_rows=300).sources[0] for name in ("a", "b")]
    fit = fit_scale(
        [_source("a", 1e10), _source("b", 1e10)], sources, NO_DUPLICATES, WITHOUT_EXERCISES
    )
    assert [(advice.source, advice.max_rows) for advice in fit.advice] == [("a", 33), ("b", 33)]


def test_rounding_keeps_two_digits_and_never_goes_down() -> None:
    assert [round_up(number) for number in (0.3, 7.2, 812_345, 820_000, 99.5)] == [
        1,
        8,
        820_000,
        820_000,
        100,
    ]


def test_intervals_add_as_independent_errors() -> None:
    total = added([Interval(value=10, low=7, high=13), Interval(value=20, low=16, high=24)])
    assert (total.value, total.low, total.high) == (30, 25, 35)
