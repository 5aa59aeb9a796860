"""What fixes a finding: the remedies of the checks and of the rules.

A remedy is one sentence with one command, or a function of the facts that returns one. Where it
names a number, the check passes with it. PACK stands for the dataset_pack.json of the run and N
for a number: the same facts give the same text on every machine. tests/remedies.toml says how each
was tried.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from shlex import quote

from picochat.config import TrainConfig, step_tokens
from picochat.data.licences import compare_licences
from picochat.data.pack import TASK_PACK as TASK_PACK_COMMAND
from picochat.facts import RunFacts
from picochat.gate import measures
from picochat.gate.plan import plan, target_tokens, vocab_size
from picochat.train.schedule import half_the_rates

PACK = "PACK"
FIX = re.compile(" *fix: ")  # the begin of a line that shows a remedy
MOST_EPOCHS = 4.0
FEWEST_EPOCHS = 0.25
MOST_SFT_EPOCHS = 25
ENOUGH_HELD_OUT_TOKENS = 1_000_000
LARGEST_HELD_OUT_FRACTION = 0.2
LARGEST_VOCABULARY = 65_536
ENOUGH_BENCHMARK_ROWS = 500

MAKE_ROWS = TASK_PACK_COMMAND.format(pack=PACK) + " --sft-rows 2800 --eval-rows 700"
TASK_PACK = f"{MAKE_ROWS} --force"
EVERY_SKILL = (
    "--long-run-gate-profile research needs no skills; rows of every skill beside the pack's own:"
    f" {MAKE_ROWS} --add"
)
LICENCE = (
    'name the licence of the text: "licence" of the source in the pack\'s recipe, or --license NAME'
    " beside --input"
)
IMPORT_AGAIN = "import the source again with --force, which writes its import report"
OVERLAP = (
    "remove overlapping sources from the pack's recipe; this shows the fraction of each: picochat"
    " data preview --dataset-pack PACK"
)
SECOND_DOCUMENT = (
    "add a document of other text: held-out text is whole documents, such as files, lines of JSON"
    " or what <|endoftext|> separates in a file"
)
OF_PICOCHAT = "this is a fault of picochat and not of your data: report it with preflight.json"
SHARED_QUESTIONS = "remove these questions from the pack's chat file, or from its eval file"
REWORD = "look at the hits in honesty/report.md, and reword one of the two rows"
LEAVE_OUT = (
    "copy documents_to_leave_out of honesty/report.json into the pack's recipe as"
    ' "exclude_documents", and run again'
)
EXTERNAL = (
    "--external-eval auto, or --external-eval NAME=PATH of a file in a published layout (.jsonl or"
    " .parquet)"
)
RESOLVE = (
    "run the same command with a network, which fetches what is missing, or name a file of it:"
    " --external-eval NAME=PATH"
)
STOCK_SHAPE = (
    "choose model.heads x model.head_width = model.width and model.centred = true, or export"
    " nothing"
)
ATTENTION = "choose another: --attn-backend math, which runs everywhere"
DISK = (
    "put --out-dir on a larger disk; or free some space, move the run folder's host/ and preflight/"
    " away, and run the same command again"
)
AS_PREFLIGHT_SAYS = "do what preflight.md says of these checks, then run the same command again"
SCORE_AGAIN = (
    "move the run folder's eval/ away and run the same command again: it scores what stands"
)
TRAIN_AGAIN = (
    "move the run folder's base/checkpoint/ and sft/checkpoint/ away and run the same command"
    " again: it trains all steps"
)
UNTOUCHED = (
    "move the changed artifact away and run the same command again; this names it: picochat run"
    " verify RUN"
)
FEWER_REPEATS = "fewer epochs (--base-steps N), or --drop-near-duplicates"
EXPORT = (
    "parity/export_report.json says why; where it misses transformers: pip install 'picochat[hf]',"
    " then move parity/ away and run the same command again"
)


def with_pack(lines: Iterable[str], pack: Path) -> list[str]:
    """The lines, those of remedies with the path of the pack in place of PACK, to be pasted."""
    return [
        re.sub(rf"\b{PACK}\b", lambda _: quote(str(pack)), line) if FIX.match(line) else line
        for line in lines
    ]


# ---- text and tokens -----------------------------------------------------------------------------


def more_text(run: RunFacts) -> str:
    return (
        "add text to the sources of the pack; for imported ones this gives the command: picochat"
        f" data preview --dataset-pack {PACK} --scale {run.config.scale}"
    )


def provenance(run: RunFacts) -> str:
    sources = run.corpus.sources if run.corpus else []
    gaps = {gap for source in sources for gap in measures.provenance_gaps(source)}
    if gaps == {"licence"}:
        return LICENCE
    return LICENCE + "; " + IMPORT_AGAIN if "licence" in gaps else IMPORT_AGAIN


def licence_fit(run: RunFacts) -> str:
    """Another licence of the model where one fits, else the sources to look at."""
    found = measures.compared_licences(run)
    if not found or not run.corpus:
        return LICENCE
    if found.contradicted:
        leave_out = _left_out(found.contradicted)
        if not found.fitting:
            return leave_out
        return f"--set gate.license={found.fitting[0]}; or {leave_out}"
    if not all(source.licence for source in run.corpus.sources):
        return LICENCE
    if unclear := compare_licences(run.licences(), found.fitting[0]).unknown:
        return f"read what the licence of {', '.join(unclear)} asks, or {_left_out(unclear)}"
    return f"name the licence of the model: --set gate.license={found.fitting[0]}"


def _left_out(labels: Iterable[str]) -> str:
    return f"leave {', '.join(labels)} out of the pack"


def hold_out_more(run: RunFacts) -> str:
    """Settings with which ENOUGH_HELD_OUT_TOKENS are held out; more text where none are."""
    shards, corpus, data = run.shards, run.corpus, run.config.data
    tokens = shards.train_tokens + shards.held_out_tokens if shards else 0
    fraction = 1.2 * ENOUGH_HELD_OUT_TOKENS / tokens if tokens else math.inf
    if fraction > LARGEST_HELD_OUT_FRACTION or not corpus:
        return more_text(run)
    fraction = max(data.held_out_fraction, math.ceil(1000 * fraction) / 1000)
    wanted = math.ceil(fraction * corpus.text_bytes)
    return (
        f"hold out more: --set data.held_out_fraction={fraction:g}"
        f" --set data.held_out_bytes={max(data.held_out_bytes, wanted)}"
    )


def fitting_tokenizer(run: RunFacts) -> str:
    """A tokenizer of more of the text; where it was trained on all of it, of more tokens."""
    tokenizer = run.config.tokenizer
    if run.corpus and run.corpus.train_text_bytes > tokenizer.train_bytes:
        wanted = min(4 * tokenizer.train_bytes, run.corpus.train_text_bytes)
        return f"train it on more of this text: --set tokenizer.train_bytes={wanted}"
    larger = min(max(8_192, 2 * vocab_size(run)), LARGEST_VOCABULARY)
    return f"more tokens: --set tokenizer.vocab_size={larger}"


# ---- the plan ------------------------------------------------------------------------------------


def steps_to_target(run: RunFacts) -> str:
    return f"--base-steps {_steps(run, target_tokens(run))}"


def other_exposure(run: RunFacts) -> str:
    """Fewer steps or more text for many epochs, more steps for a part of one."""
    found = plan(run)
    if not found.train_tokens or found.planned_epochs is None:
        return more_text(run)
    if found.planned_epochs < FEWEST_EPOCHS:
        return f"more steps: --base-steps {_steps(run, FEWEST_EPOCHS * found.train_tokens)}"
    fewer = int(MOST_EPOCHS * found.train_tokens / step_tokens(run.config.base, run.config.model))
    return f"fewer steps: --base-steps {max(1, fewer)}; or {more_text(run)}"


def smaller_target(run: RunFacts) -> str:
    return f"choose a smaller --scale; or {more_text(run)}"


def _steps(run: RunFacts, tokens: float) -> int:
    return math.ceil(tokens / step_tokens(run.config.base, run.config.model))


def shorter_context(run: RunFacts) -> str:
    tokens = run.shards.train_tokens if run.shards else 0
    if tokens < 2:
        return more_text(run)
    return f"a shorter context: --set model.context={max(1, tokens // 2)}; or {more_text(run)}"


def within_budget(run: RunFacts) -> str:
    if run.config.gate.gpu_hour_usd is None:
        return "name the price of a GPU hour: --gpu-hour-usd N"
    found, budget = plan(run), run.config.gate.budget_usd
    if not found.usd or not found.hours or not budget:
        return no_step(run)
    of_base = found.usd * found.hours_of["base"] / found.hours
    kept = max(0.0, 1 - (found.usd - budget) / of_base)
    fewer = max(1, int(run.config.base.steps * kept))
    return f"fewer steps: --base-steps {fewer}; or a larger --budget-usd"


# ---- rows ----------------------------------------------------------------------------------------


def task_rows(own: str) -> Callable[[RunFacts], str]:
    """Make other rows where the pack tests skills; `own`: what to do with rows of one's own."""
    return lambda run: TASK_PACK if measures.tested_skills(run) else own


def fewer_sft_steps(run: RunFacts) -> str:
    rows, conversations, sft = run.rows, run.conversations, run.config.sft
    fitting = rows.sft_train_rows - conversations.rows_over_context if rows and conversations else 0
    steps = max(1, int(MOST_SFT_EPOCHS * fitting / sft.conversations_per_step))
    return f"fewer steps: --sft-steps {steps}; or more rows in the pack's chat file"


def longer_context(run: RunFacts) -> str:
    """A context that holds the longest SFT row; at least twice the present one for eval rows."""
    longest = run.conversations.longest_row_tokens if run.conversations else 0
    context = 2 * run.config.model.context
    while context < longest:
        context *= 2
    return f"shorten these rows, or take a longer context: --set model.context={context}"


def more_benchmark_rows(run: RunFacts) -> str:
    if 0 < run.config.external.max_rows < ENOUGH_BENCHMARK_ROWS and measures.largest_benchmark_rows(
        run
    ):
        return "ask all of their rows: --external-eval-max-rows 0"
    return EXTERNAL


def missing_benchmarks(run: RunFacts) -> str:
    return RESOLVE if run.benchmarks and run.benchmarks.unresolved else EXTERNAL


def clean_benchmark(run: RunFacts) -> str:
    if not measures.largest_benchmark_rows(run):
        return EXTERNAL
    return LEAVE_OUT + "; or name another benchmark: --external-eval NAME=PATH"


def less_trivial_rows(run: RunFacts) -> str:
    worst = measures.most_trivial_skill(run) or "the judged skills"
    return f"add rows of {worst} that the best trivial answer fails to the pack's eval file"


def more_rows_to_pass(run: RunFacts) -> str:
    found = measures.power_of(run)
    return _more_rows(found.hardest if found else None)


def more_rows_to_fail(run: RunFacts) -> str:
    found = measures.power_of(run)
    return _more_rows(found.weakest if found else None)


def _more_rows(skill: str | None) -> str:
    return f"add rows of {skill or 'the judged skills'} to the pack's eval file, of every level"


# ---- this host -----------------------------------------------------------------------------------


def less_memory(run: RunFacts) -> str:
    """Half the micro-batch that was measured; where it was one sequence, less memory for each."""
    if not run.host or not run.host.measured_steps:
        return no_step(run)
    base, sft = (
        _micro_batch(train, run.host.devices, run.host.micro_batch)
        for train in (run.config.base, run.config.sft)
    )
    if base > 1:
        return (
            f"smaller micro-batch: --set base.micro_batch={base // 2}"
            f" --set sft.micro_batch={max(1, sft // 2)}"
        )
    if not run.config.runtime.activation_checkpointing:
        return "keep fewer activations: --set runtime.activation_checkpointing=true"
    return "choose a smaller --scale, or a larger device with a new --out-dir"


def _micro_batch(train: TrainConfig, devices: int, fitted: int | None) -> int:
    asked = min(train.micro_batch or train.sequences_per_step, train.sequences_per_step // devices)
    return max(1, min(asked, fitted or asked))


def no_step(run: RunFacts) -> str:
    """No step was measured: the remedy is that of the check which says why."""
    check = "attention_backend_runtime" if run.host and run.host.attention_problem else None
    return f"mend {check or 'training_rows or memory_fit'} first: no step could be measured"


# ---- the release gate ----------------------------------------------------------------------------


def longer_base(run: RunFacts) -> str:
    return f"train longer: --base-steps {2 * run.config.base.steps}; or {more_text(run)}"


def beat_baseline(run: RunFacts) -> str:
    if measures.bits_over_baseline(run) is None and run.scores:
        return f"count a whole baseline: --set evals.ngram_train_tokens={measures.BASELINE_TOKENS}"
    return longer_base(run)


def longer_sft(run: RunFacts) -> str:
    return (
        "look at the failing rows in eval/replies.jsonl; then more rows of that kind, or train"
        f" longer: --sft-steps {2 * run.config.sft.steps}"
    )


def level(run: RunFacts, skill: str) -> str:
    return longer_sft(run) if measures.counted_levels(run, skill) else TASK_PACK


def lower_rate(run: RunFacts) -> str:
    return f"lower the rate: {half_the_rates('base', run.config.base)}"


def finite_loss(run: RunFacts) -> str:
    """A lower rate in the stage whose loss broke."""
    base = run.base
    stage = "sft" if base and base.losses_finite and base.final_loss is not None else "base"
    return f"lower the rate: {half_the_rates(stage, getattr(run.config, stage))}"


def above_chance(run: RunFacts) -> str:
    return longer_base(run) if run.scores and run.scores.external else EXTERNAL


def scored_benchmarks(run: RunFacts) -> str:
    return RESOLVE if run.benchmarks and run.benchmarks.unresolved else SCORE_AGAIN
