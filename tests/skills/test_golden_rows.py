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
        "b54cc365bb875f502173fb2fe265293571bb213b3572a92a45b7eff2e4e54253",
        "2ad159ab6305405dc5fd302b9c5d8ca45f9a6396f9a8a3f732f395e696d7f1f5",
    ),
    (  # the demo's
        "release_skills",
        2800,
        360,
        "scratchpad",
        42,
        "b54cc365bb875f502173fb2fe265293571bb213b3572a92a45b7eff2e4e54253",
        "1755e84680af62b33b41c848dcc90166ed9e8a8a258882e9739350a052e041f2",
    ),
    (
        "release_behavior",
        320,
        90,
        "direct",
        11,
        "a7c285d0119eacab0b5d9fc4f5072cdd654ab2ec4888a080148ba2593b6cf109",
        "694bf2c169cb5c0b271dc03fcc41d5bc1ce7b86cec00e16745352c2b7ef6f270",
    ),
    (
        "behavior",
        500,
        300,
        "scratchpad",
        3,
        "5db3e4cd295e38480bb9adafe63c5b9c0647c228991e62eb8f4ca64e136ca903",
        "c1a1a99cf1a3d47a15398393dbdb517ff69111ef48aff04ab1ff1aeff99922d1",
    ),
    (
        "weak_skills",
        901,
        301,
        "scratchpad",
        5,
        "9ff8f5b59bd9e737246b6cc2d1407c0bcc934371b0152e2b6d40a0544c757a61",
        "ae14075e807ae181630070cdd3d833adfdad8d74a0241a69dd09c0d0514a5ae3",
    ),
    (
        "full",
        700,
        300,
        "direct",
        7,
        "d610daf2070f6dcecfd77a17be052ac00b851f144ddd0fe6543807f7c7573cbb",
        "1277aea05697bf6f27b999a0c0b461b45e683e58e24bc28b8464640dc324656f",
    ),
)
SAMPLE_PAGE = "4b80e39e552e746d2e421b759028702731a431dfc910ebdc4bc3114751f8c95a"
DOCUMENTS = "80f3ecfa0ccf6f2b0fa4da979021fbe5791ac292f580a6d6dcc49fba8a657e1b"


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
