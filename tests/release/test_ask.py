"""Asking again: what the weights say is compared with the record; invented replies are found, and
only stated weights are asked.
"""

import json
import math
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from picochat.cli.main import run_command
from picochat.config import ResolvedConfig
from picochat.core.errors import BadInput
from picochat.core.records import digest_file, read_record
from picochat.evals.evaluate import ask_questions
from picochat.evals.external import ask_benchmark
from picochat.evals.gpt_answerer import GptAnswerer
from picochat.model.weights import load_model
from picochat.release.ask import draw, find_recorded, pool_of, with_questions
from picochat.release.bundle import make_bundle
from picochat.release.verify import VerifyCheck, inspect_bundle
from picochat.run.folder import RunDir
from picochat.tokens.chat_format import fitting, join_conversations, read_chats, write_conversations
from picochat.tokens.tokenizer import Tokenizer
from tests.forger import (
    Rows,
    change_config,
    change_json,
    change_rows,
    make_real_run,
    rows_of,
    settle,
)

ALL = None


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A real run of four steps, with a benchmark."""
    return make_real_run(tmp_path_factory.mktemp("ask"))


@pytest.fixture
def run(finished: RunDir, tmp_path: Path) -> RunDir:
    """A copy that may be changed."""
    shutil.copytree(finished.root, tmp_path / "run")
    return RunDir(tmp_path / "run")


def asked(
    path: Path, count: int | None = ALL, seed: int | None = 7, run_dir: Path | None = None
) -> VerifyCheck:
    """The check of a bundle or run in which nothing differs before anything is asked."""
    report = inspect_bundle(path)
    assert not report.problems
    return with_questions(report, count, seed, run_dir).checks[-1]


def figures(check: VerifyCheck) -> dict[str, Any]:
    assert check.figures is not None
    return dict(check.figures)


def invent(run: RunDir, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Other replies to the eval rows, with scores, verdict, pages and digests that follow from
    them.
    """
    edit_replies(run, lambda rows: [change(row) if row["set"] == "eval" else row for row in rows])


def edit_replies(run: RunDir, change: Callable[[Rows], Rows], name: str = "replies.jsonl") -> None:
    change_rows(run.place("scores") / name, change)
    settle(run)


def right_answer(row: dict[str, Any]) -> dict[str, Any]:
    return (
        {**row, "reply": row["expected"]} if row["expected"] and not row["log_likelihoods"] else row
    )


def test_an_honest_run_says_again_what_it_said(finished: RunDir) -> None:
    check = asked(finished.root)
    found = figures(check)
    assert not check.problems and not check.notes
    recorded = (
        len(rows_of(finished.place("scores") / "replies.jsonl")) + 60
    )  # with the benchmark's items
    assert (
        found["asked"]
        == found["recorded"]
        == found["equal"]
        == found["judged_alike"]
        == recorded
        == check.compared
    )
    assert found["mismatches_or_judged_otherwise_at_most"] == 0
    assert "recorded in float32 on cpu, asked in float32 on cpu; seed 7" in (check.note or "")


def test_invented_replies_are_found_by_asking_alone(run: RunDir) -> None:
    invent(run, right_answer)
    assert inspect_bundle(run.root).exit_code == 0
    report = with_questions(inspect_bundle(run.root), 20, 3, None)
    assert report.exit_code == 3
    told = report.problems[0].what
    assert (
        told.startswith("eval row ")
        and "recorded '" in told
        and "says '" in told
        and "however it is rounded" in told
    )


def test_invented_replies_of_the_base_model_are_found(run: RunDir) -> None:
    invent(run, lambda row: {**row, "base_reply": "no"} if not row["base_log_likelihoods"] else row)
    assert all(
        "the base model: recorded 'no'" in problem.what for problem in asked(run.root, 8).problems
    )


def test_invented_likelihoods_of_choices_are_found(run: RunDir) -> None:
    invent(
        run,
        lambda row: (
            {**row, "log_likelihoods": [v - 0.01 for v in row["log_likelihoods"]]}
            if row["log_likelihoods"]
            else row
        ),
    )
    assert inspect_bundle(run.root).exit_code == 0
    told = [problem.what for problem in asked(run.root).problems]
    assert told and all("the chat model: option " in what for what in told)


def test_invented_likelihoods_of_benchmark_items_are_found(run: RunDir) -> None:
    edit_replies(
        run,
        lambda rows: [{**row, "log_likelihoods": [0.0, -9.0, -9.0, -9.0]} for row in rows],
        "external.jsonl",
    )
    told = [problem.what for problem in asked(run.root).problems]
    assert len(told) == 60 and all(what.startswith("quiz item ") for what in told)


def test_other_weights_than_those_that_replied_are_found(run: RunDir) -> None:
    """The publisher ships other weights, with digests, scores and verdict to match."""
    file = run.place("sft") / "model.safetensors"
    weights = load_file(file)
    save_file(
        {name: tensor * (3.0 if tensor.dim() == 2 else 1.0) for name, tensor in weights.items()},
        file,
    )
    settle(run)
    check = asked(run.root, 30)
    assert len(check.problems) > 5


def exchange_ids(run: RunDir, first: str, second: str) -> None:
    """Exchange the ids of two one-byte tokens, and encode the text and the SFT rows anew."""
    tokenizer = run.place("tokenizer") / "tokenizer.json"
    pair: list[int] = []

    def exchange(value: dict[str, Any]) -> None:
        ids = value["model"]["vocab"]
        ids[first], ids[second] = ids[second], ids[first]
        pair.extend((ids[first], ids[second]))

    change_json(tokenizer, exchange)
    digest = digest_file(tokenizer)
    exchanged = np.arange(2**16, dtype="<u2")
    exchanged[pair] = pair[::-1]
    for shard in run.place("shards").glob("*.bin"):
        exchanged[np.fromfile(shard, dtype="<u2")].tofile(shard)
        new = {"sha256": digest_file(shard), "tokenizer": digest}
        change_json(shard.with_suffix(".json"), lambda side, new=new: side.update(new))
    words = Tokenizer.load(tokenizer)
    context = read_record(ResolvedConfig, run.config).config.model.context
    for split in ("train", "held_out"):
        chats = read_chats(run.place("rows") / f"sft_{split}.jsonl", words)
        write_conversations(
            run.place("conversations") / f"{split}.npz", join_conversations(fitting(chats, context))
        )
    for stage in ("base", "sft"):
        change_json(
            run.place(stage) / "model.json", lambda info: info.update(tokenizer_digest=digest)
        )
    settle(run)


def test_another_tokenizer_with_everything_encoded_anew_is_found_by_asking_alone(
    run: RunDir,
) -> None:
    """The files agree with each other; only the weights know which ids they were trained with."""
    exchange_ids(run, "e", "a")
    assert inspect_bundle(run.root).problems == []
    assert with_questions(inspect_bundle(run.root), ALL, 7, None).exit_code == 3


def test_weights_that_are_not_the_stated_ones_are_never_asked(
    finished: RunDir, run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(
        finished, tmp_path / "b.tgz", None, strict=False, include_weights=False
    ).path
    file = run.place("sft") / "model.safetensors"
    save_file({name: torch.zeros_like(tensor) for name, tensor in load_file(file).items()}, file)
    with pytest.raises(BadInput) as refused:
        asked(bundle, 5, run_dir=run.root)
    assert (
        "model.safetensors is not the file that the manifest states"
        in refused.value.problems[0].what
    )
    report = with_questions(inspect_bundle(run.root), 5, 1, None)
    assert report.exit_code == 3 and report.checks[-1].name != "asked again"
    assert "nothing was asked again" in capsys.readouterr().err


def test_bundle_without_weights_names_the_remedy_and_takes_those_of_the_run(
    finished: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(
        finished, tmp_path / "b.tgz", None, strict=False, include_weights=False
    ).path
    assert run_command(["run", "verify", str(bundle), "--ask", "5"]) == 4
    said = capsys.readouterr().err
    assert (
        "cannot be asked with what is here" in said
        and "sft: model.safetensors and" in said
        and "--run-dir RUN" in said
    )
    assert figures(asked(bundle, 5, run_dir=finished.root))["equal"] == 5


def test_bundle_is_asked_without_the_benchmark_texts_that_it_does_not_hold(
    finished: RunDir, tmp_path: Path
) -> None:
    bundle = make_bundle(finished, tmp_path / "b.tgz", None, strict=False).path
    check = asked(bundle)
    assert not check.problems
    assert check.compared == len(rows_of(finished.place("scores") / "replies.jsonl"))
    assert "not asked: benchmarks: rows/quiz.jsonl" in (check.note or "")
    assert asked(bundle, run_dir=finished.root).compared == check.compared + 60


def test_a_bundle_unpacked_by_hand_is_asked(finished: RunDir, tmp_path: Path) -> None:
    path = make_bundle(finished, tmp_path / "b.tgz", None, strict=False).path
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    report = with_questions(inspect_bundle(tmp_path / "unpacked"), 5, 1, None)
    assert report.checks[-1].compared >= 5


def test_one_seed_draws_the_same_questions_and_another_seed_others() -> None:
    pool = {
        "math": [f"m{n}" for n in range(40)],
        "choice": ["c1", "c2"],
        "benchmark quiz": [f"q{n}" for n in range(900)],
    }
    drawn = draw(pool, 12, 5)
    assert drawn == draw({group: reversed(ids) for group, ids in reversed(pool.items())}, 12, 5)
    assert drawn != draw(pool, 12, 6)
    assert len(set(drawn)) == 12
    assert [sum(group == name for group, _ in drawn) for name in pool] == [5, 2, 5]
    assert len(draw(pool, ALL, 5)) == 942


def record_in_bf16(run: RunDir) -> None:
    """The replies as the same weights give them in bf16, in a run that says so."""
    change_config(run, lambda config: config["runtime"].update(precision="bf16"))
    recorded = find_recorded(run, run.root, [run])
    base, chat = (
        GptAnswerer(load_model(place, torch.device("cpu"))[0], recorded.tokenizer, torch.bfloat16)
        for place in (recorded.base, recorded.chat)
    )
    given = [(item.set, recorded.rows[item.id]) for item in recorded.asked.values()]
    evals = recorded.config.evals
    items = ask_benchmark("quiz", list(recorded.texts["quiz"].values()), chat, base, evals)
    for name, answers in (
        ("replies.jsonl", ask_questions(base, chat, given, evals)),
        ("external.jsonl", items),
    ):
        now = {item.id: item.model_dump(mode="json") for item in answers}
        edit_replies(run, lambda rows, now=now: [{**row, **now[row["id"]]} for row in rows], name)


def test_where_a_run_rounds_to_bf16_near_ties_are_told_and_do_not_count(run: RunDir) -> None:
    """A model of a few steps likes all options of a choice about as much, so all questions are
    asked: a sample could hold more near ties than the twentieth that may be judged otherwise.
    """
    record_in_bf16(run)
    check = with_questions(inspect_bundle(run.root), None, 1, None).checks[-1]
    found = figures(check)
    assert found["median_likelihood_gap_nats"] > 1e-4
    assert found["limit_nats"] == 0.25
    assert found["mismatches_or_judged_otherwise_at_most"] == math.ceil(found["asked"] / 20)
    assert found["mismatches"] == 0 and not check.problems
    assert found["equal"] < found["asked"]
    assert len(check.notes) == found["asked"] - found["equal"]


def test_a_run_that_says_bf16_and_did_not_round_is_held_to_float32(run: RunDir) -> None:
    """The publisher states bf16, so that a twentieth of the replies may be invented, and invents
    one.
    """
    change_config(run, lambda config: config["runtime"].update(precision="bf16"))
    first = iter([True])
    invent(
        run,
        lambda row: right_answer(row) if row["skill"] == "spelling" and next(first, False) else row,
    )
    check = with_questions(inspect_bundle(run.root), None, 1, None).checks[-1]
    found = figures(check)
    assert found["recorded_in"] == "bf16 on cpu" and found["limit_nats"] == 0.001
    assert found["median_likelihood_gap_nats"] < 1e-5
    assert len(check.problems) == 1 and "however it is rounded" in check.problems[0].what


def test_the_chance_of_finding_one_invented_reply_is_said(finished: RunDir) -> None:
    some, all_of_them = asked(finished.root, 24), asked(finished.root, None)
    pool = pool_of(find_recorded(finished, finished.root, [finished]))
    drawn = [group for group, _ in draw(pool, 24, 7)]
    least = min(drawn.count(group) / len(ids) for group, ids in pool.items())
    assert 0 < least < 0.1
    assert figures(some)["chance_to_ask_one_question_at_least"] == round(least, 4)
    assert "the chance of finding one invented reply is 0." in (some.note or "")
    assert figures(all_of_them)["chance_to_ask_one_question_at_least"] == 1
    assert "all that was recorded and can be asked" in (all_of_them.note or "")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU checks a run of one")
def test_replies_of_a_gpu_are_asked_on_the_cpu_in_float32_where_there_is_none(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    change_config(
        run,
        lambda config: config["runtime"].update(
            device="cuda", precision="bf16", attention_backend="flash"
        ),
    )
    settle(run)
    check = with_questions(inspect_bundle(run.root), 12, 1, None).checks[-1]
    assert "there is none here: asking on the CPU" in capsys.readouterr().err
    assert "recorded in bf16 on cuda, asked in float32 on cpu" in (check.note or "")
    assert figures(check)["equal"] == 12


def test_a_share_of_invented_replies_is_found_in_bf16_too(run: RunDir) -> None:
    record_in_bf16(run)
    invent(run, lambda row: right_answer(row) if row["skill"] == "spelling" else row)
    report = with_questions(inspect_bundle(run.root), 60, 1, None)
    assert report.exit_code == 3 and len(report.problems) > 3


def test_command_line_of_asking(
    finished: RunDir, run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["run", "verify", str(finished.root), "--ask", "6"]) == 0
    shown = capsys.readouterr()
    assert (
        "asked again: 6 compared: 6 of 6 equal, 0 near ties, 0 mismatches; 6 of 6 judged alike"
        in shown.out
    )
    again = shown.err.partition("picochat run verify ")[2].splitlines()[0]
    assert "--ask 6 --ask-seed " in again
    assert run_command(["run", "verify", *again.split(), "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    found = checks["asked again"]["figures"]
    assert found["command"].endswith(again) and found["equal"] == 6 and found["seconds"] > 0
    assert run_command(["run", "verify", str(finished.root), "--ask-seed", "3"]) == 2
    assert "--ask-seed needs --ask" in capsys.readouterr().err
    for wrong in ("0", "-3", "some", "9" * 5000):
        assert run_command(["run", "verify", str(finished.root), "--ask", wrong]) == 2
        assert "--ask 50, or --ask all" in capsys.readouterr().err
    assert run_command(["run", "verify", str(finished.root), "--ask", "all"]) == 0
    shown = capsys.readouterr()
    assert "--ask all --ask-seed " in shown.err and "all that was recorded" in shown.out
    invent(run, right_answer)
    assert run_command(["run", "verify", str(run.root), "--ask", "20", "--ask-seed", "3"]) == 3
    said = capsys.readouterr().err
    assert "however it is rounded" in said and "seed 3" in said and "Traceback" not in said


def test_verifying_alone_imports_no_torch(finished: RunDir) -> None:
    code = f"""
import sys
from picochat.cli.main import run_command
assert run_command(["run", "verify", {str(finished.root)!r}]) == 0
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
