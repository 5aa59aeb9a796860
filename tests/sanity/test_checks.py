"""The sanity table passes on a right host, and each of its tests fails where the part that it looks
at is wrong.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from picochat.config import RuntimeConfig
from picochat.core.records import read_json
from picochat.model.gpt import GPT, Cache, initialise
from picochat.model.optim import Optimizer
from picochat.model.runtime import Runtime, open_runtime
from picochat.sanity import numerics
from picochat.sanity.checks import SANITY, SanityTest, run_sanity
from picochat.sanity.context import SMALL, VOCAB, Context, Parts, SanityResult, small_model
from picochat.sanity.report import SanityRequest, sanity
from picochat.scales import Scale, find_scale
from picochat.tokens.batches import Indices, rows_of_step
from picochat.train.loader import Batch, DeviceLoader


def make_context(
    *, include_compile: bool = False, scale: Scale | None = None, parts: Parts | None = None
) -> Context:
    runtime = RuntimeConfig(threads=1)
    compute = open_runtime(runtime, SMALL)
    return Context(
        compute, runtime, include_compile, scale, 1, 0.0, gpu_hour_usd=3.0, parts=parts or Parts()
    )


class Wrong(GPT):
    """The small model with one fault, which `fault` names."""

    def __init__(self, seed: int, fault: str) -> None:
        super().__init__(SMALL, VOCAB)
        self.load_state_dict(small_model(seed).state_dict())
        self.fault, self.calls = fault, 0

    def forward(
        self, ids_BT: Tensor, dtype: torch.dtype = torch.float32, cache: Cache | None = None
    ) -> Tensor:
        logits = super().forward(ids_BT, dtype, cache)
        if self.fault == "loud":
            return 100 * logits
        if self.fault == "blurred" and self.embedding.weight.dtype == torch.float32:
            return 1.01 * logits
        if self.fault == "cache" and cache is not None and ids_BT.shape[1] == 1:
            return 1.01 * logits
        return logits

    def loss_sum(
        self, ids_BT: Tensor, targets_BT: Tensor, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        loss = super().loss_sum(ids_BT, targets_BT, dtype)
        self.calls += 1
        if self.fault == "forgetful":  # depends on what a resumed process does not know
            return loss * (1 + 0.1 * self.calls)
        if self.fault == "waiting" and loss.item() > 1e9:
            return loss * 0
        return loss


def wrong(fault: str) -> Parts:
    return Parts(model=lambda seed: Wrong(seed, fault))


def uncentred(seed: int) -> GPT:
    model = GPT(SMALL.model_copy(update={"centred": False}), VOCAB)
    initialise(model, seed)
    return model


def some_rows_twice(step: int, rows: int, size: int, seed: int) -> Indices:
    found = rows_of_step(step, rows, size, seed)
    found[0] = found[1]
    return found


class SignedLoader(DeviceLoader):
    """Ids above 32,767 come out negative and are cut off, as 16 signed bits would give them."""

    def batch(self, step: int) -> Batch:
        batch = super().batch(step)
        return Batch(batch.ids_BT.clamp(max=0x7FFF), batch.targets_BT, batch.target_count)


FAULTS = (
    # row                    parts that are wrong                        what the fault stands for
    ("initial_loss",         wrong("loud")),                           # an initialisation that is off by far
    ("precision_backward",   wrong("blurred")),                        # a kernel that is 1% off
    ("kv_cache_equivalence", wrong("cache")),                          # a kernel that is wrong for single positions
    ("resume_determinism",   wrong("forgetful")),                      # a state that is not saved
    ("loader_coverage",      Parts(rows_of_step=some_rows_twice)),     # an order that repeats
    ("device_feed",          Parts(device_feed=SignedLoader)),         # ids read as signed numbers
    ("centred_step",         Parts(model=uncentred)),                  # an optimizer without the projection
    ("no_host_sync",         wrong("waiting")),                        # a step that reads its loss
    ("export_parity",        wrong("blurred")),                        # an export that is another function
)  # fmt: skip


def result_of(name: str, context: Context) -> SanityResult:
    (result,) = run_sanity(
        context, lambda _: None, tuple(test for test in SANITY if test.name == name)
    )
    return result


def test_every_test_passes_or_says_why_it_was_skipped_and_the_report_is_whole(
    tmp_path: Path,
) -> None:
    request = SanityRequest(tmp_path / "out", RuntimeConfig(threads=1), False, None, None, 0.1)
    report = sanity(request)
    status = {result.name: result.status for result in report.results}
    assert list(status) == [test.name for test in SANITY]
    skipped = {name for name in status if status[name] == "skipped"}
    assert skipped == {"torch_compile", "compiled_optimizer", "scale_capacity"}
    assert {status[name] for name in status if name not in skipped} == {"pass"}, report.results
    assert report.passed and all(result.message for result in report.results)
    record = read_json(tmp_path / "out" / "preh100_sanity.json")
    assert record["status"] == "pass" and record["machine"]["cores"] >= 1
    assert [row["name"] for row in record["results"]] == list(status)
    page = (tmp_path / "out" / "preh100_sanity.md").read_text()
    assert all(test.name in page for test in SANITY)


@pytest.mark.parametrize(("name", "parts"), FAULTS, ids=[name for name, _ in FAULTS])
def test_a_wrong_part_fails_its_test(name: str, parts: Parts) -> None:
    result = result_of(name, make_context(parts=parts))
    assert result.status == "fail" and result.measured is not None, result


def test_every_test_has_a_fault_that_fails_it() -> None:
    elsewhere = {
        "attention_backend",
        "torch_compile",
        "compiled_optimizer",
        "scale_capacity",
    }  # the tests below
    assert {name for name, _ in FAULTS} | elsewhere == {test.name for test in SANITY}


def test_attention_that_was_not_checked_or_is_wrong_fails() -> None:
    context = make_context()
    for error in (0.5, None, float("nan")):
        wrong_compute = Runtime(context.compute.device, context.compute.dtype, "math", error, False)
        assert (
            result_of("attention_backend", replace(context, compute=wrong_compute)).status == "fail"
        )


def test_attention_lists_every_way_that_was_tried() -> None:
    message = result_of("attention_backend", make_context()).message
    assert all(
        f"{backend}: " in message for backend in ("flash", "cudnn", "fa3", "efficient", "math")
    ), message


class ForgetsToCentreWhenCompiled(Optimizer):
    def _muon_and_centre(self) -> None:
        if not torch.compiler.is_compiling():
            super()._muon_and_centre()


def test_compiled_steps_are_compared_with_eager_ones(light_compiler: None) -> None:
    """One test for both rows and their faults: compiling takes most of the time of this file."""
    right = make_context(include_compile=True)
    assert result_of("torch_compile", right).status == "pass"
    assert result_of("compiled_optimizer", right).status == "pass"
    broken = replace(right, parts=Parts(optimizer=ForgetsToCentreWhenCompiled))
    assert result_of("compiled_optimizer", broken).status == "fail"


def test_a_test_that_raises_has_failed() -> None:
    def broken(context: Context) -> SanityResult:
        raise RuntimeError("kernel image is invalid\nand more")

    told: list[SanityResult] = []
    (result,) = run_sanity(make_context(), told.append, (SanityTest("broken", broken, "why"),))
    assert (result.status, result.message) == ("fail", "kernel image is invalid") and told == [
        result
    ]


def test_capacity_measures_real_steps_of_the_scale_and_prices_the_run() -> None:
    tiny = find_scale("tiny")
    short = tiny.config.model_copy(update={"model": SMALL.model_copy(update={"context": 16})})
    context = make_context(scale=replace(tiny, config=short))
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
    assert result_of("scale_capacity", replace(context, min_free_share=1.0)).status == "fail"


def test_compile_rows_are_skipped_unless_asked_for() -> None:
    context = make_context()
    assert (
        numerics.torch_compile(context).status
        == numerics.compiled_optimizer(context).status
        == "skipped"
    )
