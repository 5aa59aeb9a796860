"""Checks across artifacts about training, scores and what was observed.

As data_checks.py, for the stages that need a model. Replies, likelihoods, losses and bits per byte
cannot be computed again without the weights. Here is what they must agree with, and that none was
left out or counted twice.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from picochat.config import step_tokens
from picochat.core.errors import Problem
from picochat.core.journal import read_journal
from picochat.core.records import pretty_json, read_json, to_jsonable
from picochat.data.benchmarks.stage import read_items
from picochat.evals.eval_records import (
    EvaluatedRow,
    read_continuations,
    read_external,
    read_held_out,
    read_measured,
    read_replies,
)
from picochat.evals.evaluate import MEMORIZED_TOKENS, facts_from, prefix_positions, questions
from picochat.evals.scores import bits_per_byte, scores_page
from picochat.export.export_record import (
    BOUNDS,
    EXPORT_RECORD,
    ROWS,
    TEXTS,
    greedy_tokens,
    parity_of,
    row_tokens,
)
from picochat.facts import REPLAY_FOLDER, STATES, RunFacts, TrainFacts
from picochat.release.compare import differences, known, names_shown, stated_of
from picochat.report.summary import observed, stage_speed
from picochat.run.folder import RunDir
from picochat.skills.scoring import choice_candidates
from picochat.skills.task_rows import EvalRow
from picochat.train.artifact import read_states
from picochat.train.schedule import evaluates_after, lr_fraction, replay_step

LARGEST_BITS_APART = 0.01
"""The fraction by which the held-out bits per byte of training and of scoring may differ.

They differ because kernels round otherwise in other batches.
"""


# ---- training ------------------------------------------------------------------------------------


def check_base(run: RunFacts) -> list[Problem]:
    return _training(run, "base")


def check_sft(run: RunFacts) -> list[Problem]:
    problems = _training(run, "sft")
    weights = {
        stage: run.artifacts[stage].manifest.files["model.safetensors"].sha256
        for stage in ("base", "sft")
    }
    if known(run.sft).steps == 0 and weights["base"] != weights["sft"]:
        what = "sft/checkpoint: took no step, and its weights are not those of the base stage"
        problems.append(Problem(what))
    return problems


def _training(run: RunFacts, stage: Literal["base", "sft"]) -> list[Problem]:
    """What the settings say of each step and evaluation, and the record beside the weights."""
    config = run.config.base if stage == "base" else run.config.sft
    facts = known(run.base if stage == "base" else run.sft)
    problems = _state_problems(run, stage, facts)
    curve = f"{stage}/checkpoint/curve.jsonl"
    rows = read_journal(run.artifacts[stage].path("curve.jsonl"))
    steps = [row for row in rows if row["loss"] is not None]
    wrong = [
        row["step"]
        for number, row in enumerate(steps)
        if (row["step"], row["lr_fraction"]) != (number + 1, lr_fraction(number, config))
    ]
    if wrong:
        problems.append(
            Problem(
                f"{curve}: step {_shown(wrong)}: another step or learning rate than the settings"
                " give"
            )
        )
    due = [number for number in range(1, len(steps) + 1) if evaluates_after(number, config)]
    evaluated = [row["step"] for row in rows if row["loss"] is None]
    if evaluated != due:
        odd = sorted(set(evaluated) ^ set(due)) or evaluated
        problems.append(
            Problem(f"{curve}: evaluation at step {_shown(odd)}: missing, repeated, or not due")
        )
    per_step = step_tokens(run.config.base, run.config.model)
    counted = [row["step"] for row in rows if row["tokens"] != per_step * row["step"]]
    if stage == "base" and counted:
        problems.append(
            Problem(f"{curve}: step {_shown(counted)}: other tokens than the settings give")
        )
    if facts.skipped_steps and not config.spike_rollbacks:
        problems.append(
            Problem(
                f"{stage}.skipped_steps: states {facts.skipped_steps}, and the settings allow no"
                " rollback"
            )
        )
    info = {
        "model": to_jsonable(run.config.model),
        "vocab_size": known(run.tokenizer).vocab_size,
        "tokenizer_digest": run.artifacts["tokenizer"].manifest.files["tokenizer.json"].sha256,
        "stage": stage,
        "step": facts.scored_step,
    }
    stated = read_json(run.artifacts[stage].path("model.json"), "checkpoint record")
    return problems + differences(
        f"{stage}/checkpoint/model.json", stated, info, "settings, tokenizer and facts give"
    )


def _state_problems(
    run: RunFacts, stage: Literal["base", "sft"], facts: TrainFacts
) -> list[Problem]:
    """Problems of the saved states: one of each evaluation, and the one to replay from is its."""
    artifact, config = run.artifacts[stage], run.config.base if stage == "base" else run.config.sft
    where, states = f"{stage}/checkpoint/{STATES}", read_states(artifact.place)
    steps = [row.step for row in states]
    due = {number for number in range(1, facts.steps + 1) if evaluates_after(number, config)}
    odd = sorted(due - set(steps)) + [step for step in steps if not 0 < step <= facts.steps]
    problems = (
        [Problem(f"{where}: state of step {_shown(odd)}: missing, or no step")] if odd else []
    )
    if steps != sorted(set(steps)):
        problems.append(Problem(f"{where}: a step stands there twice, or out of order"))
    skipped = [row.skipped for row in states]
    if skipped != sorted(skipped) or (states and skipped[-1] != facts.skipped_steps):
        problems.append(Problem(f"{where}: other skipped steps than {facts.skipped_steps}"))
    at, listed = replay_step(config), artifact.manifest.files
    for row in states:
        for name, file in row.files.items():
            replayed = listed.get(f"{REPLAY_FOLDER}/{name}")
            if row.step == at and replayed not in (None, file) and not row.in_parts:
                problems.append(Problem(f"{where}: step {at}: {REPLAY_FOLDER}/{name} is another"))
    return problems


def _shown(steps: Sequence[int]) -> str:
    return names_shown([str(step) for step in steps])


# ---- scores --------------------------------------------------------------------------------------


def check_parity(run: RunFacts) -> list[Problem]:
    """The comparison has the stage's sizes and bound, and its difference is what its parts give.

    The numbers themselves come from the weights: `picochat export verify` reads those.
    """
    found = parity_of(run.artifacts["parity"].place)
    if found is None:
        return []
    context = run.config.model.context
    compared_tokens = ROWS * row_tokens(context)
    enough = known(run.shards).held_out_tokens >= compared_tokens
    follows = {
        "dtype": "float32",
        "bound": BOUNDS["float32"],
        "token_source": "held-out text" if enough else "seeded random ids",
        "tokens_compared": compared_tokens,
        "greedy_tokens": greedy_tokens(context),
        "greedy_tokens_equal": found.greedy_largest_shortfall == 0.0,
        "texts_compared": len(TEXTS),
    }
    where = f"parity/{EXPORT_RECORD}.parity"
    problems = stated_of(where, found, follows, "the stage compares")
    # Each of the three is rounded up to two digits, so by a tenth at most.
    ratio = found.largest_difference / found.largest_logit
    if not ratio / 1.11 <= found.largest_relative_difference <= ratio * 1.22:
        problems.append(
            Problem(
                f"{where}.largest_relative_difference: states {found.largest_relative_difference},"
                f" the difference over the largest logit is {ratio:.2g}"
            )
        )
    return problems


def check_scores(run: RunFacts) -> list[Problem]:
    """Problems of the recorded scores.

    Every row, benchmark row and prefix must have been asked once, as it stands, and the pages must
    follow from the replies.
    """
    scores = run.artifacts["scores"]
    wanted = questions(run.artifacts["rows"], run.config.evals.fit_rows)
    asked = read_replies(scores.place)
    problems = (
        _asked_otherwise(wanted, asked)
        + _external(run)
        + _memorization(run)
        + _measured(run)
        + _held_out(run)
    )
    if problems:
        return problems  # scores of other questions say nothing more
    again = facts_from(scores.place, run.artifacts)
    pages = {
        "report.json": pretty_json(again),
        "report.md": scores_page(again, {row.id: row for _, row in wanted}, asked).encode(),
    }
    differing = [name for name, page in pages.items() if scores.path(name).read_bytes() != page]
    return [Problem(f"eval/{name}: differs from what the replies give") for name in differing]


def _asked_otherwise(
    wanted: Sequence[tuple[str, EvalRow]], asked: Sequence[EvaluatedRow]
) -> list[Problem]:
    """Questions that were left out, repeated or put otherwise than their rows say."""
    expected = {(name, row.id): row for name, row in wanted}
    counts = Counter((item.set, item.id) for item in asked)
    found = {
        "was not asked": [id for name, id in expected if (name, id) not in counts],
        "was asked and is no question of this run": [
            id for name, id in counts if (name, id) not in expected
        ],
        "stands there more than once": [id for (_, id), count in counts.items() if count > 1],
        "is stated otherwise than in the rows": [
            i.id
            for i in asked
            if (i.set, i.id) in expected and not _is_asked(expected[i.set, i.id], i)
        ],
    }
    return [
        Problem(f"eval/replies.jsonl: {names_shown(ids)} {what}")
        for what, ids in found.items()
        if ids
    ]


def _is_asked(row: EvalRow, asked: EvaluatedRow) -> bool:
    """Whether question, skill and stage are the row's and the reply fits its candidates.

    The reply to a choice must be its likeliest candidate.
    """
    mine = (asked.skill, asked.stage, asked.prompt, asked.expected)
    if mine != (row.skill, row.curriculum_stage, row.user, row.reference_answer):
        return False
    base = asked.set != "eval" and asked.base_reply is None and asked.base_log_likelihoods is None
    return _chosen(row, asked.reply, asked.log_likelihoods) and (
        base
        or (
            asked.base_reply is not None
            and _chosen(row, asked.base_reply, asked.base_log_likelihoods)
        )
    )


def _chosen(row: EvalRow, reply: str, log_likelihoods: Sequence[float] | None) -> bool:
    if not row.choice_labels:
        return log_likelihoods is None
    candidates = choice_candidates(row)
    if (
        log_likelihoods is None
        or len(log_likelihoods) != len(candidates)
        or not all(map(math.isfinite, log_likelihoods))
    ):
        return False
    return reply == candidates[log_likelihoods.index(max(log_likelihoods))]


def _external(run: RunFacts) -> list[Problem]:
    items = {item.id: item.benchmark for item in read_items(run.artifacts["benchmarks"])}
    answers = read_external(run.artifacts["scores"].place)
    counts = Counter(answer.id for answer in answers)
    found = {
        "has no answer": [id for id in items if id not in counts],
        "is no item of this run": [
            answer.id for answer in answers if items.get(answer.id) != answer.benchmark
        ],
        "stands there more than once": [id for id, count in counts.items() if count > 1],
    }
    return [
        Problem(f"eval/external.jsonl: {names_shown(ids)} {what}")
        for what, ids in found.items()
        if ids
    ]


def _memorization(run: RunFacts) -> list[Problem]:
    """Problems of the prefixes that memorization was measured on.

    They must be those that seed and shards give, each continued for as many tokens as count as
    memorized.
    """
    recalled = read_continuations(run.artifacts["scores"].place)
    tokens, samples = (known(run.shards).train_tokens, run.config.evals.memorization_samples)
    positions = prefix_positions(tokens, samples, run.config.seed, run.config.model.context)
    if [item.position for item in recalled] != positions or any(
        len(item.expected) != MEMORIZED_TOKENS for item in recalled
    ):
        return [Problem("eval/memorization.jsonl: holds other prefixes than seed and shards give")]
    return []


def _measured(run: RunFacts) -> list[Problem]:
    """Problems of measured.json: the baseline must have seen as many tokens as the settings say."""
    measured = read_measured(run.artifacts["scores"].place)
    seen = min(known(run.shards).train_tokens, run.config.evals.ngram_train_tokens)
    return stated_of(
        "eval/measured.json", measured, {"ngram_train_tokens": seen}, "shards and settings give"
    )


def _held_out(run: RunFacts) -> list[Problem]:
    """Problems of the losses of held-out documents.

    All documents of the shards must be there, and their sum must be near to what training measured
    of the same weights.
    """
    documents, shards = read_held_out(run.artifacts["scores"].place), known(run.shards)
    counts = {
        "documents": len(documents),
        "text_bytes": sum(document.text_bytes for document in documents),
    }
    held_out = {"documents": shards.held_out_documents, "text_bytes": shards.held_out_text_bytes}
    problems = differences("eval/held_out.jsonl", counts, held_out, "the shards have")
    trained = known(run.base).held_out_bits_per_byte
    scored = bits_per_byte(documents, [document.base_nats for document in documents])
    if trained is not None and (
        scored is None or not abs(scored - trained) <= LARGEST_BITS_APART * trained
    ):
        problems.append(
            Problem(
                f"eval/held_out.jsonl: its documents give {scored} bits per byte of the base model,"
                f" training measured {trained} on the same text"
            )
        )
    return problems


# ---- summary -------------------------------------------------------------------------------------


def check_summary(run: RunFacts) -> list[Problem]:
    """What is said to have been observed, against the observations of the stages.

    The machine record and the timings go on changing with later commands, so a stage's hours must
    be those of one of its timings.
    """
    root = RunDir(run.artifacts["summary"].place.parent)
    stated = read_json(run.artifacts["summary"].path("observed.json"), "observations")
    again = observed(run, root.timings, root.machine)
    lasting = ("stages", "speeds", "host", "preflight", "gpu_hour_usd")
    problems = differences(
        "summary/observed.json",
        {name: stated[name] for name in lasting},
        {name: again[name] for name in lasting},
        "the stages' files give",
    )
    price, forecasts = (
        stated["gpu_hour_usd"],
        {item["stage"]: item["forecast"] for item in again["hours_of"]},
    )
    for item in stated["hours_of"]:
        follows = {
            "usd": item["hours"] * price if price else None,
            "forecast": forecasts.get(item["stage"]),
        }
        where = f"summary/observed.json hours_of {item['stage']}"
        problems += differences(
            where, {name: item[name] for name in follows}, follows, "the stages' files give"
        )
        if item["hours"] not in _hours_of(root, item["stage"]):
            problems.append(
                Problem(f"{where}: states {item['hours']} hours, timings.jsonl has no such time")
            )
    hours = sum(item["hours"] for item in stated["hours_of"]) if stated["hours_of"] else None
    totals = {
        "hours": hours,
        "usd": hours * price if hours is not None and price is not None else None,
    }
    return problems + differences(
        "summary/observed.json", {name: stated[name] for name in totals}, totals, "its parts give"
    )


def _hours_of(run: RunDir, stage: str) -> set[float]:
    """Every time that the stage took, in hours; of a stage of training at least its steps."""
    speed = (
        stage_speed(read_journal(run.place(stage) / "metrics.jsonl"))
        if stage in ("base", "sft")
        else None
    )
    least = speed.hours if speed else 0.0
    times = [row["seconds"] / 3600 for row in read_journal(run.timings) if row["stage"] == stage]
    return {max(found, least) for found in times} | ({least} if speed else set())
