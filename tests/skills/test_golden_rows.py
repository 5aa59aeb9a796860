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
        "b0bdca989368c8bef9f4a6a01f45566ef9862a2c70f80b551b842cf14fedf47b",
        "c24310deaecad6cdc45f21443bb3b129fb62d42f8695b43ab16c3476edd94258",
    ),
    (  # the demo's
        "release_skills",
        2800,
        360,
        "scratchpad",
        42,
        "b0bdca989368c8bef9f4a6a01f45566ef9862a2c70f80b551b842cf14fedf47b",
        "0858bccb70ac4e1c4b0b9cb21a46443e0ad60393a197bb4519b3800fa4b31c33",
    ),
    (
        "release_behavior",
        320,
        90,
        "direct",
        11,
        "7cd7adc81769258d0c3b955e6aece3888067d6332f62bbcd441335f3f9887829",
        "e043f7b9a653098b73fd153a608c7652cba953b63bb7e59dd935a83e4f3a9b5e",
    ),
    (
        "behavior",
        500,
        300,
        "scratchpad",
        3,
        "379ea1c137e4d775e96998c0753dd046ff963b0b9ec22c61ceb08aaa4fa61c20",
        "e05ec32c5ef2d3c3fcc9bdc29a2ce97f5d9bde2dcd5f9bd5e01e1c0c8eed6fec",
    ),
    (
        "weak_skills",
        901,
        301,
        "scratchpad",
        5,
        "8801afc9c6e2e641a933cfcaa1041bcd6ab0a535f4d1b051d67617b03a81b011",
        "fb4f2a48d7631f6f78063c49b8fcac8d6656d3949122c524b86404791db047c1",
    ),
    (
        "full",
        700,
        300,
        "direct",
        7,
        "d6f4c44d0f8224b09e7d5b704a0b726e7f2924b181d90d312bdef71fb9ead207",
        "8414c5418f8705456302f547ea2704588fbd877a0fdd270a224e822eeda997e2",
    ),
)
SAMPLE_PAGE = "8c1d831a67c24145500601067c0fb310f8e835435c90268848ca9bd97b06330a"
DOCUMENTS = "9b55aa69596647de8c4b8807481d5574556cd8b7cced37e14ed468b4e48724f7"


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
