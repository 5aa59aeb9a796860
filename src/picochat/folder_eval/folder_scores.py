"""The scores of a model folder: what its kept replies are worth by the gate's own rules.

Needs no model and no torch. Rates, bounds and trivial answers are those of a run, with two
differences. Nothing is known of the text that the model was trained on, so no row is left out as
contaminated. Trivial answerers that count words of a corpus are left out, because there is none.
It is a measurement and no verdict: the gate's rules on the run itself are not judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pydantic import Field

from picochat.config import GateConfig
from picochat.core.records import Record
from picochat.data.benchmarks.stage import BenchmarkItem
from picochat.evals.eval_records import EvaluatedItem, EvaluatedRow, ScoresMeasured
from picochat.evals.external import external_scores_of
from picochat.evals.scores import scores_of
from picochat.evals.trivial import TrivialMeasured, trivial_facts
from picochat.facts import (
    BenchmarksFacts,
    ExternalScore,
    OwnScore,
    Rate,
    RunFacts,
    ScoresFacts,
    TrivialFacts,
    TrivialScore,
)
from picochat.gate.decide import Row
from picochat.gate.release import RULES
from picochat.gate.row_bounds import row_bounds
from picochat.scales import find_scale
from picochat.skills.scoring import with_options_listed
from picochat.skills.task_rows import EvalRow, SftRow

SCHEMA_VERSION = 1
NOT_KNOWN = (
    "What this model was trained on is not known here. A row that it passes may be one that it has"
    " seen."
)
NO_CORPUS = (
    "The best trivial answer understands nothing and knows the pack's rows. Here it counts no words"
    " of a corpus, as it does in a run."
)
OTHER_RULES = ("choice_listed", "prompt_echo", "unsupported_claims")
EXTERNAL_RULE = "external_eval"


class RuleResult(Record):
    """One rule of the release gate on this model's answers.

    measured: None where the rows give no number. holds: None then. blocks: whether a miss blocks
    the release of a skill model; otherwise it warns.
    """

    rule: str
    reading: str
    measured: float | None
    unit: str
    bound: str
    holds: bool | None
    blocks: bool


class FolderSkill(Record):
    """One skill: what passed, beside chance and the best answerer that understands nothing.

    passes: whether every rule on the rows of the skill holds; None where one was not measured.
    """

    passed: Rate
    chance: float
    levels: dict[str, Rate]
    trivial: TrivialScore | None
    rules: list[RuleResult]
    passes: bool | None


class FolderScores(Record):
    """scores.json: all scores of one model folder on the eval rows of one pack.

    replies_cut: texts that reached the limit of new tokens, and so may lack their end.
    not_asked: rows that do not fit the model's context, and count as failed.
    """

    schema_version: int = SCHEMA_VERSION
    contamination: str = NOT_KNOWN
    trivial_answers: str = NO_CORPUS
    skills: dict[str, FolderSkill]
    own: dict[str, OwnScore]
    choice_listed: Rate
    refusal: Rate
    over_refusal: Rate
    prompt_echo: Rate
    unsupported_claims: Rate
    rules: list[RuleResult] = Field(description="those of no single skill")
    external: dict[str, ExternalScore]
    replies_cut: int
    not_asked: int


def folder_scores(
    rows: Sequence[EvalRow],
    sft: Sequence[SftRow],
    asked: Sequence[EvaluatedRow],
    *,
    model_digest: str,
    replies_cut: int,
    not_asked: int,
    benchmarks: BenchmarksFacts | None = None,
    items: Sequence[BenchmarkItem] = (),
    external: Sequence[EvaluatedItem] = (),
) -> FolderScores:
    """The scores that follow from the kept replies.

    rows, sft: of the pack. items: of the benchmarks that were asked. model_digest: what the
    replies are of.
    """
    by_id = {row.id: row for row in rows}
    by_id |= {row.id: row for row in filter(None, map(with_options_listed, rows))}
    found = external_scores_of(benchmarks.benchmarks if benchmarks else {}, items, external, {})
    none_measured = ScoresMeasured(ngram_bits_per_byte=None, ngram_train_tokens=0)
    scores = scores_of(by_id, asked, [], none_measured, [], (), model_digest, found)
    trivial = trivial_facts(sft, rows, TrivialMeasured(documents=0, text_bytes=0, options={}))
    run = RunFacts(
        config=find_scale("tiny").config.model_copy(
            update={"gate": GateConfig(profile="skill_release")}
        ),
        scores=scores,
        trivial=trivial,
        benchmarks=benchmarks,
    )
    return _as_record(run, scores, trivial, replies_cut, not_asked)


def _as_record(
    run: RunFacts, scores: ScoresFacts, trivial: TrivialFacts, replies_cut: int, not_asked: int
) -> FolderScores:
    others = [*OTHER_RULES, *([EXTERNAL_RULE] if scores.external else [])]
    return FolderScores(
        skills={
            name: _skill(run, name, trivial.skills.get(name, []))
            for name, score in scores.skills.items()
            if score.all.count
        },
        own=scores.own,
        choice_listed=scores.choice_listed,
        refusal=scores.refusal,
        over_refusal=scores.over_refusal,
        prompt_echo=scores.prompt_echo,
        unsupported_claims=scores.unsupported_claims,
        rules=[result for result in _results(run, others) if result.measured is not None],
        external=scores.external,
        replies_cut=replies_cut,
        not_asked=not_asked,
    )


def _skill(run: RunFacts, name: str, trivial: Sequence[TrivialScore]) -> FolderSkill:
    assert run.scores is not None, "there are scores"
    score = run.scores.skills[name]
    # The names of the rules on rows of this skill; the table has further rows of these names.
    rules = _results(run, {bound.rule for bound in row_bounds([name])})
    held = [rule.holds for rule in rules]
    return FolderSkill(
        passed=score.all,
        chance=score.chance,
        levels=score.levels,
        trivial=trivial[0] if trivial else None,
        rules=rules,
        passes=False if False in held else None if None in held or not held else True,
    )


def _results(run: RunFacts, names: Iterable[str]) -> list[RuleResult]:
    wanted = set(names)
    return [_result(row, run) for row in RULES if row.name in wanted]


def _result(row: Row, run: RunFacts) -> RuleResult:
    measured = row.measure(run)
    bound = row.block or row.warn
    assert bound is not None, "a rule has a bound"
    return RuleResult(
        rule=row.name,
        reading=row.reading.replace("clean pass rate", "pass rate"),
        measured=measured,
        unit=row.unit.replace("clean rows", "rows"),
        bound=str(bound),
        holds=None if measured is None else bound.holds(measured),
        blocks=row.block is not None,
    )


def rates_of(scores: FolderScores) -> Mapping[str, Rate]:
    """The rates that belong to no skill, by the names of present/labels.py."""
    names = ("refusal", "over_refusal", "choice_listed", "prompt_echo", "unsupported_claims")
    return {name: getattr(scores, name) for name in names if getattr(scores, name).count}
