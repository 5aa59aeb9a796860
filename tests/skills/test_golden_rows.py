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
        "139d9abd035226bdb94d4572e1aa545bd301c5c2bfed896f0e71512c05001d25",
        "207ef54ff1f68686f5495b2f7af481981d65ec1c05ff6c20f45b6395c74bc69a",
    ),
    (  # the demo's
        "release_skills",
        2800,
        360,
        "scratchpad",
        42,
        "139d9abd035226bdb94d4572e1aa545bd301c5c2bfed896f0e71512c05001d25",
        "7a08a4cc920d044dacc5d8f678585dfceb33ba4c5b149586467e3ad7dadd271b",
    ),
    (
        "release_behavior",
        320,
        90,
        "direct",
        11,
        "26f7bd7ad240cfac0f0813286f9557514dba5c5fb0175dba9393d5c86380655c",
        "0ca6c510c11682dfa4891c6bb59689ee7fe59591d2d664f58d0cdd39dd31cc97",
    ),
    (
        "behavior",
        500,
        300,
        "scratchpad",
        3,
        "e17d8ff09b4c4f8cb94332f43353b32932d2f672f02ea2195301c4d32e4316d5",
        "41ec65522af7218fb74234f5a17018a34b120c5dc85aba9d5cb7daa8489313b2",
    ),
    (
        "weak_skills",
        901,
        301,
        "scratchpad",
        5,
        "b4081da3fa47619ee6f6391f52ae0b05e9e99918d57455f153091d8d8d1c4092",
        "54d5fd573a9a2520b5cb59ddcea5b4df7927100540ace35ec984178bf0264349",
    ),
    (
        "full",
        700,
        300,
        "direct",
        7,
        "efaa6415b557ef95be5b331a76f1ed23c251958268a9ed998d83a840f6a47741",
        "66ec3a33b57ba0c056cea58be3e32218bd1fdc0803efee868df55458295aa748",
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
