from pathlib import Path

from picochat.core.publish import publish
from picochat.core.records import write_json
from picochat.release.integrity import (
    artifacts_of,
    chain_problems,
    digest_tree,
    evidence_digest,
    front_page_problems,
)
from picochat.run.graph import ARTIFACTS, FRONT_PAGES
from tests.builders import make_config
from tests.run_builder import make_run


def test_a_whole_run_has_every_artifact_in_one_chain(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    artifacts, problems = artifacts_of(run)
    assert set(artifacts) == {spec.kind for spec in ARTIFACTS}
    assert problems == []
    assert chain_problems(artifacts) == []
    assert front_page_problems(digest_tree(run.root)) == []
    assert {page.name for page in FRONT_PAGES} < set(digest_tree(run.root))


def test_leftovers_of_a_run_are_no_evidence(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    before = digest_tree(run.root)
    for name in (
        "base/checkpoint.work/state.bin",
        "eval.superseded-1/replies.jsonl",
        ".lock",
        "notes.txt",
    ):
        (run.root / name).parent.mkdir(parents=True, exist_ok=True)
        (run.root / name).write_text("x")
    assert digest_tree(run.root) == before


def test_a_manifest_that_cannot_be_read_is_a_problem_and_not_a_crash(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", until="rows")
    write_json(run.place("rows") / "manifest.json", {"kind": "rows"})
    artifacts, problems = artifacts_of(run)
    assert set(artifacts) == {"corpus"}
    assert "is not usable" in problems[0].what


def test_scores_of_another_checkpoint_break_the_chain(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    artifacts, _ = artifacts_of(run)
    with publish(run.place("sft"), "sft", "key", artifacts["sft"].manifest.inputs) as staging:
        staging.facts = artifacts["sft"].facts
    found = [problem.what for problem in chain_problems(artifacts_of(run)[0])]
    assert "scores: are of another checkpoint than the one that ships" in found


def test_the_evidence_digest_knows_the_configuration(tmp_path: Path) -> None:
    first, second = (
        make_run(tmp_path / "a", until="corpus"),
        make_run(tmp_path / "b", until="corpus", config=make_config("tiny")),
    )
    digests = {evidence_digest(run, artifacts_of(run)[0]) for run in (first, second)}
    assert len(digests) == 2


def test_the_evidence_digest_leaves_out_what_changes_no_result(tmp_path: Path) -> None:
    host = {"workers": 3, "checkpoint_minutes": 1.0, "track": ("tensorboard",)}
    first, second = (
        make_run(tmp_path / "a", until="corpus", config=make_config()),
        make_run(tmp_path / "b", until="corpus", config=make_config(host=host)),
    )
    assert len({evidence_digest(run, artifacts_of(run)[0]) for run in (first, second)}) == 1
