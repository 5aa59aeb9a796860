"""External benchmarks: likelihoods equal one option at a time and lm-evaluation-harness; scores
follow from the kept likelihoods alone, and a benchmark that is not whole is not measured.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from picochat.config import EvalConfig, ModelConfig
from picochat.data.benchmarks.layouts import BenchmarkRow, read_benchmark
from picochat.data.benchmarks.resolve import local_benchmark
from picochat.data.benchmarks.stage import BenchmarkItem, item_of
from picochat.evals.eval_records import EvaluatedItem
from picochat.evals.external import (
    ask_benchmark,
    batches,
    external_scores_of,
    is_right,
    is_right_norm,
    pairs_of,
)
from picochat.evals.gpt_answerer import GptAnswerer
from picochat.facts import ExternalScore
from picochat.model.gpt import GPT
from picochat.model.sampling import continuation_log_likelihoods
from picochat.release.hf import ExportRequest, export_hf
from picochat.tokens.tokenizer import Tokenizer
from tests.builders import make_benchmark_facts, make_benchmark_items, make_external_answers
from tests.data.benchmarks.builders import arc_rows, hellaswag_rows, write_lines
from tests.export_builders import (
    MODEL,
    make_checkpoint,
    make_model,
    make_tokenizer,
    tokenizer_bytes,
)

EVALS = EvalConfig(batch_rows=16)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_bytes(tokenizer_bytes())
    return Tokenizer.load(path)


def row(context: str, *options: str, number: int = 0) -> BenchmarkRow:
    return BenchmarkRow(
        id=f"q-{number:05d}", context=context, options=list(options), correct=0, question=context
    )


def ask(
    rows: list[BenchmarkRow], words: Tokenizer, evals: EvalConfig = EVALS
) -> list[EvaluatedItem]:
    chat, base = (GptAnswerer(make_model(seed=seed), words) for seed in (1, 2))
    return ask_benchmark("q", rows, chat, base, evals)


def test_batches_give_what_one_option_at_a_time_gives(words: Tokenizer) -> None:
    rows = [
        row("bat ben " * (number % 5), "dat", "ten ging " * (1 + number % 3), number=number)
        for number in range(23)
    ]
    asked = ask(rows, words)
    for model, said in (
        (make_model(seed=1), "log_likelihoods"),
        (make_model(seed=2), "base_log_likelihoods"),
    ):
        for number, found in enumerate(asked):
            pairs = list(pairs_of(number, rows[number], GptAnswerer(model, words)))
            alone = [
                continuation_log_likelihoods(model, [(pair.context, pair.continuation)])[0]
                for pair in pairs
            ]
            assert getattr(found, said) == pytest.approx(alone, abs=1e-4)


def test_every_option_is_in_one_batch_and_no_batch_is_too_large(words: Tokenizer) -> None:
    answerer = GptAnswerer(make_model(), words)
    pairs = [
        pair
        for n in range(9)
        for pair in pairs_of(n, row("bat " * n, "dat", "ten " * n + "ging"), answerer)
    ]
    made = list(batches(pairs, 60))
    assert sorted((pair.row, pair.option) for batch in made for pair in batch) == [
        (n, o) for n in range(9) for o in range(2)
    ]
    longest = [max(len(pair.context) + len(pair.continuation) for pair in batch) for batch in made]
    assert all(
        len(batch) == 1 or len(batch) * long <= 60
        for batch, long in zip(made, longest, strict=True)
    )


def test_context_and_option_are_one_text_behind_bos(words: Tokenizer) -> None:
    pair = next(
        pairs_of(0, row("Question: bat?\nAnswer:", "ten ging"), GptAnswerer(make_model(), words))
    )
    assert pair.context[0] == words.bos
    assert words.decode(pair.context) == "Question: bat?\nAnswer:"
    assert words.decode(pair.continuation) == " ten ging"


def test_blanks_at_the_end_of_a_context_belong_to_the_option(words: Tokenizer) -> None:
    pair = next(pairs_of(0, row("bat ben  ", "ten"), GptAnswerer(make_model(), words)))
    assert (words.decode(pair.context), words.decode(pair.continuation)) == ("bat ben", "   ten")


def test_what_is_too_long_loses_its_beginning_and_is_counted(words: Tokenizer) -> None:
    long = row("bat ben " * 60, "ten ging")
    pair = next(pairs_of(0, long, GptAnswerer(make_model(), words)))
    assert pair.cut and len(pair.context) + len(pair.continuation) == 65
    assert (
        words.decode(pair.context)
        == words.decode(words.encode("bat ben " * 60)[-len(pair.context) - 1 :]).rstrip()[
            -len(words.decode(pair.context)) :
        ]
    )
    found = ask([long, row("bat", "ten", "dat", number=1)], words)
    assert [answer.cut for answer in found] == [True, False]
    assert found[0].log_likelihoods is not None


def test_an_option_that_does_not_fit_is_not_asked(words: Tokenizer) -> None:
    found = ask([row("bat", "ten", "ten ging " * 60), row("bat", "ten", "dat", number=1)], words)
    assert (found[0].too_long, found[0].log_likelihoods, found[0].base_log_likelihoods) == (
        True,
        None,
        None,
    )
    assert not found[1].too_long and found[1].log_likelihoods is not None


def test_weights_that_give_no_number_give_no_score(words: Tokenizer) -> None:
    broken = make_model(seed=1)
    with torch.no_grad():
        broken.embedding.weight.fill_(float("nan"))
    chat, base = (GptAnswerer(model, words) for model in (broken, make_model(seed=2)))
    found = ask_benchmark("q", [row("bat", "ten", "dat")], chat, base, EVALS)
    assert found[0].log_likelihoods is None and found[0].base_log_likelihoods is not None


# ---- scores --------------------------------------------------------------------------------------


def item(characters: list[int], correct: int) -> BenchmarkItem:
    return BenchmarkItem(
        id="q-00000", benchmark="q", digest="0" * 64, characters=characters, correct=correct
    )


def score(
    count: int = 100, right: int = 60, contaminated: tuple[str, ...] = (), **changes: Any
) -> ExternalScore:
    """The score of a benchmark with one answer replaced by `changes`."""
    items = make_benchmark_items("q", count)
    answers = make_external_answers(items, right)
    if changes:
        answers[3] = EvaluatedItem.model_validate({**answers[3].model_dump(), **changes})
    facts = {"q": make_benchmark_facts(rows=count)}
    return external_scores_of(facts, items, answers, {"q": list(contaminated)})["q"]


def test_the_largest_sum_and_the_largest_sum_per_character_are_two_answers() -> None:
    sums = [-10.0, -12.0]
    assert is_right(item([5, 10], 0), sums) and not is_right(item([5, 10], 1), sums)
    assert is_right_norm(item([5, 10], 1), sums) and not is_right_norm(item([5, 10], 0), sums)


def test_of_equal_options_the_first_counts() -> None:
    assert is_right(item([1, 1], 0), [-1.0, -1.0])
    assert not is_right(item([1, 1], 1), [-1.0, -1.0])


def test_each_rate_counts_its_own_rows_and_its_own_model() -> None:
    found = score(contaminated=("q-00000", "q-00099"))
    assert (found.all.passed, found.all.count) == (60, 100)
    assert (found.clean.passed, found.clean.count) == (59, 98)
    assert found.base is not None and (found.base.passed, found.base.count) == (0, 100)
    assert found.acc == found.acc_norm == found.all
    assert found.all.low is not None and found.all.low < 0.6 < (found.all.high or 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"log_likelihoods": None},
        {"log_likelihoods": [-1.0, -2.0, -3.0]},
        {"log_likelihoods": [-1.0, math.nan, -3.0, -4.0]},
        {"log_likelihoods": [-1.0, -math.inf, -3.0, -4.0]},
        {"id": "q-99999"},
    ],
)
def test_one_row_without_a_score_leaves_the_benchmark_unmeasured(changes: dict[str, Any]) -> None:
    found = score(**changes)
    assert [
        rate.fraction for rate in (found.all, found.clean, found.acc, found.acc_norm) if rate
    ] == [None] * 4


def test_a_base_model_without_a_score_leaves_the_chat_models() -> None:
    found = score(base_log_likelihoods=None)
    assert found.base is not None and found.base.fraction is None
    assert found.all.count == 100


def test_fewer_items_than_the_facts_state_are_no_benchmark() -> None:
    items = make_benchmark_items("q", 99)
    found = external_scores_of(
        {"q": make_benchmark_facts(rows=100)}, items, make_external_answers(items, 99), {}
    )
    assert found["q"].all.fraction is None and found["q"].clean.fraction is None


def test_an_option_too_long_for_the_model_counts_as_failed() -> None:
    found = score(too_long=True, log_likelihoods=None, base_log_likelihoods=None)
    assert (found.all.passed, found.all.count, found.too_long_rows) == (59, 100, 1)


def test_the_accuracy_that_the_gate_reads_is_the_benchmarks_own() -> None:
    items = [
        BenchmarkItem(id="q-00000", benchmark="q", digest="0" * 64, characters=[5, 10], correct=1)
    ]
    answers = [
        EvaluatedItem(
            id="q-00000",
            benchmark="q",
            log_likelihoods=[-10.0, -12.0],
            base_log_likelihoods=[0.0, 0.0],
            cut=False,
            too_long=False,
        )
    ]
    for read_by, passed in (("acc", 0), ("acc_norm", 1)):
        facts = {"q": make_benchmark_facts(rows=1, read_by=read_by)}
        assert external_scores_of(facts, items, answers, {})["q"].all.passed == passed


# ---- the same numbers as lm-evaluation-harness ---------------------------------------------------

HARNESS = """
import json, sys
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

folder, tasks, out = sys.argv[1:]
model = HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=1, add_bos_token=True)
names = ["pico_arc", "pico_hellaswag"]
manager = TaskManager(include_path=tasks, include_defaults=False)
found = simple_evaluate(model=model, tasks=names, task_manager=manager)
rows = {
    name: [
        {
            "doc": sample["doc_id"],
            "acc": sample["acc"],
            "acc_norm": sample["acc_norm"],
            "sums": [r[0] for r in sample["filtered_resps"]],
        }
        for sample in found["samples"][name]
    ]
    for name in names
}
json.dump(rows, open(out, "w"))
"""
TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
output_type: multiple_choice
test_split: test
{texts}
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
"""
ARC_TEXTS = r'''doc_to_text: "Question: {{question}}\nAnswer:"
doc_to_target: "{{choices.label.index(answerKey)}}"
doc_to_choice: "{{choices.text}}"'''
SWAG_TEXTS = '''process_docs: !function marks.process_docs
doc_to_text: "{{query}}"
doc_to_target: "{{label}}"
doc_to_choice: "choices"'''
# The harness's own preparation of HellaSwag, called and not told again.
MARKS = "from lm_eval.tasks.hellaswag.utils import process_docs\n"


def test_both_accuracies_equal_those_of_lm_eval_row_by_row(
    words: Tokenizer, tmp_path: Path
) -> None:
    pytest.importorskip(
        "lm_eval", reason="lm-eval is not installed: pip install 'picochat[lm-eval]'"
    )
    model = make_model(ModelConfig.model_validate({**MODEL.model_dump(), "context": 160}))
    folder = exported(model, tmp_path)
    layouts: dict[str, tuple[list[dict[str, Any]], str]] = {
        "pico_arc": (arc_rows(60), ARC_TEXTS),
        "pico_hellaswag": (hellaswag_rows(40), SWAG_TEXTS),
    }
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "marks.py").write_text(MARKS)
    for name, (rows, texts) in layouts.items():
        data = write_lines(tmp_path / f"{name}.jsonl", rows)
        (tasks / f"{name}.yaml").write_text(TASK.format(name=name, data=data, texts=texts))
    theirs = harness(folder, tasks, tmp_path)
    for name in layouts:
        items = read_benchmark(name, local_benchmark(name, tmp_path / f"{name}.jsonl").files).items
        asked = ask_benchmark(name, items, GptAnswerer(model, words), None, EVALS)
        assert len(items) == len(theirs[name])
        for row, answer, other in zip(
            items, asked, sorted(theirs[name], key=lambda found: found["doc"]), strict=True
        ):
            assert answer.log_likelihoods == pytest.approx(other["sums"], abs=2e-3)
            assert verdict(is_right, row, answer) == other["acc"], row.id
            assert verdict(is_right_norm, row, answer) == other["acc_norm"], row.id
        assert sum(answer.cut for answer in asked) == {"pico_arc": 0, "pico_hellaswag": 4}[name]


def exported(model: GPT, work: Path) -> Path:
    """What `export hf` makes of the model."""
    make_checkpoint(work / "checkpoint", model)
    make_tokenizer(work / "tokenizer")
    request = ExportRequest(
        checkpoint=work / "checkpoint",
        tokenizer=work / "tokenizer" / "tokenizer.json",
        out_dir=work / "model",
        model_name="pico",
        allow_unscored=True,
    )
    return export_hf(request).place


def verdict(right: Callable[..., bool], row: BenchmarkRow, answer: EvaluatedItem) -> float:
    assert answer.log_likelihoods is not None
    return float(right(item_of("q", row), answer.log_likelihoods))


def harness(folder: Path, tasks: Path, work: Path) -> dict[str, list[dict[str, Any]]]:
    """What lm-eval says, in a process of its own: it brings its own warnings, threads and caches.

    Offline.
    """
    environment = {
        "PATH": "/usr/bin:/bin",
        "HF_HOME": str(work / "hf"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    line = [sys.executable, "-c", HARNESS, str(folder), str(tasks), str(work / "theirs.json")]
    ended = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads((work / "theirs.json").read_text())
