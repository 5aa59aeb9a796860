"""Benchmarks by name from a loopback Hub: fetched once, pinned, named where missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from picochat.config import ExternalConfig
from picochat.core.errors import BadInput, WrongUsage
from picochat.core.publish import Artifact, publish
from picochat.core.records import read_json
from picochat.data.benchmarks.resolve import Resolution, resolve_benchmarks
from picochat.data.benchmarks.stage import facts_from, publish_benchmarks, read_items, read_texts
from picochat.facts import BenchmarksFacts, facts_of
from tests.data.benchmarks.builders import add_arc, add_hellaswag, add_piqa, arc_rows, write_lines
from tests.data.builders import serving
from tests.fake_hub import FakeHub

AUTO = ExternalConfig(benchmarks=("auto",))


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serving(FakeHub()) as hub:
        yield hub


def staged(place: Path, external: ExternalConfig, found: Resolution) -> Artifact:
    with publish(place, "benchmarks", "key", {}) as staging:
        publish_benchmarks(external, found, staging)
    assert staging.artifact is not None
    return staging.artifact


def test_auto_is_three_benchmarks_with_commit_licence_and_counts(
    hub: FakeHub, tmp_path: Path
) -> None:
    commits = {"arc_easy": add_arc(hub), "hellaswag": add_hellaswag(hub), "piqa": add_piqa(hub)}
    found = resolve_benchmarks(AUTO)
    assert not found.missing
    artifact = staged(tmp_path / "b", AUTO, found)
    facts = facts_of(artifact, BenchmarksFacts)
    assert {name: one.revision for name, one in facts.benchmarks.items()} == commits
    assert {name: one.rows for name, one in facts.benchmarks.items()} == {
        "arc_easy": 40,
        "hellaswag": 30,
        "piqa": 20,
    }
    assert facts.benchmarks["arc_easy"].licence == "cc-by-sa-4.0"
    assert facts.benchmarks["arc_easy"].chance == pytest.approx((32 / 4 + 8 / 3) / 40)
    assert len(read_items(artifact)) == 90
    assert [row.id for row in read_texts(artifact, "piqa")][:2] == ["piqa-00000", "piqa-00001"]


def test_what_was_resolved_is_never_asked_for_again(hub: FakeHub) -> None:
    add_arc(hub), add_hellaswag(hub), add_piqa(hub)
    first = resolve_benchmarks(AUTO)
    asked = len(hub.requests)
    hub.add_dataset("allenai/ai2_arc", {"README.md": b"another commit"})
    again = resolve_benchmarks(AUTO)
    assert len(hub.requests) == asked > 0
    assert again.digest() == first.digest()


def test_only_what_is_missing_is_fetched_by_the_next_run(hub: FakeHub, tmp_path: Path) -> None:
    add_arc(hub), add_hellaswag(hub)
    first = resolve_benchmarks(AUTO)
    assert set(first.missing) == {"piqa"}
    artifact = staged(tmp_path / "b", AUTO, first)
    assert facts_of(artifact, BenchmarksFacts).unresolved == ["piqa"]
    assert "does not exist" in read_json(artifact.path("unresolved.json"))["piqa"]
    add_piqa(hub)
    asked = len(hub.requests)
    second = resolve_benchmarks(AUTO)
    assert not second.missing and second.digest() != first.digest()
    assert all("piqa" in seen.path for seen in hub.requests[asked:])


def test_without_a_network_everything_is_named_and_nothing_raised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = resolve_benchmarks(AUTO)
    assert not found.found and set(found.missing) == {"arc_easy", "hellaswag", "piqa"}
    facts = facts_of(staged(tmp_path / "b", AUTO, found), BenchmarksFacts)
    assert (facts.benchmarks, facts.unresolved) == ({}, ["arc_easy", "hellaswag", "piqa"])


def test_a_hub_file_that_holds_something_else_is_missing_and_not_kept(hub: FakeHub) -> None:
    hub.add_dataset(
        "Rowan/hellaswag", {"data/validation-00000-of-00001.jsonl": b'{"text": "other"}\n'}
    )
    only = ExternalConfig(benchmarks=("hellaswag",))
    assert "fits no benchmark layout" in resolve_benchmarks(only).missing["hellaswag"]
    add_hellaswag(hub)
    assert not resolve_benchmarks(only).missing


def test_bytes_that_differ_from_the_stated_digest_are_refused(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_arc(hub)
    monkeypatch.setattr("picochat.data.benchmarks.resolve.digest_bytes", lambda data: "0" * 64)
    assert (
        "other bytes"
        in resolve_benchmarks(ExternalConfig(benchmarks=("arc_easy",))).missing["arc_easy"]
    )


def test_a_file_takes_the_place_of_a_known_benchmark(hub: FakeHub, tmp_path: Path) -> None:
    add_hellaswag(hub), add_piqa(hub)
    path = write_lines(tmp_path / "arc.jsonl", arc_rows(4))
    found = resolve_benchmarks(ExternalConfig(benchmarks=("auto", f"arc_easy={path}")))
    assert not found.missing
    assert {one.name: one.fetched is None for one in found.found} == {
        "arc_easy": True,
        "hellaswag": False,
        "piqa": False,
    }


def test_other_bytes_in_a_local_file_are_other_benchmarks(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "q.jsonl", arc_rows(4))
    external = ExternalConfig(benchmarks=(f"q={path}",))
    before = resolve_benchmarks(external).digest()
    write_lines(path, arc_rows(5))
    assert resolve_benchmarks(external).digest() != before


def test_items_hold_digests_and_lengths_and_no_texts(tmp_path: Path) -> None:
    external = ExternalConfig(
        benchmarks=(f"q={write_lines(tmp_path / 'q.jsonl', arc_rows())}",), max_rows=7
    )
    artifact = staged(tmp_path / "b", external, resolve_benchmarks(external))
    written = artifact.path("items.jsonl").read_text()
    assert (
        len(written.splitlines()) == facts_of(artifact, BenchmarksFacts).benchmarks["q"].rows == 7
    )
    assert "Oltany" not in written
    assert str(tmp_path) not in artifact.path("manifest.json").read_text()


def test_a_name_that_is_not_known_is_wrong_usage_and_a_missing_file_bad_input(
    tmp_path: Path,
) -> None:
    with pytest.raises(WrongUsage, match="--external-eval arc"):
        resolve_benchmarks(ExternalConfig(benchmarks=("arc",)))
    with pytest.raises(BadInput, match="there is no such file"):
        resolve_benchmarks(ExternalConfig(benchmarks=(f"q={tmp_path / 'absent.jsonl'}",)))


def test_facts_follow_from_the_files_that_a_bundle_holds(hub: FakeHub, tmp_path: Path) -> None:
    add_arc(hub)
    add_hellaswag(hub)
    external = ExternalConfig(benchmarks=("auto",), max_rows=25)
    artifact = staged(tmp_path / "b", external, resolve_benchmarks(external))
    shutil.rmtree(artifact.path("rows"))
    facts = facts_of(artifact, BenchmarksFacts)
    assert facts_from(artifact.place) == facts
    assert {name: one.rows for name, one in facts.benchmarks.items()} == {
        "arc_easy": 25,
        "hellaswag": 25,
    }
    assert facts.unresolved == ["piqa"]
