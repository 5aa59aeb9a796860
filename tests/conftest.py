"""What all tests share: one torch thread for each worker, a private cache, and no Hub but a
loopback one.
"""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

# Two workers with two threads each on two cores wait for each other at every barrier. Set before
# torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import pytest

# A shell without job control starts background commands with SIGINT ignored. Their children inherit
# that, and a test that interrupts one would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def private_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Shared artifacts of a test are not seen by another, nor by who runs the tests."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("PICOCHAT_HOME", str(folder))
    return folder


@pytest.fixture
def light_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch.compile without code generation: traced, functionalized and differentiated as ever, run
    by torch's own kernels.

    Generating and compiling C++ takes a minute even for a model of one layer. `picochat sanity
    preh100 --include-compile` does it, on the machine whose compiler is in question.
    """
    import torch

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    yield
    torch._dynamo.reset()
