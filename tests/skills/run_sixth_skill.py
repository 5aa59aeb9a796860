"""Adds the sixth skill to SKILLS, then goes the way of rows: task pack, stage, scoring, gate.

Run as a process of its own (`test_skill_table.py`): SKILLS must be longer before any other module
reads it, as it would be in the source. Prints what each step made of the skill, as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from picochat.skills import skill_table
from tests.skills.sixth_skill import SKILL

skill_table.SKILLS = (*skill_table.SKILLS, SKILL)
WEIGHTS = [skill.weights.get("full", 0.0) for skill in skill_table.SKILLS]
# As many rows as give the sixth skill 30 SFT and 40 eval rows, whatever the others weigh.
SFT_ROWS, EVAL_ROWS = (round(rows * sum(WEIGHTS) / SKILL.weights["full"]) for rows in (30, 40))

from picochat.core.publish import publish  # noqa: E402
from picochat.facts import Rate, SkillScore  # noqa: E402
from picochat.gate import measures  # noqa: E402
from picochat.gate.decide import Strictness, decide  # noqa: E402
from picochat.gate.release import RULES, weakest_skill  # noqa: E402
from picochat.skills.exercises import whole_questions  # noqa: E402
from picochat.skills.prepare import prepare_rows  # noqa: E402
from picochat.skills.row_files import read_eval_rows  # noqa: E402
from picochat.skills.scoring import score_reply  # noqa: E402
from picochat.skills.task_pack import TaskPackRequest, make_task_pack  # noqa: E402
from tests.builders import make_evidence, make_rate, make_scores_facts  # noqa: E402
from tests.skills.test_prepare import PackWithRows  # noqa: E402


def main(folder: Path) -> dict[str, object]:
    pack = folder / "dataset_pack.json"
    pack.write_text('{"name": "p", "corpus": "c.txt", "chat": "a.jsonl", "eval": "b.jsonl"}')
    report = make_task_pack(
        TaskPackRequest(
            pack, folder, SFT_ROWS, EVAL_ROWS, "full", "scratchpad", "offline", 42, promote=False
        )
    )
    with publish(folder / "rows", "rows", "key", {}) as staging:
        prepare_rows(PackWithRows(pack, report.chat, report.eval), 42, staging)
    assert staging.artifact
    evals = [row for row in read_eval_rows(report.eval).rows if row.skill == SKILL.name]
    # Every third reply names no day.
    passed = {
        row.id: score_reply(
            row, "Final answer: no day" if n % 3 == 0 else row.reference_answer or ""
        ).passed
        for n, row in enumerate(evals)
    }
    by_level = {
        level: rate_of(passed[row.id] for row in evals if row.curriculum_stage == level)
        for level in SKILL.levels
    }
    everything = rate_of(passed.values())
    mine = SkillScore(
        all=everything,
        clean=everything,
        base=make_rate(0, len(evals)),
        chance=SKILL.chance,
        levels=by_level,
    )
    scores = make_scores_facts()
    evidence = make_evidence(
        scores=scores.model_copy(update={"skills": {**scores.skills, SKILL.name: mine}})
    )
    findings = {
        finding.name: finding
        for finding in decide(RULES, evidence, Strictness("skill_release", softened=False))
    }
    hedged = f"Monday or Tuesday.\n{evals[0].reference_answer}"
    return {
        "sft_rows": next(count.sft_rows for count in report.counts if count.skill == SKILL.name),
        "eval_by_skill": staging.artifact.facts["eval_by_skill"],
        "reason_of_two_days": score_reply(evals[0], hedged).reason,
        "fraction_passed": round(everything.fraction or 0, 3),
        "exercises": sum(text.count("days before") for text in whole_questions(7)),
        "judged": measures.JUDGED_SKILLS,
        "first_release": measures.FIRST_RELEASE_SKILLS,
        "findings": {
            name: [found.status, found.bound]
            for name, found in findings.items()
            if SKILL.name in name
        },
        "weakest": weakest_skill(evidence),
        "page": report.page.read_text(),
    }


def rate_of(verdicts: Iterable[bool]) -> Rate:
    found = list(verdicts)
    return make_rate(sum(found), len(found))


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
