"""Bad input of every kind: one message with its remedy, the right exit code, no traceback, and
nothing lost.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from picochat.cli.main import run_command
from tests.small_pack import SMALL, TEXTS, make_pack


def preflight(pack: Path, *more: str) -> list[str]:
    out = pack.parent.parent / "run"
    return [
        "run",
        "tiny",
        "--out-dir",
        str(out),
        "--dataset-pack",
        str(pack),
        "--preflight-only",
        *SMALL,
        *more,
    ]


def edit(name: str, content: bytes, *more: str) -> Callable[[Path], list[str]]:
    """A case: the pack with one file replaced, then its preflight."""

    def case(pack: Path) -> list[str]:
        (pack.parent / name).write_bytes(content)
        return preflight(pack, *more)

    return case


def no_text(pack: Path) -> list[str]:
    for path in (pack.parent / "text").iterdir():
        path.write_text("  \n")
    return preflight(pack)


def little_text(pack: Path) -> list[str]:
    for path in list((pack.parent / "text").iterdir())[2:]:
        path.unlink()
    out = str(pack.parent.parent / "run")
    return [
        "run",
        "tiny",
        "--out-dir",
        out,
        "--dataset-pack",
        str(pack),
        "--preflight-only",
        "--scale",
        "h100-100m",
        "--device",
        "cpu",
        "--external-eval",
        "none",
    ]


def out_is_a_file(pack: Path) -> list[str]:
    (pack.parent.parent / "run").write_text("mine")
    return preflight(pack)


def out_below_a_file(pack: Path) -> list[str]:
    return [
        "run",
        "tiny",
        "--out-dir",
        str(pack / "run"),
        "--dataset-pack",
        str(pack),
        "--preflight-only",
        *SMALL,
    ]


def random_bundle(pack: Path) -> list[str]:
    (pack.parent / "x.tgz").write_bytes(os.urandom(5000))
    return ["run", "verify", str(pack.parent / "x.tgz")]


def unfinished_bundle(pack: Path) -> list[str]:
    run = pack.parent.parent / "begun"
    run.mkdir()
    run_json = subprocess.run(
        [
            sys.executable,
            "-c",
            (
                "from picochat.config import *; from picochat.scales import find_scale; from"
                " picochat.core.records import *; import sys;"
                " sys.stdout.buffer.write(canonical_json(resolve(find_scale('tiny').config, {},"
                " {})))"
            ),
        ],
        capture_output=True,
        check=True,
    )
    (run / "run.json").write_bytes(run_json.stdout)
    return ["run", "bundle", "--run-dir", str(run), "--out", str(pack.parent / "b.tgz"), "--strict"]


def jsonl_without_text(pack: Path) -> list[str]:
    source = pack.parent / "rows.jsonl"
    source.write_text('{"body": "x"}\n')
    return imported(pack, str(source))


def imported(pack: Path, dataset: str, *more: str) -> list[str]:
    out = pack.parent.parent / "import"
    return [
        "data",
        "hf-import",
        "--dataset",
        dataset,
        "--out",
        str(out / "corpus.txt"),
        "--documents-dir",
        str(out / "documents"),
        *more,
    ]


def task_pack(pack: Path, *more: str) -> list[str]:
    return ["data", "task-pack", "--dataset-pack", str(pack), *more]


def export(pack: Path, *more: str) -> list[str]:
    return ["export", "hf", "--out-dir", str(pack.parent / "out"), *more]


CASES: list[tuple[str, int, Callable[[Path], list[str]], str]] = [
    # what, exit code, the command after the damage, a part of the message
    ("missing pack", 4, lambda p: preflight(p.with_name("none.json")), "does not exist"),
    (
        "pack is a folder",
        4,
        lambda p: preflight(p.parent),
        "is a folder without a dataset_pack.json",
    ),
    ("broken JSON", 4, edit("pack.json", b'{"name": "p",'), "line 1"),
    ("wrong types", 4, edit("pack.json", b'{"name": 3, "corpus": []}'), "name"),
    (
        "unknown key",
        4,
        edit("pack.json", b'{"name": "p", "corups": {"recipe": "recipe.json"}}'),
        "did you mean corpus?",
    ),
    ("pack is not UTF-8", 4, edit("pack.json", b"\xff\xfe{"), "UTF-8"),
    ("recipe without sources", 4, edit("recipe.json", b'{"name": "r", "sources": []}'), "sources"),
    (
        "source is missing",
        4,
        edit("recipe.json", b'{"name": "r", "sources": [{"path": "nowhere", "label": "x"}]}'),
        "nowhere",
    ),
    (
        "recipe key misspelt",
        4,
        edit("recipe.json", b'{"name": "r", "sources": [{"path": "text", "lable": "x"}]}'),
        "did you mean label?",
    ),
    ("no SFT rows", 4, edit("chat.jsonl", b""), "no rows"),
    ("no eval rows", 4, edit("eval.jsonl", b"\n"), "no rows"),
    ("broken row", 4, edit("chat.jsonl", b'{"user": "a", "assistant": "b"}\n{"user": '), "line 2"),
    (
        "unknown key in a row",
        4,
        edit("eval.jsonl", b'{"user": "a", "must_inclde": ["b"]}'),
        "did you mean must_include?",
    ),
    ("row of wrong type", 4, edit("chat.jsonl", b'{"user": 5, "assistant": "b"}'), "user"),
    ("rows are not UTF-8", 4, edit("chat.jsonl", b'{"user": "\xff"}'), "UTF-8"),
    ("corpus has no text", 4, no_text, "text"),
    ("corpus is too small for the vocabulary", 4, little_text, "vocab_size"),
    ("unknown scale", 2, lambda p: preflight(p, "--scale", "h100-100"), "did you mean h100-100m?"),
    (
        "a scale for several GPUs",
        2,
        lambda p: preflight(p, "--scale", "h100-100m-ddp8"),
        "made for 8 GPUs",
    ),
    (
        "unknown setting",
        2,
        lambda p: preflight(p, "--set", "base.stpes=3"),
        "did you mean base.steps?",
    ),
    (
        "setting without value",
        2,
        lambda p: preflight(p, "--set", "base.muon_lr"),
        "section.key=value",
    ),
    (
        "setting given twice",
        2,
        lambda p: preflight(p, "--set", "base.steps=3"),
        "both as a flag and by --set",
    ),
    (
        "seed beyond 64 bits",
        2,
        lambda p: preflight(p, "--seed", str(2**63)),
        "seed: input should be less than",
    ),
    ("scale as a setting", 2, lambda p: preflight(p, "--set", "scale=small"), "fix: --scale small"),
    (
        "empty value",
        2,
        lambda p: ["run", "tiny", "--out-dir", "", "--dataset-pack", str(p)],
        "--out-dir is empty",
    ),
    (
        "empty value after =",
        2,
        lambda p: ["run", "tiny", "--out-dir=", "--dataset-pack", str(p)],
        "--out-dir is empty",
    ),
    ("empty argument", 2, lambda p: ["run", "verify", ""], "argument 3 is empty"),
    (
        "setting out of range",
        2,
        lambda p: preflight(p, "--set", "data.held_out_fraction=2"),
        "held_out_fraction",
    ),
    ("odd head width", 2, lambda p: preflight(p, "--set", "model.head_width=63"), "must be even"),
    (
        "unknown benchmark",
        2,
        lambda p: preflight(p, "--external-eval", "arc"),
        "one of: arc_easy, hellaswag, piqa",
    ),
    (
        "benchmarks and none",
        2,
        lambda p: preflight(p, "--external-eval", "none", "--external-eval", "auto"),
        "none by itself",
    ),
    (
        "missing benchmark",
        4,
        lambda p: preflight(p, "--external-eval", f"q={p.parent / 'none.jsonl'}"),
        "no such file",
    ),
    (
        "benchmark of no layout",
        4,
        lambda p: preflight(p, "--external-eval", f"q={p.parent / 'chat.jsonl'}"),
        "known: arc",
    ),
    ("unknown device", 2, lambda p: preflight(p, "--device", "gpu"), "cpu"),
    ("unknown flag", 2, lambda p: preflight(p, "--bas-steps", "3"), "--base-steps"),
    ("out-dir is a file", 4, out_is_a_file, "path"),
    ("out-dir below a file", 4, out_below_a_file, "path"),
    ("not a bundle", 4, random_bundle, "bundle"),
    (
        "run folder is a file",
        4,
        lambda p: ["run", "show", "--run-dir", str(p)],
        "is a file, not a run folder",
    ),
    (
        "folder without a pack",
        4,
        lambda p: preflight(p.parent / "text"),
        "is a folder without a dataset_pack.json",
    ),
    (
        "rows for a folder without a pack",
        4,
        lambda p: task_pack(p.parent / "text"),
        "is a folder without a dataset_pack.json",
    ),
    (
        "page at a folder",
        4,
        lambda p: ["data", "preview", "--pack", str(p), "--html", str(p.parent)],
        "is a folder, and a file",
    ),
    (
        "report below a file",
        4,
        lambda p: ["data", "honesty", "--pack", str(p), "--out-dir", str(p)],
        "is not a folder",
    ),
    (
        "out is the dataset",
        2,
        lambda p: [
            *imported(p, str(p.parent / "chat.jsonl")),
            "--out",
            str(p.parent / "chat.jsonl"),
        ],
        "would replace a file of the dataset",
    ),
    (
        "report is in the dataset",
        2,
        lambda p: imported(
            p, str(p.parent / "text"), "--report", str(p.parent / "text" / "000.txt")
        ),
        "would replace a file of the dataset",
    ),
    (
        "missing bundle",
        4,
        lambda p: ["run", "verify", str(p.parent / "none.tgz")],
        "does not exist",
    ),
    ("incomplete run", 4, unfinished_bundle, "is missing"),
    (
        "not a run folder",
        4,
        lambda p: ["run", "status", "--run-dir", str(p.parent)],
        "not a run folder",
    ),
    ("missing dataset", 4, lambda p: imported(p, str(p.parent / "none" / "x")), "none"),
    ("no text column", 4, jsonl_without_text, "text"),
    (
        "unknown profile",
        2,
        lambda p: task_pack(p, "--profile", "release_skill"),
        "did you mean release_skills?",
    ),
    ("too few rows", 2, lambda p: task_pack(p, "--sft-rows", "3"), "sft"),
    ("too many rows", 2, lambda p: task_pack(p, "--eval-rows", "50000"), "without repeating"),
    (
        "missing checkpoint",
        4,
        lambda p: export(p, "--checkpoint", str(p.parent / "none"), "--tokenizer", str(p)),
        "none",
    ),
    (
        "sanity of an unknown backend",
        2,
        lambda p: ["sanity", "preh100", "--attn-backend", "flsh", "--out-dir", str(p.parent)],
        "attention_backend",
    ),
]


@pytest.mark.parametrize(("what", "code", "case", "said"), CASES, ids=[case[0] for case in CASES])
def test_bad_input_is_one_message(
    what: str,
    code: int,
    case: Callable[[Path], list[str]],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pack = make_pack(tmp_path / "pack")
    command = case(pack)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    found = run_command(command)
    message = capsys.readouterr().err
    assert found == code, message
    assert said.lower() in message.lower(), message
    assert "Traceback" not in message
    assert {path: path.read_bytes() for path in before if path.exists()} == before, (
        "a file was lost or changed"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_absent_cuda_is_said_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = make_pack(tmp_path / "pack")
    assert run_command(preflight(pack, "--device", "cuda")) == 2
    message = capsys.readouterr().err
    assert "no CUDA device" in message and "fix: --device cpu" in message
    assert not (tmp_path / "run").exists()


def test_run_folder_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = make_pack(tmp_path / "pack")
    (tmp_path / "run").mkdir()
    code = (
        "import sys,time;from pathlib import Path;from picochat.core.publish import exclusive\nwith"
        " exclusive(Path(sys.argv[1]),'x'): print(1,flush=True);time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run" / ".lock")],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline()
        assert run_command(preflight(pack)) == 2
        assert f"in use by another process (pid {holder.pid})" in capsys.readouterr().err
    finally:
        holder.kill()
        holder.communicate()


def test_full_disk_is_said_and_the_same_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real, small file system: it fills while the corpus is tokenized; with room, the same
    command ends well.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    pack = make_pack(tmp_path / "pack")
    command = [
        "run",
        "tiny",
        "--out-dir",
        str(disk / "run"),
        "--dataset-pack",
        str(pack),
        "--preflight-only",
        *SMALL,
    ]
    old_home = os.environ["PICOCHAT_HOME"]
    os.environ["PICOCHAT_HOME"] = str(disk / "cache")
    try:
        assert run_command(command) == 1
        message = capsys.readouterr().err
        assert (
            f"the disk is full ({disk}/" in message
            and "fix: free some space" in message
            and "Traceback" not in message
        )
        subprocess.run(["mount", "-o", "remount,size=2g", str(disk)], check=True)
        assert run_command(command) == 0
        assert json.loads((disk / "run" / "preflight.json").read_text())["status"] in (
            "ready",
            "warn",
        )
    finally:
        os.environ["PICOCHAT_HOME"] = old_home
        subprocess.run(["umount", str(disk)], check=True)


def test_export_of_another_tokenizers_checkpoint_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from picochat.tokens.tokenizer import chat_template, train
    from tests.export_builders import make_checkpoint

    checkpoint = make_checkpoint(tmp_path / "checkpoint").place
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tokenizer.json").write_bytes(train(TEXTS[:10], 500))
    (tmp_path / "other" / "chat_template.jinja").write_text(chat_template())
    command = export(
        tmp_path / "pack.json",
        "--checkpoint",
        str(checkpoint),
        "--tokenizer",
        str(tmp_path / "other" / "tokenizer.json"),
    )
    assert run_command(command) == 4
    assert "not the one of the training" in capsys.readouterr().err


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from picochat.cli.main import run_command; run_command(['--help'])\nprint([m"
        " for m in ('torch','transformers','numpy','pyarrow','pydantic','tokenizers') if m in"
        " sys.modules], file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stderr.strip() == "[]"
    assert "Exit codes" in found.stdout


def test_damaged_cache_is_made_again(
    tmp_path: Path, private_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run that filled the cache shares its bytes by hard links; another run must neither fail
    nor use what is broken.
    """
    pack = make_pack(tmp_path / "a" / "pack")
    assert run_command(preflight(pack)) == 0
    for path in private_cache.glob("shards/*/train-00000.bin"):
        os.truncate(path, 1000)
    for path in private_cache.glob("tokenizer/*/manifest.json"):
        path.write_text("{")
    capsys.readouterr()
    again = preflight(pack)
    again[again.index("--out-dir") + 1] = str(tmp_path / "b")
    assert run_command(again) == 0
    said = capsys.readouterr().err
    assert (
        "reused corpus" in said
        and "built tokenizer" in said
        and "built shards" in said
        and said.count("is damaged") == 2
    )
    shards = tmp_path / "a" / "run" / "base" / "token_shards"
    (tmp_path / "a" / "run" / "tokenizer" / "manifest.json").write_bytes(
        (tmp_path / "b" / "tokenizer" / "manifest.json").read_bytes()
    )
    (tmp_path / "a" / "run" / "host" / "manifest.json").unlink()
    # The first run's links were truncated with the cache: noticed, set aside, and made again.
    assert run_command(preflight(pack)) == 0
    assert f"{shards} is damaged (train-00000.bin)" in capsys.readouterr().err
    assert (shards / "train-00000.bin").stat().st_size > 1000


def test_folder_of_somebody_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = make_pack(tmp_path / "x" / "pack")
    (tmp_path / "x" / "run" / "eval").mkdir(parents=True)
    (tmp_path / "x" / "run" / "tokenizer.json").write_text("mine")
    assert run_command(preflight(pack)) == 2
    assert "holds what a run would replace: eval, tokenizer.json" in capsys.readouterr().err
    assert (tmp_path / "x" / "run" / "tokenizer.json").read_text() == "mine"
    assert sorted(path.name for path in (tmp_path / "x" / "run").iterdir()) == [
        "eval",
        "tokenizer.json",
    ]


def test_interrupt_outside_training_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("picochat.preview.preview_pack.preview_pack", interrupt)
    assert (
        run_command(["data", "preview", "--dataset-pack", str(make_pack(tmp_path / "pack"))]) == 130
    )
    assert "interrupted; what was finished is kept (exit 130)" in capsys.readouterr().err


def no_memory_of_python() -> None:
    raise MemoryError


def no_memory_of_torch() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


@pytest.mark.parametrize("failure", [no_memory_of_python, no_memory_of_torch])
def test_full_memory_is_said_with_what_helps(
    failure: Callable[[], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fill(*_: object, **__: object) -> None:
        failure()

    monkeypatch.setattr("picochat.preview.preview_pack.preview_pack", fill)
    assert (
        run_command(["data", "preview", "--dataset-pack", str(make_pack(tmp_path / "pack"))]) == 1
    )
    assert "memory is full" in capsys.readouterr().err


def test_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["--version"]) == 0
    assert capsys.readouterr().out.startswith("picochat ")


def test_sanity_knows_a_bad_place_before_it_tests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert (
        run_command(["sanity", "preh100", "--out-dir", str(tmp_path / "file"), "--device", "cpu"])
        == 4
    )
    assert "pass" not in capsys.readouterr().err
