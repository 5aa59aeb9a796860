"""Does this host train right, and how fast: one table of tests, each of which runs something that
can fail.

The tests use a small model of the real block, so that they take seconds; `scale_capacity` alone
runs the real scale. A test that cannot run here is `skipped` with its reason and never counted as
passed. Writes nothing: see report.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from picochat.core.errors import PicochatError
from picochat.sanity import numerics, training
from picochat.sanity.context import Context, SanityResult


@dataclass(frozen=True)
class SanityTest:
    name: str
    run: Callable[[Context], SanityResult]
    because: str


SANITY: tuple[SanityTest, ...] = (
    #          name                    test                            because
    SanityTest("attention_backend",    numerics.attention_backend,     "a fast kernel that is wrong trains a wrong model"),
    SanityTest("initial_loss",         numerics.initial_loss,          "a start far from ln V wastes the first thousand steps"),
    SanityTest("precision_backward",   numerics.precision_backward,    "gradients must survive the chosen precision"),
    SanityTest("kv_cache_equivalence", numerics.kv_cache_equivalence,  "scores come from cached generation"),
    SanityTest("resume_determinism",   training.resume_determinism,    "a crash must cost minutes, not the run"),
    SanityTest("loader_coverage",      training.loader_coverage,       "every training token is a target once per epoch"),
    SanityTest("device_feed",          training.device_feed,           "the device must train on the tokens that were written"),
    SanityTest("centred_step",         training.centred_step,          "only centred weights load in stock classes"),
    SanityTest("torch_compile",        numerics.torch_compile,         "the compiled step must be the eager step"),
    SanityTest("compiled_optimizer",   numerics.compiled_optimizer,    "and its optimizer the eager optimizer"),
    SanityTest("no_host_sync",         training.no_host_sync,          "a device that waits for Python is paid for and idle"),
    SanityTest("export_parity",        numerics.export_parity,         "what is published must be what was trained"),
    SanityTest("scale_capacity",       training.scale_capacity,        "memory and speed are measured before money is spent"),
)  # fmt: skip


def run_sanity(
    context: Context,
    say_result: Callable[[SanityResult], None],
    table: tuple[SanityTest, ...] = SANITY,
) -> list[SanityResult]:
    """Every test of the table, in order. A test that raises has failed, with what it said."""
    results: list[SanityResult] = []
    for test in table:
        started = time.monotonic()
        try:
            result = test.run(context)
        except (RuntimeError, PicochatError) as error:
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            result = SanityResult(
                name=test.name, status="fail", measured=None, bound="", message=text
            )
        results.append(result.model_copy(update={"seconds": time.monotonic() - started}))
        say_result(results[-1])
    return results
