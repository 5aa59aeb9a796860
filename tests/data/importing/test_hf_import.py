import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from picochat.core.errors import BadInput, HubProblem, PicochatError, WrongUsage
from picochat.data.document_shards import read_manifest
from picochat.data.documents import read_documents
from picochat.data.importing.hf_import import import_dataset
from picochat.data.importing.hub import RetryPolicy
from picochat.data.importing.import_report import HEAD_BYTES, ImportReport
from tests.data.builders import folder_bytes, parquet_bytes, parquet_files, prose, request, serving
from tests.fake_hub import FakeHub

SHARE = Path(__file__).parents[3] / "src"
CLI = "from picochat.cli.data import app; app()"


def _import(folder: Path, **changes: object) -> ImportReport:
    return import_dataset(request(folder, **changes), retry=RetryPolicy(first_pause_s=0.01))


def _lines(rows: list[object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_documents_and_report_account_for_every_row(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        commit = hub.add_dataset("owner/name", parquet_files())
        report = _import(tmp_path)
    documents = list(read_documents(tmp_path / "documents", "web"))
    assert report.rows_seen == 400 == report.rows_written == len(documents)
    assert report.characters_written == sum(len(document.text) for document in documents)
    assert (report.revision, report.licence, report.kind) == (commit, "odc-by", "hub")
    assert sum(file.rows_inspected for file in report.data_files) == 400
    assert all(file.digest.startswith("sha256:") for file in report.data_files)
    assert [file.num_documents for file in report.document_files] == [60] * 6 + [40]
    assert (report.rows_reported, report.rows_omitted) == (200, 200)
    manifest = read_manifest(tmp_path / "documents")
    assert manifest is not None
    assert manifest.provenance is not None
    assert (
        tmp_path / "documents" / str(manifest.provenance.report)
    ).resolve() == tmp_path / "hf_import_report.json"


def test_document_id_names_the_file_and_row_it_came_from(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files())
        _import(tmp_path)
    for document in read_documents(tmp_path / "documents", "web"):
        name, _, row = document.id.partition("#")
        number = int(name.split("-")[1])
        assert document.text == prose(number * 1_000_000 + int(row))


def test_spread_sample_touches_all_files_and_head_only_the_first(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files(files=8, rows=100, group_rows=25))
        spread = _import(tmp_path / "spread", max_rows=200)
        head = _import(tmp_path / "head", max_rows=200, sample="head")
    assert [file.rows_inspected for file in spread.data_files] == [25] * 8
    assert [(file.name, file.row_ranges) for file in head.data_files] == [
        ("cfg/train-00000-of-00008.parquet", [(0, 100)]),
        ("cfg/train-00001-of-00008.parquet", [(0, 100)]),
    ]


def test_seed_changes_the_rows_and_connections_do_not(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files())
        for name, seed, connections in (("one", 1, 1), ("same", 1, 7), ("other", 2, 1)):
            import_dataset(request(tmp_path / name, seed=seed), connections=connections)
    one, same, other = (folder_bytes(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same
    assert one["documents/shard-000000.jsonl.zst"] != other["documents/shard-000000.jsonl.zst"]


def test_only_the_text_column_is_fetched(tmp_path: Path) -> None:
    texts = [prose(number) for number in range(300)]
    ballast = [os.urandom(2_000).hex() for _ in texts]
    data = parquet_bytes(texts, group_rows=100, ballast=ballast)
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", {"cfg/train-0.parquet": data})
        _import(tmp_path, max_rows=300)
    observed = json.loads((tmp_path / "hf_import_report.observed.json").read_text())
    assert observed["bytes_fetched"] < len(data) / 4


def test_interrupted_import_ends_in_the_bytes_of_an_undisturbed_one(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files(files=4, rows=1000, group_rows=100))
        import_dataset(
            request(tmp_path / "calm", max_rows=3500, document_shard_rows=130), connections=4
        )
        release = threading.Event()
        hub.fail(path="resolve/.*parquet", after=28, times=100, hold=release)
        arguments = [
            "hf-import",
            "--dataset",
            "owner/name",
            "--config",
            "cfg",
            "--max-rows",
            "3500",
            "--connections",
            "4",
        ]
        arguments += [
            "--document-shard-rows",
            "130",
            "--out",
            str(tmp_path / "killed" / "corpus.txt"),
        ]
        environment = {**os.environ, "PYTHONPATH": str(SHARE), "OMP_NUM_THREADS": "1"}
        killed = subprocess.Popen(
            [sys.executable, "-c", CLI, *arguments], env=environment, stderr=subprocess.PIPE
        )
        assert hub.held.acquire(timeout=30)
        journal = tmp_path / "killed" / "documents.work" / "journal.jsonl"
        _wait_for(lambda: journal.exists() and journal.read_bytes().count(b"\n") >= 1)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        hub.faults.clear()
        release.set()
        assert not (tmp_path / "killed" / "documents").exists()
        journal.write_bytes(
            journal.read_bytes() + b'{"step": 2, "las'
        )  # the line that a kill can tear
        import_dataset(request(tmp_path / "killed", max_rows=3500, document_shard_rows=130))
    observed = json.loads((tmp_path / "killed" / "hf_import_report.observed.json").read_text())
    assert observed["resumed"]
    assert observed["rows_by_this_process"] < 3500
    assert folder_bytes(tmp_path / "killed") == folder_bytes(tmp_path / "calm")


def folder_bytes_below(files: dict[str, bytes], prefix: str) -> dict[str, bytes]:
    return {
        name.removeprefix(prefix): data for name, data in files.items() if name.startswith(prefix)
    }


def _wait_for(condition: object, timeout_s: float = 20.0) -> None:
    assert callable(condition)
    for _ in range(int(timeout_s / 0.05)):
        if condition():
            return
        threading.Event().wait(0.05)
    raise AssertionError("it did not happen in time")


def test_resumed_import_stays_at_the_pinned_revision(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        first = hub.add_dataset("owner/name", parquet_files())
        hub.fail(path="resolve/.*parquet", after=2, times=100, status=403)
        with pytest.raises(HubProblem):
            _import(tmp_path)
        hub.faults.clear()
        second = hub.add_dataset("owner/name", parquet_files(rows=100))
        report = _import(tmp_path)
    assert first != second
    assert report.revision == first
    assert all(first in seen.path for seen in hub.ranges("resolve"))


def test_repeated_command_does_nothing_and_another_request_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files())
        _import(tmp_path)
        before, asked = folder_bytes(tmp_path), len(hub.requests)
        _import(tmp_path)
        assert "nothing to do" in capsys.readouterr().err
        assert (folder_bytes(tmp_path), len(hub.requests)) == (before, asked)
        with pytest.raises(WrongUsage, match="holds something else"):
            _import(tmp_path, max_rows=300)
        assert folder_bytes(tmp_path) == before
        with pytest.raises(HubProblem):
            import_dataset(request(tmp_path, config="nothing"), force=True)
        assert folder_bytes(tmp_path / "documents") == folder_bytes_below(before, "documents/")
        import_dataset(request(tmp_path, max_rows=300), force=True)
    assert (tmp_path / "documents.superseded-1" / "documents.json").exists()


def test_file_of_the_user_at_the_name_of_out_is_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data.jsonl").write_text(_lines([{"text": prose(1)}]))
    (tmp_path / "corpus.txt").write_text("my novel")
    _import(tmp_path, dataset=str(tmp_path / "data.jsonl"), config=None)
    assert (tmp_path / "corpus.txt.superseded-1").read_text() == "my novel"
    assert (
        "corpus.txt had other content; the old file is now corpus.txt.superseded-1"
        in capsys.readouterr().err
    )
    assert (tmp_path / "corpus.txt").read_text().startswith("[picochat:")


def test_work_that_a_late_kill_left_behind_is_removed_by_the_next_command(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files())
        _import(tmp_path)
        (tmp_path / "documents.work" / "footers").mkdir(parents=True)
        (tmp_path / "documents.work" / "journal.jsonl").touch()
        _import(tmp_path)
    assert not (tmp_path / "documents.work").exists()


def test_torn_report_of_a_killed_process_is_swept_and_nothing_else(tmp_path: Path) -> None:
    for name in (
        ".corpus.txt.mt56e8pc",
        ".hf_import_report.json.abcd_123",
        ".corpus.txt.mine",
        ".other.txt.mt56e8pc",
    ):
        (tmp_path / name).touch()
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files())
        _import(tmp_path)
    assert [path.name for path in sorted(tmp_path.glob(".*"))] == [
        ".corpus.txt.mine",
        ".other.txt.mt56e8pc",
    ]


def test_each_skip_reason_is_counted_and_the_first_text_of_a_pair_stays(tmp_path: Path) -> None:
    rows = [
        {"text": "long enough to stay"},
        {"other": 1},
        {"text": 5},
        {"text": " "},
        {"text": "short"},
    ]
    rows += [
        {"text": "long enough to stay"},
        {"text": "with a \0 inside, long enough"},
        {"text": "half \ud800 of a pair, long"},
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text(_lines(list(rows)))
    report = _import(
        tmp_path, dataset=str(tmp_path / "data" / "rows.jsonl"), config=None, min_chars=10
    )
    assert report.skip_reasons == {
        "below_min_chars": 1,
        "duplicate_text": 1,
        "empty_text": 1,
        "lone_surrogate": 1,
        "missing_text_column": 1,
        "nul_character": 1,
        "text_not_string": 1,
    }
    assert [document.id for document in read_documents(tmp_path / "documents", "x")] == [
        "rows.jsonl#0"
    ]
    assert report.revision.startswith("files:")


def test_same_local_data_elsewhere_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        data = tmp_path / name / "data"
        data.mkdir(parents=True)
        (data / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
        for file in range(3):
            rows: list[object] = [{"text": prose(100 * file + row)} for row in range(70)]
            (data / f"train-{file}.jsonl").write_text(_lines(rows))
        report = _import(tmp_path / name / "out", dataset=str(data), config=None, max_rows=150)
        assert (report.licence, report.rows_seen) == ("cc0-1.0", 150)
    assert folder_bytes(tmp_path / "one" / "out") == folder_bytes(tmp_path / "two" / "out")


def test_asking_for_more_rows_than_there_are_gives_them_all(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for file in range(2):
        rows: list[object] = [{"text": prose(100 * file + row)} for row in range(37)]
        (data / f"part-{file}.jsonl").write_text(_lines(rows))
    (data / "note.md").write_text(prose(999))
    report = _import(tmp_path, dataset=str(data), config=None, max_rows=10_000)
    assert (report.rows_seen, report.rows_written) == (75, 75)


def test_big_row_group_is_read_slice_by_slice(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for file in range(2):
        texts = [prose(10_000 * file + row, words=5) for row in range(600)]
        (data / f"train-{file}.parquet").write_bytes(parquet_bytes(texts, group_rows=600))
    report = _import(tmp_path / "some", dataset=str(data), config=None, max_rows=150)
    assert [file.row_ranges for file in report.data_files] in (
        [[(0, 100)], [(0, 50)]],
        [[(0, 50)], [(0, 100)]],
    )
    everything = _import(tmp_path / "all", dataset=str(data), config=None, max_rows=1200)
    assert [file.row_ranges for file in everything.data_files] == [[(0, 600)], [(0, 600)]]
    ids = [document.id for document in read_documents(tmp_path / "all" / "documents", "x")]
    assert len(set(ids)) == 1200


def test_out_holds_a_head_to_look_at_and_says_where_the_documents_are(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(_lines([{"text": f"{number} " + "x" * 300_000} for number in range(6)]))
    _import(tmp_path, dataset=str(data), config=None)
    head = (tmp_path / "corpus.txt").read_text()
    assert head.startswith("[picochat: the first 3 of 6 documents")
    assert "documents/" in head.splitlines()[0]
    assert len(head) < HEAD_BYTES + 500


def test_token_of_the_environment_is_sent_and_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecretvalue")
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files(), private=True)
        _import(tmp_path)
    assert all(seen.authorized for seen in hub.requests)
    assert not any(
        b"verysecret" in data
        for data in (path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    )


def _refused(tmp_path: Path, **changes: object) -> PicochatError:
    with pytest.raises(PicochatError) as caught:
        _import(tmp_path / "refused", **changes)
    assert not (tmp_path / "refused" / "documents").exists()
    return caught.value


def test_what_the_hub_does_not_have_is_named_with_what_it_has(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files())
        hub.add_dataset("owner/locked", parquet_files(), gated=True)
        config = _refused(tmp_path, config="cfgg")
        split = _refused(tmp_path, split="test")
        dataset = _refused(tmp_path, dataset="owner/nothing")
        revision = _refused(tmp_path, revision="v9")
        gated = _refused(tmp_path, dataset="owner/locked")
        column = _refused(tmp_path, text_column="txt")
    for problem in (config, split, dataset, revision, gated):
        assert isinstance(problem, HubProblem)
        assert problem.exit_code == 5
    assert "did you mean cfg?" in config.what
    assert split.fix == "--split one of: train"
    assert "does not exist" in dataset.what
    assert "no revision 'v9'" in revision.what
    assert "HF_TOKEN" in str(gated.fix)
    assert isinstance(column, BadInput)
    assert column.fix is not None and column.fix.startswith("--text-column, or")
    assert column.fix.endswith("one of: text")


def test_offline_mode_and_an_unreachable_hub_are_said_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeHub() as gone:
        monkeypatch.setenv("HF_ENDPOINT", gone.endpoint)
    unreachable = _refused(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = _refused(tmp_path)
    assert "could not be read" in unreachable.what
    assert "run the same command again" in str(unreachable.fix)
    assert "HF_HUB_OFFLINE is set" in offline.what
    assert (unreachable.exit_code, offline.exit_code) == (5, 5)


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"dataset": "./not/here"}, BadInput, "does not exist"),
        ({"max_rows": 0}, WrongUsage, "--max-rows must be at least 1"),
        ({"document_shard_rows": 0}, WrongUsage, "--document-shard-rows"),
        ({"min_chars": -1}, WrongUsage, "--min-chars"),
        ({"documents_dir": "SAME"}, WrongUsage, "three different paths"),
        ({"out": "FOLDER"}, WrongUsage, "is a folder; it names a text file"),
        ({"dataset": "LOCAL", "revision": "v1"}, BadInput, "local path"),
        ({"dataset": "LOCAL", "min_chars": 10_000}, BadInput, "fix: --min-chars takes shorter"),
        ({"dataset": "LOCAL", "text_column": "body"}, BadInput, "3 rows: missing_text_column"),
        (
            {"dataset": "LOCAL", "text_column": "body"},
            BadInput,
            "fix: --text-column names the text",
        ),
        ({"dataset": "NO ROWS"}, BadInput, "hold no rows"),
        ({"dataset": "EMPTY"}, BadInput, "holds no file"),
    ],
)
def test_wrong_request_is_refused_with_its_remedy(
    changes: dict[str, object], kind: type[PicochatError], says: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    local = tmp_path / "local.jsonl"
    local.write_text(_lines([{"text": prose(number)} for number in range(3)]))
    (tmp_path / "none.parquet").write_bytes(parquet_bytes([]))
    paths = {
        "NO ROWS": str(tmp_path / "none.parquet"),
        "SAME": str(tmp_path / "refused" / "corpus.txt"),
        "FOLDER": f"{tmp_path}/refused/",
        "LOCAL": str(local),
        "EMPTY": str(tmp_path / "empty"),
    }
    given = {
        key: paths.get(value, value) if isinstance(value, str) else value
        for key, value in changes.items()
    }
    problem = _refused(tmp_path, **{"config": None, "dataset": str(local), **given})
    assert isinstance(problem, kind)
    assert says in "\n".join(problem.lines())


def test_converted_branch_is_read_where_the_dataset_is_csv(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset(
            "owner/name", {"all.csv": b"text\nx\n", "README.md": b"---\nlicense: mit\n---\n"}
        )
        data = parquet_bytes([prose(number) for number in range(40)])
        copy = hub.add_dataset(
            "owner/name", {"default/train/0000.parquet": data}, branch="refs/convert/parquet"
        )
        report = _import(tmp_path, config=None)
    assert (report.revision, report.licence, report.rows_seen) == (copy, "mit", 40)


def test_a_copy_that_holds_a_part_of_the_split_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", {"all.csv": b"text\nx\n"})
        data = parquet_bytes([prose(number) for number in range(40)])
        hub.add_dataset(
            "owner/name",
            {"default/partial-train/0000.parquet": data},
            branch="refs/convert/parquet",
        )
        assert _import(tmp_path, config=None).rows_written == 40
    assert "holds only the first part of split train" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["hub", "folder"])
def test_files_of_other_endings_are_counted_with_the_way_to_take_them(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        "README.md": b"---\nlicense: mit\n---\n",
        ".gitattributes": b"",
        "data/rows.jsonl": _lines([{"text": prose(1)}]).encode(),
        "data/photo.png": b"",
        "data/copy.png": b"",
        "pages/a.html": b"<p>",
    }
    folder = tmp_path / "copy"
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", files)
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        _import(tmp_path, dataset="owner/name" if kind == "hub" else str(folder), config=None)
    said = capsys.readouterr().err
    assert "2 .png, 1 .html left out: files of other endings hold no rows" in said
    place = "a local copy of it" if kind == "hub" else str(folder)
    assert f"init-pack --input {place} --include '**/*.html' --out-dir PACK" in said


def test_a_local_folder_of_a_datasets_name_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner/name").mkdir(parents=True)
    (tmp_path / "owner/name/rows.jsonl").write_text(_lines([{"text": prose(1)}]))
    assert _import(tmp_path / "plain", dataset="owner/name", config=None).kind == "files"
    said = capsys.readouterr().err
    assert f"read from the local path {tmp_path}/owner/name, not from the Hub" in said
    _import(tmp_path / "dotted", dataset="./owner/name", config=None)
    assert "not from the Hub" not in capsys.readouterr().err


@pytest.mark.parametrize("form", ["list", "lines", "one"])
def test_json_files_are_imported_over_the_hub_as_from_disk(form: str, tmp_path: Path) -> None:
    rows = [{"text": prose(number)} for number in range(250)]
    text = {"list": json.dumps(rows), "lines": _lines(list(rows)), "one": json.dumps(rows[0])}[form]
    (tmp_path / "local").mkdir()
    (tmp_path / "local/rows.json").write_text(text)
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", {"rows.json": text.encode()})
        over = _import(tmp_path / "hub", config=None, max_rows=200)
    disk = _import(tmp_path / "disk", dataset=str(tmp_path / "local"), config=None, max_rows=200)
    assert over.rows_written == disk.rows_written == (1 if form == "one" else 200)
    assert _documents(tmp_path / "hub") == _documents(tmp_path / "disk")


def _documents(folder: Path) -> dict[str, str]:
    return {
        document.id: document.text for document in read_documents(folder / "documents", "source")
    }
