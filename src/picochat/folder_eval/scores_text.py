"""How the scores of a model folder look: the table on the terminal, and scores.md with replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from picochat.evals.eval_records import EvaluatedRow
from picochat.evals.scores import Judged, judge
from picochat.facts import Rate
from picochat.folder_eval.folder_scores import FolderScores, FolderSkill, RuleResult, rates_of
from picochat.folder_eval.model_record import ModelRecord
from picochat.present import values
from picochat.present.labels import OTHER_RATES
from picochat.present.printable import cell, one_line
from picochat.present.terminal import columns
from picochat.skills.task_rows import EvalRow

SHOWN_REPLIES = 5  # of each skill, of those that passed and of those that failed
SHOWN_LINE = 120  # characters of a trivial answer
SKILL_TITLES = ("skill", "passed", "rate", "95%", "chance", "best trivial", "must be", "result")
RULE_TITLES = ("rule", "what it reads", "measured", "must be", "result")


def terminal_lines(model: ModelRecord, scores: FolderScores) -> list[str]:
    """The table of the skills, the rules that the model misses, and other rates."""
    lines = [_title(model), ""]
    lines += columns([SKILL_TITLES, *_skill_cells(scores)], right=(1, 2, 4))
    levels = [(f"{name} {level}", values.rate(found)) for name, level, found in _levels(scores)]
    missed = [rule for rule in _all_rules(scores) if rule.holds is False]
    if levels:
        lines += ["", "levels:", *(f"  {line}" for line in columns(levels))]
    if missed:
        lines += ["", "rules of the release gate that it misses:"]
        lines += [
            f"  {rule.rule}: {rule.reading} {values.number(rule.measured)}, must be {rule.bound}"
            for rule in missed
        ]
    lines += ["", *(f"{label}: {text}" for label, text in _other_rates(scores))]
    return [*lines, "", *_notes(model, scores)]


def scores_page(
    model: ModelRecord,
    scores: FolderScores,
    rows: Mapping[str, EvalRow],
    asked: Sequence[EvaluatedRow],
) -> str:
    """scores.md: the same tables, every rule, and replies of each skill that passed or failed."""
    lines = [f"# Scores of {cell(model.name)}", "", cell(_title(model)), ""]
    lines += [f"{note}\n" for note in _notes(model, scores)]
    lines += _table(SKILL_TITLES, _skill_cells(scores))
    if levels := [(n, level, values.rate(found)) for n, level, found in _levels(scores)]:
        lines += ["", *_table(("skill", "level", "passed"), levels)]
    lines += ["", *_trivial_lines(scores)]
    lines += ["", "## Rules of the release gate on these rows", ""]
    lines += _table(RULE_TITLES, [_rule_cells(rule) for rule in _all_rules(scores)])
    lines += ["", *_table(("rate", "measured"), _other_rates(scores))]
    return "\n".join([*lines, *_reply_lines(rows, asked)]) + "\n"


def _title(model: ModelRecord) -> str:
    return (
        f"{model.name}: {model.model_class}, {values.count(model.parameters)} parameters,"
        f" {model.settings.precision} on {model.settings.device},"
        f" {values.count(model.eval_rows)} eval rows"
    )


def _notes(model: ModelRecord, scores: FolderScores) -> list[str]:
    cut = (
        f"{values.count(scores.replies_cut)} replies reached the limit of"
        f" {model.settings.max_new_tokens} tokens and may lack their end."
    )
    left = (
        f"{values.count(scores.not_asked)} questions do not fit the context of"
        f" {values.count(model.context)} tokens and count as failed."
    )
    return [
        scores.contamination,
        scores.trivial_answers,
        *([cut] if scores.replies_cut else []),
        *([left] if scores.not_asked else []),
    ]


def _skill_cells(scores: FolderScores) -> list[tuple[str, ...]]:
    return [
        (
            name,
            f"{skill.passed.passed} of {skill.passed.count}",
            values.fraction(skill.passed.fraction),
            _interval(skill.passed),
            values.fraction(skill.chance),
            _trivial(skill),
            _must_be(skill),
            _word(skill.passes),
        )
        for name, skill in scores.skills.items()
    ]


def _interval(found: Rate) -> str:
    return f"{values.fraction(found.low)} to {values.fraction(found.high)}"


def _trivial(skill: FolderSkill) -> str:
    best = skill.trivial
    if best is None:
        return values.NOT_MEASURED
    return f"{values.fraction(best.all.fraction)}, {best.answerer}"


def _trivial_lines(scores: FolderScores) -> list[str]:
    """The lines that are the best trivial answer of a skill, which the table has no room for."""
    best = [(name, skill.trivial) for name, skill in scores.skills.items()]
    return [
        f"- {name}, the same reply to every row: {cell(one_line(score.line, SHOWN_LINE))}"
        for name, score in best
        if score is not None and score.line
    ]


def _must_be(skill: FolderSkill) -> str:
    """The bound on the skill's pass rate; scores.md and the lines below the table have the rest."""
    return skill.rules[0].bound if skill.rules else "not judged"


def _word(holds: bool | None) -> str:
    return values.NOT_MEASURED if holds is None else "passes" if holds else "falls short"


def _levels(scores: FolderScores) -> list[tuple[str, str, Rate]]:
    return [
        (name, level, found)
        for name, skill in scores.skills.items()
        for level, found in skill.levels.items()
    ]


def _all_rules(scores: FolderScores) -> list[RuleResult]:
    return [*(rule for skill in scores.skills.values() for rule in skill.rules), *scores.rules]


def _rule_cells(rule: RuleResult) -> tuple[str, ...]:
    word = _word(rule.holds) if rule.blocks or rule.holds is not False else "falls short (advice)"
    return rule.rule, rule.reading, values.number(rule.measured), rule.bound, word


def _other_rates(scores: FolderScores) -> list[tuple[str, str]]:
    found = [(OTHER_RATES[name], values.rate(each)) for name, each in rates_of(scores).items()]
    found += [(f"own rows, {cell(name)}", values.rate(own.all)) for name, own in scores.own.items()]
    found += [
        (
            f"benchmark {name} ({score.read_by}), chance {values.fraction(score.chance)}",
            values.rate(score.all),
        )
        for name, score in scores.external.items()
    ]
    return found


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [titles, ["---"] * len(titles), *([cell(each) for each in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _reply_lines(rows: Mapping[str, EvalRow], asked: Sequence[EvaluatedRow]) -> list[str]:
    judged = [judge(rows[item.id], item) for item in asked if item.set == "eval"]
    lines: list[str] = []
    for skill in dict.fromkeys(item.asked.skill for item in judged):
        lines += ["", f"## Replies: {cell(skill)}", ""]
        for passed in (True, False):
            mine = [each for each in judged if each.asked.skill == skill and each.passed == passed]
            for each in mine[:SHOWN_REPLIES]:
                lines += _reply(each)
    return lines


def _reply(judged: Judged) -> list[str]:
    item = judged.asked
    texts = (("asked", item.prompt), ("expected", item.expected), ("said", item.reply))
    lines = [f"- **{cell(item.id)}** ({judged.reason})"]
    return lines + [f"  - {name}: {cell(repr(text))}" for name, text in texts]
