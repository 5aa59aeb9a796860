"""A command that is refused, then the same command as the remedy says: it goes on.

A run that gets past its own options is told that the pack `none.json` does not exist.
"""

from __future__ import annotations

import gzip
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from picochat.cli.main import run_command
from picochat.config import TrainConfig, resolve
from picochat.core.errors import WrongUsage
from picochat.run.request import check_processes, check_request, parse_settings
from picochat.scales import find_scale
from picochat.train.schedule import evaluation_before
from tests.builders import change
from tests.run_builder import make_run
from tests.small_pack import make_pack

RUN = ["run", "tiny", "--out-dir", "x"]
PAST = "none.json does not exist"
STATED = 3  # the facts of `make_run` are stated and not computed: such a bundle is read and differs
USAGE: tuple[tuple[list[str], str, Callable[[str], list[str]], str], ...] = (
    # options of a run, the remedy, the options that it leads to, what is said then
    (
        ["--set", "base.stpes=3", "--pack", "none.json"],
        "choose one of these settings: picochat scales --keys",
        lambda fix: ["--set", "base.steps=3", "--pack", "none.json"],
        PAST,
    ),
    (
        ["--set", "base.steps=3", "--base-steps", "3", "--pack", "none.json"],
        "leave one of them out",
        lambda fix: ["--base-steps", "3", "--pack", "none.json"],
        PAST,
    ),
    (
        ["--set", "seed=3", "--set", "seed=4", "--pack", "none.json"],
        "leave one of them out",
        lambda fix: ["--set", "seed=3", "--pack", "none.json"],
        PAST,
    ),
    (
        ["--set", "scale=small", "--pack", "none.json"],
        "--scale small",
        lambda fix: [*shlex.split(fix), "--pack", "none.json"],
        PAST,
    ),
    (
        ["--set", "scale=two words", "--pack", "none.json"],
        "--scale 'two words'",
        lambda fix: [*shlex.split(fix), "--pack", "none.json"],
        "there is no scale 'two words'",
    ),
    (
        ["--scale", "h100-100", "--pack", "none.json"],
        "one of: ",
        lambda fix: ["--scale", fix.removeprefix("one of: ").split(", ")[1], "--pack", "none.json"],
        PAST,
    ),
    (
        ["--set", "base.muon_lr", "--pack", "none.json"],
        "--set section.key=value, such as --set base.muon_lr=0.01",
        lambda fix: [*shlex.split(fix.split("such as ")[1]), "--pack", "none.json"],
        PAST,
    ),
    (
        [],
        "--input FOLDER takes a folder of text; --dataset-pack FILE a pack",
        lambda fix: ["--dataset-pack", "none.json"],
        PAST,
    ),
    (
        ["--input", "nowhere", "--pack", "none.json"],
        "give one of them; ",
        lambda fix: ["--pack", "none.json"],
        PAST,
    ),
    (
        ["--pack", "none.json", "--license="],
        "give it a value; a shell variable there may not be set",
        lambda fix: ["--pack", "none.json"],
        PAST,
    ),
)


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that is refused says."""
    capsys.readouterr()
    assert run_command(command) in (2, 3, 4)
    return capsys.readouterr().err


def fix_of(said: str) -> str:
    found = re.search(r"fix: (.*)", said)
    assert found, said
    return found[1]


@pytest.mark.parametrize(
    ("given", "remedy", "after", "then"), USAGE, ids=[c[1][:30] for c in USAGE]
)
def test_options_that_are_mended_as_told_are_taken(
    given: list[str],
    remedy: str,
    after: Callable[[str], list[str]],
    then: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fix = fix_of(refused([*RUN, *given], capsys))
    assert fix.startswith(remedy)
    assert then in refused([*RUN, *after(fix)], capsys)


def test_the_settings_that_a_remedy_sends_to_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused([*RUN, "--set", "base.stpes=3"], capsys)
    assert run_command(shlex.split(fix_of(said).split("picochat ")[1])) == 0
    assert "base.steps" in capsys.readouterr().out


def test_rows_that_several_processes_can_share_are_named() -> None:
    scale = find_scale("tiny")
    with pytest.raises(WrongUsage) as error:
        check_processes(scale, scale.config, 3)
    assert error.value.fix
    options = shlex.split(error.value.fix.split(": ")[1])
    settings = parse_settings(options[1::2])
    mended: dict[str, TrainConfig] = {}
    for stage in ("base", "sft"):
        key = f"{stage}.sequences_per_step"
        if key in settings:
            rows = int(settings[key])
            mended[stage] = change(getattr(scale.config, stage), sequences_per_step=rows)
    check_processes(scale, scale.config.model_copy(update=mended), 3)


def test_a_model_that_processes_cannot_split_is_refused_before_data_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scale = find_scale("tiny").config
    whole = change(scale, base=change(scale.base, sequences_per_step=21))
    whole = change(whole, sft=change(scale.sft, sequences_per_step=21))
    monkeypatch.setenv("WORLD_SIZE", "7")
    runtime = change(scale.runtime, sharding="sharded")
    with pytest.raises(WrongUsage, match="7 processes cannot split") as error:
        check_request("tiny", change(whole, runtime=runtime))
    assert error.value.fix and "--set runtime.sharding=replicated" in error.value.fix
    check_request("tiny", whole)


@pytest.mark.parametrize("every", [None, 400])
def test_going_back_after_a_spike_needs_an_evaluation_and_the_settings_make_one(
    every: int | None,
) -> None:
    scale = find_scale("tiny").config
    train = change(scale.base, steps=400, eval_every=every, spike_rollbacks=1)
    with pytest.raises(WrongUsage, match="base cannot go back to an evaluation") as error:
        check_request("tiny", change(scale, base=train))
    options = shlex.split(str(error.value.fix).partition(": ")[2])
    mended = resolve(change(scale, base=train), {}, parse_settings(options[1::2])).config
    check_request("tiny", mended)
    assert evaluation_before(400, mended.base) == 360
    check_request("tiny", change(scale, base=change(train, spike_rollbacks=0)))


# ---- packs and rows ------------------------------------------------------------------------------


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return make_pack(tmp_path / "a pack")


def preview(pack: Path) -> list[str]:
    return ["data", "preview", "--pack", str(pack), "--scale", "tiny", "--no-html"]


def test_a_preview_takes_one_of_two_options(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused([*preview(pack), "--html", str(tmp_path / "p.html")], capsys)
    assert fix_of(said) == "leave one of them out"
    assert run_command(preview(pack)) == 0


def test_a_page_is_written_into_the_folder_that_stood_at_its_place(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = preview(pack)[:-1]
    (tmp_path / "page").mkdir()
    said = refused([*command, "--html", str(tmp_path / "page")], capsys)
    assert fix_of(said) == "name a file in it, or move the folder away"
    assert run_command([*command, "--html", str(tmp_path / "page" / "p.html")]) == 0
    said = refused([*command, "--html", str(pack / "p.html")], capsys)
    assert fix_of(said) == "choose another path"


def edited(pack: Path, **keys: object) -> None:
    value = {**json.loads(pack.read_text()), **keys}
    pack.write_text(json.dumps({key: item for key, item in value.items() if item is not None}))


def test_rows_that_a_pack_lacks_are_left_out_or_made(
    pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited(pack, rows_from=None)
    (pack.parent / "chat.jsonl").unlink()
    fix = fix_of(refused(preview(pack), capsys))
    assert fix.startswith('leave "chat" out of the pack')
    whole = pack.read_text()
    edited(pack, chat=None)
    assert run_command(preview(pack)) == 0
    pack.write_text(whole)
    (pack.parent / "eval.jsonl").unlink()
    fix = fix_of(refused(preview(pack), capsys))
    assert run_command(shlex.split(fix.split("picochat ")[1])) == 0
    assert run_command(preview(pack)) == 0


def test_a_path_of_a_source_is_corrected_or_its_text_imported(
    pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = pack.parent / "recipe.json"
    recipe.write_text('{"sources": [{"path": "txt"}]}')
    assert fix_of(refused(preview(pack), capsys)) == "correct the path, did you mean text?"
    recipe.write_text('{"sources": [{"path": "text"}]}')
    assert run_command(preview(pack)) == 0
    recipe.write_text('{"sources": [{"path": "im ported"}]}')
    fix = fix_of(refused(preview(pack), capsys))
    command = shlex.split(fix.split("picochat ")[1])
    command[command.index("OWNER/NAME")] = str(pack.parent / "text")
    assert run_command(command) == 0
    assert run_command(preview(pack)) == 0


def test_a_pack_without_questions_is_scanned_with_those_of_a_file_or_made_ones(
    pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = pack.parent / "eval.jsonl"
    edited(pack, eval=None)
    command = ["data", "honesty", "--pack", str(pack), "--workers", "1"]
    fix = fix_of(refused(command, capsys))
    assert run_command([*command, "--eval-input", str(questions)]) == 0
    edited(pack, chat=None)
    for path in (questions, pack.parent / "chat.jsonl"):
        path.unlink()
    assert run_command(shlex.split(fix.split("picochat ")[1])) == 0
    assert run_command(command) == 0


GOOD = b'{"user": "Who?", "assistant": "I.", "id": "a"}\n'
LIST = b'[{"user": "Who?", "assistant": "I."}]'
ROWS: tuple[tuple[str, bytes, str, str, bytes], ...] = (
    # file, its content, the remedy, file and content as the remedy says
    ("c.jsonl", GOOD + b'{"user": ', "mend or remove these lines", "c.jsonl", GOOD),
    ("c.jsonl", b"", "write rows into it", "c.jsonl", GOOD),
    ("c.jsonl", GOOD + 2 * b'{"messages": []}\n', "remove these rows", "c.jsonl", GOOD),
    ("c.json", b"[", "mend the file", "c.json", LIST),
    ("c.json", GOOD, "put the rows into one list", "c.json", LIST),
    ("c.json", GOOD, "put the rows into one list", "c.jsonl", GOOD),
    ("c.csv", b"user,assistant", "known endings: .jsonl", "c.jsonl", GOOD),
    ("c.jsonl.gz", b"no gzip", "fetch or write it again", "c.jsonl.gz", gzip.compress(GOOD)),
    ("c.parquet", b"no parquet", "make or download the file again", "c.jsonl", GOOD),
)


@pytest.mark.parametrize(
    ("name", "content", "remedy", "new", "mended"), ROWS, ids=[f"{r[2]}-{r[3]}" for r in ROWS]
)
def test_rows_that_are_mended_as_told_are_read(
    name: str,
    content: bytes,
    remedy: str,
    new: str,
    mended: bytes,
    pack: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (pack.parent / name).write_bytes(content)
    edited(pack, chat=name, rows_from=None)
    said = refused(preview(pack), capsys) if content else _run_on(pack, capsys)
    assert fix_of(said).startswith(remedy)
    (pack.parent / new).write_bytes(mended)
    edited(pack, chat=new)
    assert run_command(preview(pack)) == 0


def _run_on(pack: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A preview takes a file without rows, a run does not."""
    run = ["run", "tiny", "--out-dir", str(pack.parent / "run"), "--dataset-pack", str(pack)]
    return refused([*run, "--preflight-only"], capsys)


def test_questions_get_other_ids_or_none(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pack.parent / "c.jsonl").write_bytes(GOOD)
    question = '{"user": "Who?", "reference_answer": "I."%s}\n'
    (pack.parent / "e.jsonl").write_text(question % ', "id": "a"')
    edited(pack, chat="c.jsonl", eval="e.jsonl", rows_from=None)
    assert fix_of(_run_on(pack, capsys)).startswith("give the eval rows other ids")
    (pack.parent / "e.jsonl").write_text(question % "")
    assert run_command(preview(pack)) == 0


# ---- the task pack -------------------------------------------------------------------------------


def task_pack(pack: Path, *more: str) -> list[str]:
    return [
        "data",
        "task-pack",
        "--pack",
        str(pack),
        "--sft-rows",
        "40",
        "--eval-rows",
        "20",
        *more,
    ]


TASKS: tuple[tuple[list[str], str, list[str]], ...] = (
    # options, the remedy, the options that it says
    (
        ["--skill-weights", "math=x", "--force"],
        "--skill-weights math=.3,spelling=.25,identity=.25,choice=.1,refusal=.1",
        ["--skill-weights", "math=.3,spelling=.25,identity=.25,choice=.1,refusal=.1", "--force"],
    ),
    (
        ["--skill-weights", "maths=1", "--force"],
        "one of: ",
        ["--skill-weights", "math=1", "--force"],
    ),
    (
        ["--eval-rows", "50000", "--force"],
        "a smaller --eval-rows, or other --skill-weights",
        ["--eval-rows", "30", "--force"],
    ),
    (
        ["--sft-rows", "5000000", "--force"],
        "a smaller --sft-rows, or other --skill-weights",
        ["--sft-rows", "50", "--force"],
    ),
    (["--profile", "release_skill"], "one of: ", ["--profile", "release_skills", "--force"]),
    ([], "--add keeps them among the new rows, --force names the new", ["--add"]),
    ([], "--add keeps them among the new rows, --force names the new", ["--force"]),
)


@pytest.mark.parametrize(("given", "remedy", "after"), TASKS)
def test_a_task_pack_is_made_as_the_remedy_says(
    given: list[str], remedy: str, after: list[str], pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited(pack, rows_from=None)
    assert fix_of(refused(task_pack(pack, *given), capsys)).startswith(remedy)
    assert run_command(task_pack(pack, *after)) == 0


def test_other_files_are_replaced_by_force_or_left_for_another_folder(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(task_pack(pack, "--force")) == 0
    fix = fix_of(refused(task_pack(pack, "--seed", "7"), capsys))
    assert fix == "--force replaces these files; --out-dir names another folder"
    assert run_command(task_pack(pack, "--seed", "7", "--out-dir", str(tmp_path / "other"))) == 0
    assert run_command(task_pack(pack, "--seed", "8", "--force")) == 0


def test_a_task_pack_needs_the_file_of_the_pack(
    pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(task_pack(pack.parent / "text"), capsys)
    assert fix_of(said) == "name the dataset_pack.json with --dataset-pack"
    assert run_command(task_pack(pack, "--force")) == 0


# ---- run folders and bundles ---------------------------------------------------------------------


def test_a_run_is_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(make_run(tmp_path / "run").root)
    for given in ([], [run, "--run-dir", run]):
        said = refused(["run", "status", *given], capsys)
        assert fix_of(said) == "name one, as an argument or with --run-dir"
    for given in ([run], ["--run-dir", run]):
        assert run_command(["run", "status", *given]) == 0
    for wrong in ("nowhere", str(tmp_path), f"{run}/run.json"):
        fix = fix_of(refused(["run", "status", wrong], capsys))
        assert fix == "name the --out-dir of a `picochat run tiny`"


def test_a_bundle_is_written_and_verified_where_the_remedies_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "my run").root
    command = ["run", "bundle", "--run-dir", str(run)]
    (tmp_path / "a folder").mkdir()
    for wrong in (tmp_path / "a folder", run / "eval" / "b.tgz"):
        fix = fix_of(refused([*command, "--out", str(wrong)], capsys))
        assert run_command([*command, *shlex.split(fix)]) == 0
        out = Path(shlex.split(fix)[1])
        assert out.is_file()
        assert run_command(["run", "verify", str(out)]) == STATED
    fix = fix_of(refused(["run", "verify", "none.tgz"], capsys))
    make = fix.split("picochat ")[1].replace("RUN.tgz", "new.tgz").replace("RUN", "'my run'")
    assert run_command(shlex.split(make)) == 0
    assert run_command(["run", "verify", "new.tgz"]) == STATED
    said = refused([*command, "--out", "c.tgz", "--logs-dir", "nowhere"], capsys)
    assert fix_of(said) == "name the folder of the logs, or leave --logs-dir out"
    assert run_command([*command, "--out", "c.tgz"]) == 0


def test_a_strict_bundle_has_the_logs_that_it_asks_for_and_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run").root
    command = ["run", "bundle", "--run-dir", str(run), "--strict"]
    said = refused([*command, "--out", str(tmp_path / "b.tgz")], capsys)
    assert fix_of(said).startswith("give a folder of logs with --logs-dir")
    log = tmp_path / "logs" / "run.log"
    log.parent.mkdir()
    log.write_text("hf_" + 34 * "a")
    command += ["--out", str(tmp_path / "b.tgz"), "--logs-dir", str(log.parent)]
    assert fix_of(refused(command, capsys)).startswith(f"remove it from {log}")
    log.write_bytes(gzip.compress(b"reused corpus"))
    assert fix_of(refused(command, capsys)).startswith(f"unpack {log}")
    log.write_text("reused corpus")
    link = log.with_name("newest.log")
    link.symlink_to(log)
    assert fix_of(refused(command, capsys)).startswith("put the file in its place")
    link.unlink()
    wrong = log.with_name("a\\b")
    wrong.write_text("x")
    assert fix_of(refused(command, capsys)) == "rename these files"
    wrong.rename(log.with_name("b"))
    assert run_command(command) == 0
