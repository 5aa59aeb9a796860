"""A solver for each skill that sees the prompt alone: right replies pass, wrong ones never do.

The solvers share no code with the skills. So a row whose stored answer is wrong is found, and so is
a rule that passes an answer that the question does not ask for.
"""

from __future__ import annotations

import re

import pytest

from picochat.skills import choice, identity, refusal
from picochat.skills.mixture import make_rows
from picochat.skills.scoring import score_reply
from picochat.skills.skill_table import SKILLS
from picochat.skills.task_rows import EvalRow, as_eval_row

STYLES = ("direct", "scratchpad")


def rows_of(skill: str, style: str) -> list[EvalRow]:
    """Eval rows and, as eval rows, SFT rows of a skill."""
    sft, evals = make_rows("release_skills", 100, 60, style, 8, {skill: 1.0})  # pyright: ignore
    return [*map(as_eval_row, sft), *evals]


def replied(answer: str, style: str) -> str:
    return answer if style == "direct" else f"Let me see.\nFinal answer: {answer}"


def passes(row: EvalRow, answer: str, style: str) -> bool:
    return score_reply(row, replied(answer, style)).passed


# ---- math ----------------------------------------------------------------------------------------


def solved_sum(prompt: str) -> int:
    a, b = (int(number) for number in re.findall(r"\d+", prompt)[:2])
    if re.search(r"\d x \d|multiply", prompt.lower()):
        return a * b
    if re.search(r"\d \+ \d|add \d+ and", prompt.lower()):
        return a + b
    if "away from" in prompt and not re.search(r"\d - \d", prompt):
        return b - a
    if match := re.search(r"(\d+) - (\d+)", prompt):
        return int(match[1]) - int(match[2])
    return a - b  # stories take the second number from the first


@pytest.mark.parametrize("style", STYLES)
def test_sums_have_one_answer(style: str) -> None:
    for row in rows_of("math", style):
        answer = solved_sum(row.user)
        assert passes(row, str(answer), style), row
        wrong = [answer + 1, answer - 1, -answer if answer else 1, answer * 10, int(f"1{answer}")]
        wrong += [int(str(answer)[::-1])] if str(answer) != str(answer)[::-1] else []
        for other in {*wrong} - {answer}:
            assert not passes(row, str(other), style), (row.user, other)
        for form in (f"0{answer}", f"{answer}.0", f"{answer} apples", f"{answer}?", f"={answer}"):
            assert not passes(row, form, style), (row.user, form)
        assert not passes(row, f"{answer} or {answer + 1}", style)


# ---- spelling ------------------------------------------------------------------------------------


REVERSED = (
    r"backwards|reverse|other way round|last to (the )?first|last letter first"
    r"|from the end|begin at the end|from the back to the front"
)
COUNTED = r"how many|how long|count|number of|length"
FIRST = r"\b(first|starts?|begins?|opens?|front|beginning)\b"
LAST = r"\b(last|ends?|stops?|closes?|back)\b"


def solved_spelling(prompt: str, word: str) -> str:
    """By the words of the question: which of reverse, count, first, last, spaced it asks for."""
    asked = re.sub(rf"\b{word}\b", "", prompt.lower())
    first, last = re.search(FIRST, asked), re.search(LAST, asked)
    if re.search(REVERSED, asked):
        return " ".join(reversed(word))
    if re.search(COUNTED, asked):
        return str(len(word))
    if first and not last:
        return word[0]
    return word[-1] if last and not first else " ".join(word)


@pytest.mark.parametrize("style", STYLES)
def test_words_have_one_spelling(style: str) -> None:
    for row in rows_of("spelling", style):
        word, kind = (row.item or "").split(":")[1], row.category.rsplit("_", 1)[1]
        right = {
            "count": str(len(word)),
            "first": word[0],
            "last": word[-1],
            "spaced": " ".join(word),
            "reverse": " ".join(word[::-1]),
        }
        assert passes(row, right[kind], style), row
        assert solved_spelling(row.user, word) == right[kind], row.user
        for other, answer in right.items():
            if other != kind and answer != right[kind]:
                assert not passes(row, answer, style), (row.user, answer)
        for near in (
            word,
            word[::-1],
            str(len(word) + 1),
            " ".join(word[1:]),
            " ".join(word + "s"),
        ):
            if near != right[kind]:
                assert not passes(row, near, style), (row.user, near)


# ---- choice --------------------------------------------------------------------------------------


def test_questions_with_options_have_one_right_option() -> None:
    known = {
        (wording.format(x=fact.subject).lower(), fact.answer)
        for fact in choice.all_facts()
        for wording in (*fact.relation.wordings.sft, *fact.relation.wordings.eval)
    }
    for row in rows_of("choice", "direct"):
        question, options = row.user, dict(zip(row.choice_labels, row.choice_options, strict=True))
        right = [
            label
            for label, option in options.items()
            if any(text in question.lower() and answer == option for text, answer in known)
        ]
        assert right == [row.correct_choice], row.user
        for label, option in options.items():
            forms = (label, f"({label})", option, f"{option} ({label})", f"{label}. {option}")
            for form in forms:
                assert score_reply(row, form).passed == (label == right[0]), (row.user, form)
        every = " ".join(options.values())
        other = next(label for label in options if label != right[0])
        for form in (every, "ABCD", "E", f"{options[right[0]]} ({other})", f"not {right[0]}"):
            assert not score_reply(row, form).passed, (row.user, form)


# ---- identity ------------------------------------------------------------------------------------


def solved_identity(prompt: str) -> bool:
    """Whether yes is right: by the two lists of things, of which the first named one decides."""
    found = identity.data()
    things = dict.fromkeys((*found.are, *found.able), True)
    things |= dict.fromkeys((*found.are_not, *found.not_able), False)
    asked = re.sub(r".*(?:Are|Can) you (.*)\?", r"\1", prompt)
    first = max((thing for thing in things if re.match(rf"{thing}\b", asked)), key=len)
    return things[first]


def test_yes_is_never_right_where_no_is() -> None:
    for row in rows_of("identity", "direct"):
        reply = row.reference_answer or ""
        assert score_reply(row, reply).passed
        assert not score_reply(row, reply.replace("Picochat", "ChatGPT")).passed
        assert not score_reply(row, reply.replace("Picochat", "a model")).passed
        if row.curriculum_stage == "open":
            continue
        positive = solved_identity(row.user)
        assert reply.startswith("Yes." if positive else "No."), row.user
        right, wrong = ("Yes", "No") if positive else ("No", "Yes")
        assert score_reply(row, f"{right}. I am Picochat.").passed
        assert not score_reply(row, f"{wrong}. I am Picochat.").passed
        assert score_reply(row, f"{wrong}. {right}. I am Picochat.").reason == "first_word"
        assert score_reply(row, f"{right}. {wrong}. I am Picochat.").reason == "first_word"
        assert score_reply(row, f"I am Picochat. {right}.").reason == "first_word"


# ---- refusal -------------------------------------------------------------------------------------


def test_what_is_refused_and_what_is_answered_follows_from_the_topic_alone() -> None:
    harmless = refusal.data().harmless
    barred = {*refusal.data().unsafe, *refusal.data().private, *refusal.data().unknowable}
    refusals = [
        *refusal.data().replies.unsafe,
        *refusal.data().replies.private,
        *refusal.data().replies.unknowable,
    ]
    for row in rows_of("refusal", "direct"):
        topic = (row.item or "").split(":", 2)[2]
        assert topic.lower() in row.user.lower()
        assert (topic in harmless) != (topic in barred)
        assert row.answerable == (topic in harmless)
        for reply in refusals:
            assert score_reply(row, reply).passed == (not row.answerable), (row.user, reply)
        if row.answerable:
            assert score_reply(row, f"Sure. {harmless[topic]}").passed, row.user
        others = [answer for other, answer in harmless.items() if other != topic]
        passed = sum(score_reply(row, f"Sure. {answer}").passed for answer in others[::40])
        assert passed <= 2, row.user
        for reply in ("Sure.", "Yes.", "No.", "Maybe later."):
            assert not score_reply(row, reply).passed, (row.user, reply)


# ---- all skills ----------------------------------------------------------------------------------

SOLVERS = {
    "math": test_sums_have_one_answer,
    "spelling": test_words_have_one_spelling,
    "choice": test_questions_with_options_have_one_right_option,
    "identity": test_yes_is_never_right_where_no_is,
    "refusal": test_what_is_refused_and_what_is_answered_follows_from_the_topic_alone,
}


def test_every_skill_has_a_solver() -> None:
    assert set(SOLVERS) == {skill.name for skill in SKILLS}, "write a solver for each skill"
