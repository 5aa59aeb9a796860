import random
from pathlib import Path

import numpy as np
import pytest

from picochat.config import DataConfig
from picochat.data.pack import load_pack
from picochat.preview.text_sample import read_sample
from picochat.preview.token_rate import bytes_per_token, ratio_interval, t_quantile
from picochat.tokens.tokenizer import Tokenizer, train
from tests.data.builders import make_pack, prose


def test_the_interval_holds_the_true_ratio_about_95_times_in_100() -> None:
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(400):
        tokens = generator.gamma(2.0, 500.0, size=60) + 1
        text_bytes = tokens * (4.0 + generator.normal(0, 0.5, size=60))
        found = ratio_interval(text_bytes.tolist(), tokens.tolist(), list(range(60)))
        assert found is not None
        held += found.low <= 4.0 <= found.high
    assert 0.91 <= held / 400 <= 0.985


def test_documents_of_one_file_count_as_one_where_files_differ() -> None:
    """Ten files, each with its own rate: treating their documents as independent would claim ten
    times the knowledge.
    """
    generator = random.Random(5)
    rates = [generator.uniform(3, 5) for _ in range(10)]
    above = [rate * 100 for rate in rates for _ in range(100)]
    files = [number for number in range(10) for _ in range(100)]
    by_file = ratio_interval(above, [100.0] * 1_000, files)
    by_document = ratio_interval(above, [100.0] * 1_000, list(range(1_000)))
    assert by_file is not None
    assert by_document is not None
    assert by_file.value == by_document.value
    assert by_file.high - by_file.low > 5 * (by_document.high - by_document.low)


def test_one_group_says_nothing_about_the_error() -> None:
    assert ratio_interval([4.0, 8.0], [1.0, 2.0], [0, 0]) is None
    assert ratio_interval([], [], []) is None


@pytest.mark.parametrize(
    ("degrees", "table"), [(2, 4.303), (5, 2.571), (9, 2.262), (30, 2.042), (1_000, 1.962)]
)
def test_t_quantile_agrees_with_the_table(degrees: int, table: float) -> None:
    assert t_quantile(degrees) == pytest.approx(table, rel=0.04)


def test_tokens_are_those_of_the_runs_tokenizer(tmp_path: Path) -> None:
    """One document in ten is measured; the others train the tokenizer as `train` does."""
    texts = [prose(number) for number in range(200)]
    pack = make_pack(tmp_path, {"web": [(str(n), text) for n, text in enumerate(texts)]})
    samples = read_sample(load_pack(pack).sources, DataConfig())
    ((found,), basis) = bytes_per_token(samples, [1.0], 310)
    trained = [text for number, text in enumerate(texts) if number % 10]
    (tmp_path / "tokenizer.json").write_bytes(train(trained, 310))
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    tokens = sum(len(tokenizer.encode(text)) for text in texts[::10])
    assert found is not None
    assert found.value == pytest.approx(sum(map(len, texts[::10])) / tokens)
    assert "310 ids" in basis
