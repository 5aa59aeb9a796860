"""One small tokenizer for all tests of this folder: training it takes longer than most tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from picochat.tokens.tokenizer import Tokenizer
from tests.tokens.builders import write_tokenizer_file


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer_file(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def tokenizer(tokenizer_file: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_file)
