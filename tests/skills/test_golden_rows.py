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
        "79dccc1f791c1b8bb5749cb31faea54293ed2739ca32dd88ca546131cdca4edd",
        "12d1c056d2da6b437834c15802f6e2d8fddcd8d944be09daddc5a8ac1bd02df2",
    ),
    (  # the demo's
        "release_skills",
        2800,
        360,
        "scratchpad",
        42,
        "79dccc1f791c1b8bb5749cb31faea54293ed2739ca32dd88ca546131cdca4edd",
        "d6d5488cd09edf3d392abdd716876cb6488950d22866587bf93ab39315494d63",
    ),
    (
        "release_behavior",
        320,
        90,
        "direct",
        11,
        "244be6852db0ce897eb66be89584471641ea09499cd02486ef29d27612d21e70",
        "f186b21ee9d8d62ba200430e1d00f008d16f3d626dd0a0bb6cd3f770f3b1e52d",
    ),
    (
        "behavior",
        500,
        300,
        "scratchpad",
        3,
        "35e227af56602c48de2a3630c0eafa5be97f9b4955cf9628195f3e6d7f889971",
        "1d81612e92de4f33c84e52d28ca77b93d16e253903e88796bbb68ef9ba5acc67",
    ),
    (
        "weak_skills",
        901,
        301,
        "scratchpad",
        5,
        "c44650b5f88e2ce25341e1781d0e81c08f672e466dc64cc0650bc98051a96ae2",
        "6e2fd95ca33e5506b7f4a8e63900d3a6169794f2f042c75ecff901d1c328f17e",
    ),
    (
        "full",
        700,
        300,
        "direct",
        7,
        "24f2706a22e03c6e2d141e1808b0a1087aa492fa0a83cc1e24a42175359f197f",
        "50e2e03ea00e5af9b2282ac18d456b725f3e1e495ae2711fa248cab7e44eb627",
    ),
)
SAMPLE_PAGE = "b89d81b03fb86f35d9b9fa8a71b57bdc4245d648f586585d9e852fc38eb4613d"
DOCUMENTS = "916ff2882dad9a1c5a2ce4c2c9141f7c5738d03303b2ecdbd322b54d09a51a41"


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
