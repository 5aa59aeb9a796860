"""What is stated of a host: real steps and their spread, what does not fit, the cost."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from picochat.config import ModelConfig, RuntimeConfig, TrainConfig
from picochat.core.errors import HostProblem
from picochat.core.publish import Artifact, publish
from picochat.core.records import read_record, to_jsonable
from picochat.facts import HostFacts, TokenizerFacts
from picochat.model.runtime import open_runtime
from picochat.sanity import host
from picochat.sanity.context import SMALL, VOCAB, random_stream
from picochat.sanity.host import (
    Stopwatch,
    device_name,
    host_facts,
    measure_host,
    measure_on_feed,
    measure_steps,
    measured_step,
    scale_capacity,
)
from picochat.scales import Scale, find_scale
from picochat.train.loader import Batch, DeviceLoader
from tests.run_builder import make_machine
from tests.sanity.builders import CPU, make_context, result_of
from tests.tokens.builders import VOCAB_SIZE, make_job, publish_shards, published, short_documents

SHORT = SMALL.model_copy(update={"context": 16})
TRAIN = TrainConfig(steps=4, sequences_per_step=4)
RUNTIME = RuntimeConfig(threads=1)


def unmeasured(devices: int = 1) -> HostFacts:
    return host_facts(RUNTIME, open_runtime(RUNTIME, SHORT), None, Path(), devices)


def measured(devices: int = 1, steps: int = 3) -> HostFacts:
    stream = random_stream(5_000, VOCAB)
    compute = open_runtime(RUNTIME, SHORT)
    return measure_steps(unmeasured(devices), stream, SHORT, VOCAB, TRAIN, compute, steps)


# ---- timed steps ---------------------------------------------------------------------------------


def test_real_steps_give_speed_with_its_spread_memory_and_time_to_save() -> None:
    facts = measured()
    low, median, high = (
        facts.tokens_per_second_low,
        facts.tokens_per_second,
        facts.tokens_per_second_high,
    )
    assert low is not None and median is not None and high is not None
    assert 0 < low <= median <= high
    assert (facts.measured_steps, facts.measured_sequences, facts.micro_batch) == (3, 4, 4)
    assert facts.measured_loss is not None and 0 < facts.measured_loss < 20
    assert facts.free_memory_fraction is not None and 0 < facts.free_memory_fraction <= 1
    assert facts.compile_s is not None and facts.compile_s >= 0
    assert facts.forward_tokens_per_second is not None and facts.forward_tokens_per_second > 0
    assert facts.save_s is not None and facts.save_s > 0
    assert facts.mfu is None and facts.peak_memory_bytes is None  # of a GPU alone


def test_several_devices_are_as_fast_as_the_one_that_was_measured_times_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = iter(range(10_000))
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks) / 100)
    one = measured(devices=1)
    ticks = iter(range(10_000))
    eight = measured(devices=8)
    assert eight.devices == 8
    for name in ("tokens_per_second", "tokens_per_second_low", "forward_tokens_per_second"):
        assert getattr(eight, name) == pytest.approx(8 * getattr(one, name))
    assert eight.measured_sequences == one.measured_sequences


class Rows(DeviceLoader):
    """A loader that notes which steps were asked for, and may run out of memory."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(random_stream(5_000, VOCAB), SHORT.context, 4, 0, CPU)
        self.asked: list[int] = []
        self.error = error

    def batch(self, step: int) -> Batch:
        self.asked.append(step)
        if self.error is not None:
            raise self.error
        return super().batch(step)


def on_feed(feed: Rows, steps: int = 3) -> HostFacts:
    compute = open_runtime(RUNTIME, SHORT)
    return measure_on_feed(unmeasured(), SHORT, VOCAB, TRAIN, compute, feed, steps)


def test_the_first_steps_are_not_timed_and_no_step_is_measured_twice() -> None:
    feed = Rows()
    assert on_feed(feed, steps=3).measured_steps == 3
    assert feed.asked == [0, 1, 2, 3, 4, 0]  # first, warm-up, three timed, and one evaluation


def test_a_cpu_stops_after_its_time_budget_but_times_one_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host, "CPU_BUDGET_S", 0.0)
    assert on_feed(Rows(), steps=50).measured_steps == 1


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("out of memory"), HostProblem("one row does not fit")]
)
def test_out_of_memory_is_a_result_and_not_an_error(error: Exception) -> None:
    facts = on_feed(Rows(error))
    assert (facts.tokens_per_second, facts.free_memory_fraction) == (None, 0.0)
    assert (facts.measured_steps, facts.measured_sequences) == (0, 4)
    assert facts.attention_backend == unmeasured().attention_backend


def test_another_fault_of_a_step_is_an_error() -> None:
    with pytest.raises(ValueError, match="broken"):
        on_feed(Rows(ValueError("broken")))


def test_a_loss_that_is_no_number_is_stated_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_numbers(gpt: torch.nn.Module, seed: int) -> None:
        with torch.no_grad():
            for parameter in gpt.parameters():
                parameter.fill_(torch.nan)

    monkeypatch.setattr(host, "initialise", without_numbers)
    facts = measured(steps=1)
    assert facts.measured_loss is None and facts.measured_steps == 1


def test_a_cpu_measures_as_many_rows_as_its_budget_holds_and_a_gpu_all() -> None:
    large = find_scale("h100-100m").config
    vocab_size = large.tokenizer.vocab_size
    on_gpu = measured_step(large.base, large.model, vocab_size, torch.device("cuda"))
    assert on_gpu == large.base
    on_cpu = measured_step(large.base, large.model, vocab_size, CPU)
    assert 1 <= on_cpu.sequences_per_step < large.base.sequences_per_step
    huge = large.model.model_copy(update={"layers": 2_000})
    assert measured_step(large.base, huge, vocab_size, CPU).sequences_per_step == 1
    assert measured_step(TRAIN, SHORT, VOCAB, CPU) == TRAIN


def test_a_stopwatch_gives_the_time_between_marks() -> None:
    watch = Stopwatch(CPU)
    for pause in (0.0, 0.02, 0.05):
        time.sleep(pause)
        watch.mark()
    first, second = watch.seconds()
    assert first >= 0.02 and second >= 0.05
    assert Stopwatch(CPU).seconds() == []


def test_a_device_is_named_by_its_driver_or_by_its_processor() -> None:
    machine = make_machine()
    assert device_name(RuntimeConfig(device="cuda", precision="bf16"), machine) == machine.gpus[0]
    assert device_name(RUNTIME, machine) == "some processor, 16 cores"
    without = machine.model_copy(update={"gpus": []})
    assert device_name(RuntimeConfig(device="cuda", precision="bf16"), without).endswith("cores")


def test_free_memory_is_read_from_the_machine_where_it_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\n"
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: text)
    assert host.free_fraction_at_peak(CPU) == 0.25

    def absent(self: Path, encoding: str) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", absent)
    assert host.free_fraction_at_peak(CPU) is None


# ---- the stage -----------------------------------------------------------------------------------


def stage(
    folder: Path, tokenizer_file: Path, *, runtime: RuntimeConfig = RUNTIME, documents: int = 200
) -> tuple[Artifact, HostFacts]:
    """The host stage on a small corpus: the artifact, and what its host.json states."""
    written = short_documents(documents)
    shards = publish_shards(folder / "shards", make_job(tokenizer_file, written))
    with publish(folder / "tokenizer", "tokenizer", "key", {}) as staging:
        facts = TokenizerFacts(vocab_size=VOCAB_SIZE, merges=1)
        staging.facts = to_jsonable(facts)
    tokenizer = published(staging)
    model = ModelConfig.model_validate({**to_jsonable(SHORT), "context": 32})
    with publish(folder / "host", "host", "key", {}) as staging:
        measure_host(shards, tokenizer, model, TRAIN, runtime, staging)
    artifact = published(staging)
    return artifact, read_record(HostFacts, artifact.path("host.json"))


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tokens.builders import write_tokenizer_file

    return write_tokenizer_file(tmp_path_factory.mktemp("tokenizer"))


def test_the_stage_measures_the_runs_own_rows_and_states_nothing_else(
    tmp_path: Path, tokenizer_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "TIMED_STEPS", 2)
    artifact, facts = stage(tmp_path, tokenizer_file)
    assert facts.tokens_per_second is not None and facts.attention_problem is None
    assert facts.measured_sequences == TRAIN.sequences_per_step
    assert facts.free_disk_bytes > 0 and facts.attention_ways
    # measured on this machine: outside the digest, so that equal work has equal digests
    assert list(artifact.manifest.volatile_files) == ["host.json"]
    assert not artifact.manifest.files and not artifact.facts


def test_each_of_several_processes_takes_its_part_of_the_rows(
    tmp_path: Path, tokenizer_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "process_count", lambda: 2)
    _, facts = stage(tmp_path, tokenizer_file)
    assert (facts.devices, facts.measured_sequences) == (2, TRAIN.sequences_per_step // 2)


def test_attention_that_does_not_work_is_stated_and_nothing_is_measured(
    tmp_path: Path, tokenizer_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise HostProblem("no backend passes")

    monkeypatch.setattr(host, "open_runtime", refused)
    _, facts = stage(tmp_path, tokenizer_file)
    assert facts.attention_problem == "no backend passes"
    assert (facts.attention_backend, facts.attention_error) == ("auto", None)
    assert (facts.tokens_per_second, facts.measured_steps, facts.compile_s) == (None, 0, None)


def test_a_corpus_shorter_than_a_row_is_not_measured(tmp_path: Path, tokenizer_file: Path) -> None:
    _, facts = stage(tmp_path, tokenizer_file, documents=0)
    assert (facts.tokens_per_second, facts.measured_steps) == (None, 0)
    assert facts.attention_error is not None


# ---- the sanity test -----------------------------------------------------------------------------


def short_scale(gpus: int = 0) -> Scale:
    tiny = find_scale("tiny")
    return replace(tiny, config=tiny.config.model_copy(update={"model": SHORT}), gpus=gpus)


def test_capacity_is_skipped_where_no_scale_was_named() -> None:
    result = scale_capacity(make_context())
    assert result.status == "skipped" and "--capacity-scale" in result.message


def test_capacity_measures_real_steps_of_the_scale_and_prices_the_run() -> None:
    context = make_context(scale=short_scale())
    result = result_of("scale_capacity", context)
    assert result.status == "pass", result
    for part in (
        "tokens/s",
        "1 at a time",
        "forecast",
        "= $",
        "base",
        "held-out evaluations",
        "SFT",
        "checkpoints",
        "compile",
    ):
        assert part in result.message
    result = result_of("scale_capacity", replace(context, min_free_fraction=1.0))
    assert (result.status, result.bound) == ("fail", ">= 1")


def test_capacity_fails_where_not_even_one_sequence_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(host, "Engine", out_of_memory)
    result = result_of("scale_capacity", make_context(scale=short_scale(), min_free_fraction=0.1))
    assert (result.status, result.measured) == ("fail", 0.0)
    assert result.message.endswith("not even one sequence fits in memory")


def test_capacity_fails_where_free_memory_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "free_fraction_at_peak", lambda device: None)
    monkeypatch.setattr(host, "CAPACITY_STEPS", 1)
    result = result_of("scale_capacity", make_context(scale=short_scale()))
    assert (result.status, result.measured) == ("fail", None)


def test_the_forecast_of_several_gpus_costs_all_of_them_and_no_price_gives_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host, "CAPACITY_STEPS", 1)
    four = make_context(scale=short_scale(gpus=4))
    message = result_of("scale_capacity", four).message
    assert "on 4 devices, one measured" in message
    hours, dollars = re.findall(r"forecast ([0-9.]+) h = \$([0-9.]+)", message)[0]
    # hours are rounded to two digits
    assert float(dollars) == pytest.approx(float(hours) * 4 * 3.0, abs=4 * 3.0 * 0.006)
    unpriced = result_of("scale_capacity", replace(four, gpu_hour_usd=None)).message
    assert "$" not in unpriced and "forecast" in unpriced
