import re
from pathlib import Path

import pytest

from picochat.core.errors import PicochatError
from picochat.core.records import read_json, read_jsonl, write_jsonl
from picochat.facts import GateFacts
from picochat.gate.render import finding_lines
from picochat.release.show import ONE_LINE, show_lines
from picochat.run.folder import RunDir
from tests.builders import make_config, make_rows_facts, make_scores_facts
from tests.run_builder import make_run


@pytest.fixture(scope="module")
def blocked(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    facts = {
        "scores": make_scores_facts(ngram_bits_per_byte=None),
        "rows": make_rows_facts(shared_items=2),
    }
    config = make_config(gate={"profile": "first_release"})
    return make_run(tmp_path_factory.mktemp("runs") / "run", config=config, facts=facts)


def test_the_screen_opens_with_the_verdict_and_what_blocks_as_the_gate_states_it(
    blocked: RunDir,
) -> None:
    gate = GateFacts.model_validate(blocked.artifact("gate").facts)
    failing = finding_lines([finding for finding in gate.findings if finding.status != "pass"])
    lines = show_lines(blocked)
    assert lines[0].startswith("release gate: blocked (profile first_release; ")
    assert (
        lines[1]
        == f"weakest skill: {read_json(blocked.place('gate') / 'gate.json')['weakest_skill']}"
    )
    assert lines[3 : 3 + len(failing)] == failing
    assert failing[0].startswith("BLOCK")


def test_skills_stand_with_interval_bound_base_model_and_chance(blocked: RunDir) -> None:
    lines = show_lines(blocked)
    head = next(number for number, line in enumerate(lines) if line.startswith("skill "))
    assert lines[head + 1].startswith("identity")
    assert ">= 0.65" in lines[head + 1]
    assert {len(line) for line in lines[head : head + 6]} == {len(lines[head])}
    assert re.search(r"\d \(\d+ of \d+; 95% \d", lines[head + 1])


def test_replies_cannot_steer_the_terminal_and_stay_on_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    place = run.place("scores") / "replies.jsonl"
    hostile = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\u202e\u2028next" + "x" * 1_000
    rows = [{**value, "reply": hostile, "prompt": hostile} for _, value in read_jsonl(place)]
    write_jsonl(place, rows)
    lines = show_lines(run)
    text = "\n".join(lines)
    assert not any(ord(character) < 32 and character != "\n" for character in text)
    assert not any(character in text for character in "\x7f\x9b\x85\u2028\u202e")
    assert "<U+001B>[2J" in text
    assert max(len(line) for line in lines if "chat" in line) < ONE_LINE + 20


def test_a_run_that_is_not_finished_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PicochatError):
        show_lines(make_run(tmp_path / "run", until="base"))
