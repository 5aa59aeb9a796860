"""The rows and exercises that given requests make, as digests: no refactoring may change a byte.

Published runs state the digests of their rows. Another byte in a row makes another run.
"""

from __future__ import annotations

import random

import pytest

from picochat.core.records import canonical_json, digest_bytes
from picochat.skills import exercises
from picochat.skills.mixture import make_rows
from picochat.skills.skill import AnswerStyle, Profile
from picochat.skills.task_rows import EvalRow, SftRow, row_json

IF_MEANT = (
    "If this is meant (a data file, a wording or a skill changed): write the new digests here, say"
    " in the change why, and raise the versions of the stages that the change reaches in"
    " src/picochat/run/graph.py (exercises). If not, the change broke what is promised."
)

# profile, SFT rows, eval rows, answer style, seed, digest of the SFT rows, digest of the eval rows
GOLDEN: tuple[tuple[Profile, int, int, AnswerStyle, int, str, str], ...] = (
    (  # the runbook's
        "release_skills",
        2800,
        700,
        "scratchpad",
        42,
        "d23a6f1e53e5c7b3c3761a3ca5bde029eed6b115d5b18babc2e994609e2b3a76",
        "28a82f645346ee8196dbad4d4ad73db4dae97ba4470a99f4397c7f113efbcd08",
    ),
    (  # the demo's
        "release_skills",
        2800,
        360,
        "scratchpad",
        42,
        "d23a6f1e53e5c7b3c3761a3ca5bde029eed6b115d5b18babc2e994609e2b3a76",
        "04808a417fe334948c3b10649c569c4f1abb30f70d17427c3e9ed58f7edebc5a",
    ),
    (
        "release_behavior",
        320,
        90,
        "direct",
        11,
        "b5237c654dd09dcfb12cb5d76ab764a708073ad0efd7fed295ad868cd043da14",
        "7f19cefe556309a132a5ec1a7ba8782716043fb48dda52cbfba8b6109d94ca78",
    ),
    (
        "behavior",
        500,
        300,
        "scratchpad",
        3,
        "fef41c02d79089447ccfcee98dc3df5fe1cec5301e2f254f0f4287f141f482b8",
        "9d6f941f4c08c197d3392cda0b185469115cf03de5fe1add7ce705d4c8b5b078",
    ),
    (
        "weak_skills",
        901,
        301,
        "scratchpad",
        5,
        "a03d8979c7f9b1f0a4a75acdd83396b2ffecbab04fc9d4f2015213f617cc9662",
        "d2ac2c6620e266906b3dc737fe9f61afba808f9bb1b4c33aa3c8f6419209e5e4",
    ),
    (
        "full",
        700,
        300,
        "direct",
        7,
        "ed990a11a33b59e45f50d0a7afe8b1706a681856fff3d76f0fcccc91496a3a1b",
        "4362ffe7f28ca23d87eeac8c5d3cb5b66df886c6dece67dc7e3ff51ff7fa7859",
    ),
)
SAMPLE_PAGE = "3dab78c43514552584207ea4b02e2359cd0dc195e30926ea666d4ef2039dda1b"
DOCUMENTS = "a92abdfc6b6f30de637f8bfcb4c6973c30211c05ad9ddd00c8dbe8a7a793b226"


def digest_of(rows: list[SftRow] | list[EvalRow]) -> str:
    return digest_bytes(b"".join(canonical_json(row_json(row)) + b"\n" for row in rows))


@pytest.mark.parametrize(
    ("profile", "sft_rows", "eval_rows", "style", "seed", "sft_digest", "eval_digest"), GOLDEN
)
def test_a_request_makes_the_rows_that_it_always_made(
    profile: Profile,
    sft_rows: int,
    eval_rows: int,
    style: AnswerStyle,
    seed: int,
    sft_digest: str,
    eval_digest: str,
) -> None:
    sft, evals = make_rows(profile, sft_rows, eval_rows, style, seed)
    assert (digest_of(sft), digest_of(evals)) == (sft_digest, eval_digest), IF_MEANT


def test_the_exercises_are_those_that_were_always_made() -> None:
    text = "The gardener waters old gardens while lazy dogs sleep under green trees."
    words = exercises.words_of_texts([text])
    assert digest_bytes(exercises.sample_page(words, 42).encode()) == SAMPLE_PAGE, IF_MEANT
    rng = random.Random("exercises")
    material = exercises.Material(words, exercises.whole_questions(42))
    written = "\0".join(exercises.write_document(rng, material) for _ in range(300))
    assert digest_bytes(written.encode()) == DOCUMENTS, IF_MEANT
