import email.utils
import json
import threading
import time
from pathlib import Path

import pytest

from picochat.core.errors import HubProblem
from picochat.data.importing.hf_import import import_dataset
from picochat.data.importing.hub import RetryPolicy, retry_after_s
from tests.data.builders import folder_bytes, parquet_files, request, serving
from tests.fake_hub import FakeHub

HASTY = RetryPolicy(timeout_s=0.25, first_pause_s=0.01, longest_pause_s=0.2)
BODIES = "resolve/.*parquet"

FAULTS: list[tuple[str, dict[str, object]]] = [
    # what,                                  the fault
    ("each tenth connection is dropped", {"path": ".", "drop": True, "every": 10, "times": 1000}),
    ("listing is dropped", {"path": "/tree/", "drop": True}),
    ("server falls silent", {"path": BODIES, "hold": threading.Event(), "times": 2}),
    ("listing falls silent", {"path": "/revision/", "hold": threading.Event()}),
    ("body drips", {"path": BODIES, "drip_s": 0.02, "times": 3}),
    ("listing drips", {"path": "/tree/", "drip_s": 0.02}),
    ("refusal drips", {"path": BODIES, "status": 503, "drip_s": 0.3}),
    (
        "busy for seconds",
        {"path": BODIES, "status": 429, "headers": {"Retry-After": "1"}, "times": 3},
    ),
    (
        "busy until a date",
        {"path": BODIES, "status": 429, "headers": {"Retry-After": email.utils.formatdate(2e9)}},
    ),
    ("busy without a word", {"path": BODIES, "status": 429, "times": 3}),
    ("busy until nonsense", {"path": BODIES, "status": 503, "headers": {"Retry-After": "soon"}}),
    ("server error", {"path": BODIES, "status": 503, "times": 4}),
    ("body is cut", {"path": BODIES, "cut_after_bytes": 700, "times": 5}),
    ("every body is cut", {"path": BODIES, "cut_after_bytes": 3000, "every": 2, "times": 1000}),
    ("another range", {"path": BODIES, "headers": {"Content-Range": "bytes 0-9/10"}, "times": 3}),
    ("file of another size", {"path": BODIES, "headers": {"Content-Range": "bytes 0-9/*"}}),
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("calm")
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files())
        import_dataset(request(folder))
    return folder_bytes(folder)


@pytest.mark.parametrize(("what", "fault"), FAULTS, ids=[what for what, _ in FAULTS])
def test_fault_that_passes_loses_and_doubles_no_row(
    what: str, fault: dict[str, object], undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files())
        hub.fail(**fault)
        import_dataset(request(tmp_path), retry=HASTY)
    assert folder_bytes(tmp_path) == undisturbed
    assert json.loads((tmp_path / "hf_import_report.observed.json").read_text())["retries"] > 0


def test_branch_that_moves_in_the_middle_changes_nothing(
    undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    with serving(FakeHub()) as hub:
        pinned = hub.add_dataset("owner/name", parquet_files())
        hub.fail(
            path=BODIES, after=3, act=lambda: hub.add_dataset("owner/name", parquet_files(rows=10))
        )
        import_dataset(request(tmp_path))
        assert hub.repos["datasets/owner/name"].branches["main"] != pinned
    assert folder_bytes(tmp_path) == undisturbed


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"hold": threading.Event()}, "ReadTimeout"),
        ({"drip_s": 0.05}, "bytes in 0s"),
        ({"drop": True}, "disconnected"),
        ({"status": 503}, "status 503"),
        ({"headers": {"Content-Range": "bytes 0-9/10"}}, "got bytes 0-9/10"),
        ({"status": 403}, "status 403"),
    ],
)
def test_fault_that_stays_ends_soon_with_a_way_on(
    fault: dict[str, object], says: str, tmp_path: Path
) -> None:
    patience = RetryPolicy(timeout_s=0.1, attempts=3, first_pause_s=0.01, longest_pause_s=0.1)
    begun = time.monotonic()
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files())
        hub.fail(path=BODIES, times=1000, **fault)
        with pytest.raises(HubProblem) as caught:
            import_dataset(request(tmp_path), retry=patience)
    assert says in caught.value.what
    assert "same command again" in str(caught.value.fix)
    assert time.monotonic() - begun < 10


def test_server_without_ranges_is_refused_at_once(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files())
        hub.serves_ranges = False
        with pytest.raises(HubProblem, match="does not serve ranges"):
            import_dataset(request(tmp_path))


def test_listing_of_several_pages_is_read_to_its_end_and_stays_at_the_endpoint(
    tmp_path: Path,
) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files(files=120, rows=2))
        report = import_dataset(request(tmp_path, max_rows=1000))
    assert (report.data_files_in_split, report.rows_seen) == (120, 240)


def test_attempts_count_from_the_last_progress(tmp_path: Path) -> None:
    """Every answer is cut, yet the import ends: each brought enough to be worth going on."""
    files = {"cfg/train.jsonl": b'{"text": "%s"}\n' % (b"some words " * 200_000)}
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", files)
        hub.fail(path="jsonl", cut_after_bytes=300_000, times=1000)
        report = import_dataset(
            request(tmp_path), retry=RetryPolicy(attempts=2, first_pause_s=0.01)
        )
    assert (report.rows_seen, report.rows_written) == (1, 1)


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    assert retry_after_s("7") == 7
    assert 55 < (retry_after_s(email.utils.formatdate(time.time() + 60)) or 0) < 61
    assert retry_after_s(email.utils.formatdate(0)) == 0
    assert retry_after_s("soon") is None
    assert retry_after_s("") is None
