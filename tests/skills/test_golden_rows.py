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
        "b12e783853b2cb36bfc981cc66427415784a0297f73e97178fa92e991a10053a",
        "c72ad4198fa42a7ee6531127074245fa8ab241c4c460fd7cfea356dcac0983f2",
    ),
    (  # the demo's
        "release_skills",
        2800,
        360,
        "scratchpad",
        42,
        "b12e783853b2cb36bfc981cc66427415784a0297f73e97178fa92e991a10053a",
        "ea8993845621536b9a96029756544d865f498fbe37dc32b612b8bbb0a1111a42",
    ),
    (
        "release_behavior",
        320,
        90,
        "direct",
        11,
        "e2746a3b31a995e788f3f9e35c2210d7443d1b00129885b6b8675b93eaf137a5",
        "7250b1aa51f1a6d87e98fea3f43e17810823f008e2936eb45e408f5b7266425f",
    ),
    (
        "behavior",
        500,
        300,
        "scratchpad",
        3,
        "27a8a3230ceedff849d2e28e68e7bc4687012c86eb6da840ae0e32092d636419",
        "ad93c30781a828e95d1a9bddbb538077281336f1296e73bb33f2374c47429650",
    ),
    (
        "weak_skills",
        901,
        301,
        "scratchpad",
        5,
        "2a3126b5387fddbdcf854fcea889e3d54231b6d8aa11aba611dfbfc30e8658ba",
        "a1ee8beca567ba3100f6fd0488edfdf49ece0df5d67ce44ce838715fff044fec",
    ),
    (
        "full",
        700,
        300,
        "direct",
        7,
        "03c1fb3383626dde5076433b5ce4ebdb418951d87575b3f64210002b16fe3652",
        "43663cfef27fb5c54bb4549461564aa318859284383893188fd4117b002942da",
    ),
)
SAMPLE_PAGE = "31ac9d996f577b44732b97fb9788c63e448a79534088c4b9b7b29882d5694791"
DOCUMENTS = "e60e6cdc72ad541d8bfca1625abb1a9fa711d5bb4cf7f9bace001e4cac81ad2e"


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
