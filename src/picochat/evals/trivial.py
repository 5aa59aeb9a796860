"""The stage `trivial`: what answerers that understand nothing get right of a pack's eval rows.

An eval that a constant line or a count of words passes shows nothing about a model. So each skill's
rows are answered by the answerers of `trivial_lines.py` and `trivial_options.py`, which know the
SFT rows and the rules, and scored by the skill's own rules. What needs the corpus is counted in a
bounded sample and kept in measured.json; the rest follows from the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from picochat.config import RunConfig
from picochat.core.errors import BadInput
from picochat.core.publish import Artifact, StagingFolder
from picochat.core.records import Record, read_record, to_jsonable, write_json
from picochat.data.corpus.reader import sample_train
from picochat.evals.intervals import rate
from picochat.evals.trivial_lines import trivial_replies
from picochat.evals.trivial_options import (
    OptionCounts,
    count_options,
    has_options,
    subject_words,
    trivial_choices,
)
from picochat.facts import CorpusFacts, Rate, TrivialFacts, TrivialScore, facts_of
from picochat.skills.scoring import score_choice, score_reply
from picochat.skills.skill_table import SKILLS
from picochat.skills.task_rows import EvalRow, SftRow, read_published_rows

MEASURED = "measured.json"
SAMPLE_BYTES = 8_000_000
LONGEST_TEXT = 200_000  # characters; the rest of a longer document is not counted


class TrivialMeasured(Record):
    """measured.json: what a sample of the corpus holds of the options, by row id."""

    documents: int
    text_bytes: int
    options: dict[str, OptionCounts]


def measure_trivial(corpus: Artifact, rows: Artifact, seed: int, staging: StagingFolder) -> None:
    """Write measured.json, and state the scores. The corpus is read only if rows have options."""
    sft, evals = _read_rows(rows)
    measured = TrivialMeasured(documents=0, text_bytes=0, options={})
    if any(has_options(row) for row in evals):
        text_bytes = facts_of(corpus, CorpusFacts).train_text_bytes
        fraction = min(1.0, SAMPLE_BYTES / max(1, text_bytes))
        texts = (document.text for document in sample_train(corpus, fraction, seed))
        measured = count_in(texts, sft, evals)
    write_json(staging.path(MEASURED), measured)
    staging.facts = to_jsonable(trivial_facts(sft, evals, measured))


def facts_from(files: Path, inputs: Mapping[str, Artifact], config: RunConfig) -> TrivialFacts:
    """The facts of the artifact from its files and the rows. The settings are not used.

    Raises BadInput if other options were counted than the rows have.
    """
    del config
    measured = read_record(TrivialMeasured, files / MEASURED, "counts of the options")
    sft, evals = _read_rows(inputs["rows"])
    asked = {row.id: len(row.choice_options) for row in evals if has_options(row)}
    for counts in ("alone", "near"):
        counted = {id: len(getattr(found, counts)) for id, found in measured.options.items()}
        if counted != asked:
            raise BadInput(f"{MEASURED}: counts other options than the eval rows have")
    return trivial_facts(sft, evals, measured)


def _read_rows(rows: Artifact) -> tuple[list[SftRow], list[EvalRow]]:
    sft = [
        row
        for name in ("sft_train", "sft_held_out")
        for row in read_published_rows(rows.path(f"{name}.jsonl"), SftRow)
    ]
    return sft, list(read_published_rows(rows.path("eval.jsonl"), EvalRow))


def count_in(
    texts: Iterable[str], sft: Sequence[SftRow], evals: Sequence[EvalRow]
) -> TrivialMeasured:
    """Count the options of the eval rows in texts, of which SAMPLE_BYTES or so are read."""
    rows = [row for row in evals if has_options(row)]
    subjects: dict[str, list[str]] = {}
    for skill in sorted({row.skill for row in rows}):
        mine = [row for row in rows if row.skill == skill]
        subjects |= subject_words(mine, [row for row in sft if row.skill == skill])
    sizes: list[int] = []

    def bounded() -> Iterator[str]:
        for text in texts:
            if sum(sizes) > 2 * SAMPLE_BYTES:  # a few long documents were drawn
                return
            sizes.append(len(text[:LONGEST_TEXT].encode(errors="replace")))
            yield text[:LONGEST_TEXT]

    options = count_options(rows, subjects, bounded())
    return TrivialMeasured(documents=len(sizes), text_bytes=sum(sizes), options=options)


def trivial_facts(
    sft: Sequence[SftRow], evals: Sequence[EvalRow], measured: TrivialMeasured
) -> TrivialFacts:
    """The scores of every answerer on the eval rows of each skill, best first."""
    skills: dict[str, list[TrivialScore]] = {}
    for skill in SKILLS:
        mine = [row for row in evals if row.skill == skill.name]
        known = [row for row in sft if row.skill == skill.name]
        if mine:
            scores = _undominated(_scores(known, mine, measured.options))
            skills[skill.name] = sorted(scores, key=lambda score: -score.all.passed)
    return TrivialFacts(skills=skills, text_bytes=measured.text_bytes, documents=measured.documents)


def _undominated(scores: Sequence[TrivialScore]) -> list[TrivialScore]:
    """The scores without constant lines that another one equals or beats on every part."""
    kept: dict[tuple[int, ...] | str, TrivialScore] = {}
    for score in scores:
        parts = (score.all, score.unanswerable, score.answerable, *score.levels.values())
        passed = tuple(part.passed for part in parts)
        if score.line is None:
            kept[score.answerer] = score
        elif not any(isinstance(key, tuple) and _reaches(key, passed) for key in kept):
            kept = {
                key: each
                for key, each in kept.items()
                if isinstance(key, str) or not _reaches(passed, key)
            }
            kept[passed] = score
    return list(kept.values())


def _reaches(passed: Sequence[int], other: Sequence[int]) -> bool:
    return all(mine >= theirs for mine, theirs in zip(passed, other, strict=True))


def _scores(
    sft: Sequence[SftRow], evals: Sequence[EvalRow], counts: Mapping[str, OptionCounts]
) -> list[TrivialScore]:
    texts = [row for row in evals if not has_options(row)]
    with_options = [row for row in evals if has_options(row)]
    choices: dict[str, list[bool]] = {
        name: [_chosen(row, option) for row, option in zip(with_options, chosen, strict=True)]
        for name, chosen in trivial_choices(sft, with_options, counts).items()
    }
    if not texts:
        return [_score(name, None, evals, passed) for name, passed in choices.items()]
    # A skill with rows of both kinds: each answerer of texts chooses as the best of the others.
    best = max(choices, key=lambda name: sum(choices[name])) if with_options else None
    scores: list[TrivialScore] = []
    for found in trivial_replies(sft, texts):
        replied = zip(texts, found.replies, strict=True)
        passed = [score_reply(row, reply).passed for row, reply in replied]
        name = found.answerer if not best else f"{found.answerer}, options by {best}"
        scores.append(
            _score(
                name, found.line, [*texts, *with_options], passed + (choices[best] if best else [])
            )
        )
    return scores


def _chosen(row: EvalRow, option: int) -> bool:
    likelihoods = [float(number == option) for number in range(len(row.choice_options))]
    correct = row.choice_labels.index(row.correct_choice or "")
    return score_choice(correct, likelihoods).passed


def _score(
    answerer: str, line: str | None, rows: Sequence[EvalRow], passed: Sequence[bool]
) -> TrivialScore:
    pairs = list(zip(rows, passed, strict=True))
    levels = sorted({row.curriculum_stage for row in rows if row.curriculum_stage})
    return TrivialScore(
        answerer=answerer,
        line=line,
        all=_rate(ok for _, ok in pairs),
        levels={
            level: _rate(ok for row, ok in pairs if row.curriculum_stage == level)
            for level in levels
        },
        unanswerable=_rate(ok for row, ok in pairs if not row.answerable),
        answerable=_rate(ok for row, ok in pairs if row.answerable),
    )


def _rate(passed: Iterable[bool]) -> Rate:
    verdicts = list(passed)
    return rate(sum(verdicts), len(verdicts))
