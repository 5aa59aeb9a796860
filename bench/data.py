"""What each stage from a dataset to token shards costs, beside datatrove: time, CPU and memory.

    python bench/data.py --source FOLDER --megabytes 100,1000 [--work FOLDER] [--no-peer] [--quick]
    pip install 'datatrove==0.10.1' 'xxhash<4' regex      # the peer; else its figures are null

FOLDER holds parquet files with a text column. As much of its text is taken as asked for
(`--megabytes`, of UTF-8 bytes). Where there is less, it is repeated with every fourth word changed,
and the output says so. A Hub on loopback serves it from disk, in a process that is not counted.
Each stage runs in a process of its own: import, corpus (exact and near-duplicates found and
dropped), preview, tokenizer, token shards.

Figures:
- `data_peak_mb_STAGE`: the largest sum of PSS over the stage's processes at the largest size.
  `at_smallest` is the same at the smallest size: where the two are close, memory does not grow with
  the corpus.
- `data_mb_per_second`, `data_mb_per_cpu_second`: megabytes of text through all five stages, by wall
  and by processor time.
- `data_total_wall_s`, `data_total_cpu_s`: import, corpus and shards against datatrove's pipeline on
  the same rows. It reads the parquet files locally (ours over HTTP), drops short texts, exact
  duplicates and MinHash near-duplicates (five-word shingles, 21 bands of 6), encodes with the same
  tokenizer.json and merges. In its favour words are cut by `str.split` instead of its default spaCy
  (`--peer-words spacy` has that), nothing is written between its steps, and nothing is shuffled.
Both use all cores. Says nothing about a real network.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.figures import figure, installed, say, table
from harness.footprint import Footprint, measure
from harness.text import Made, find_documents, take_bytes, write_dataset

HARNESS = Path(__file__).parent / "harness"
MIN_CHARS = 200
DATASET = "bench/text"
QUICK_MEGABYTES = "1,3"
SEED = 42


@dataclass(frozen=True)
class Places:
    """Where one size's measurement lies."""

    root: Path

    @property
    def source(self) -> Path:
        return self.root / "source"

    @property
    def pack(self) -> Path:
        return self.root / "pack/dataset_pack.json"

    @property
    def tokenizer(self) -> Path:
        return self.root / "tokenizer/tokenizer.json"

    def artifact(self, kind: str) -> Path:
        return self.root / kind


@dataclass(frozen=True)
class Measured:
    """One size: the text, each stage's footprint by name, and the tokens in the final shards."""

    made: Made
    stages: dict[str, Footprint]
    peer: Footprint | None
    tokens: int
    peer_tokens: int | None

    @property
    def text_mb(self) -> float:
        return self.made.text_bytes / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path)
    parser.add_argument("--column", default="text")
    parser.add_argument("--megabytes", default="100,1000", help="sizes of text, ascending")
    parser.add_argument(
        "--work", type=Path, help="an absent folder that is kept; default: a temporary one"
    )
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--peer-words", choices=["split", "spacy"], default="split")
    parser.add_argument("--quick", action="store_true", help=f"--megabytes {QUICK_MEGABYTES}")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.stage:
        STAGES[flags.stage](Places(flags.work), flags.vocab_size)
        return
    sizes = [
        float(size) for size in (QUICK_MEGABYTES if flags.quick else flags.megabytes).split(",")
    ]
    name, documents = find_documents(flags.source, flags.column)
    with tempfile.TemporaryDirectory() as temporary:
        work = flags.work or Path(temporary)
        found: list[Measured] = []
        for size in sizes:
            places = Places(work / f"{size:g}")
            made = write_dataset(
                take_bytes(documents, round(size * 1e6)), places.source, round(size * 1e6)
            )
            said = (
                f"{made.text_bytes / 1e6:.1f} MB of {name}, {made.rows:,} rows in {made.files}"
                " files"
            )
            say(
                said
                + (
                    f"; the text is repeated {made.repeats} times, with every fourth word changed"
                    if made.repeats > 1
                    else ""
                )
            )
            peer_words = flags.peer_words if flags.peer and size == sizes[-1] else None
            found.append(measure_size(places, made, flags.vocab_size, peer_words))
            show(found[-1])
    report(name, found)


def measure_size(places: Places, made: Made, vocab_size: int, peer_words: str | None) -> Measured:
    """All stages at one size, and the peer where it is installed.

    peer_words: how the peer cuts words; None: it is not measured.
    """
    write_pack(places)
    hub = subprocess.Popen(
        [sys.executable, str(HARNESS / "hub.py"), str(places.source)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert hub.stdout is not None
        env = {
            "HF_ENDPOINT": hub.stdout.readline().strip(),
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        }
        stages = {stage: run_stage(stage, places, vocab_size, env) for stage in STAGES}
    finally:
        hub.communicate()
    facts = json.loads((places.artifact("shards") / "manifest.json").read_text())["facts"]
    peer = peer_tokens = None
    if peer_words and installed("datatrove", "pip install 'datatrove==0.10.1' 'xxhash<4' regex"):
        say("  datatrove ...")
        given = (
            places.source / "data",
            places.tokenizer,
            places.root / "peer",
            MIN_CHARS,
            peer_words,
        )
        command = [sys.executable, str(HARNESS / "datatrove_job.py"), *map(str, given)]
        peer = succeeded(measure(command, log=places.root / "peer.log"), places.root / "peer.log")
        peer_tokens = (
            sum(path.stat().st_size for path in (places.root / "peer/merged").glob("*.ds")) // 2
        )
    return Measured(
        made, stages, peer, facts["train_tokens"] + facts["held_out_tokens"], peer_tokens
    )


def run_stage(stage: str, places: Places, vocab_size: int, env: dict[str, str]) -> Footprint:
    say(f"  {stage} ...")
    command = [
        sys.executable,
        __file__,
        "--stage",
        stage,
        "--work",
        str(places.root),
        "--vocab-size",
        str(vocab_size),
    ]
    log = places.root / f"{stage}.log"
    return succeeded(measure(command, env, log=log), log)


def succeeded(footprint: Footprint, log: Path) -> Footprint:
    if footprint.returncode:
        sys.exit(
            f"{log} ends with:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        )
    return footprint


def show(measured: Measured) -> None:
    rows = [
        row_of(stage, footprint, measured.text_mb) for stage, footprint in measured.stages.items()
    ]
    if measured.peer:
        rows.append(row_of("datatrove", measured.peer, measured.text_mb))
    head = ("stage", "wall s", "CPU s", "MB/s", "MB/CPU s", "PSS MB", "RSS MB", "largest MB")
    table(f"{measured.text_mb:.1f} MB of text on {os.cpu_count()} cores", head, rows)


def row_of(stage: str, footprint: Footprint, text_mb: float) -> tuple[object, ...]:
    rates = (text_mb / footprint.wall_s, text_mb / footprint.cpu_s)
    return (
        stage,
        footprint.wall_s,
        footprint.cpu_s,
        *rates,
        footprint.peak_pss_mb,
        footprint.peak_rss_mb,
        footprint.largest_process_mb,
    )


def report(source: str, found: list[Measured]) -> None:
    """The JSON lines; those of the whole path last."""
    small, large = found[0], found[-1]
    about = {
        "source": source,
        "text_mb": round(large.text_mb, 1),
        "repeats": large.made.repeats,
        "cores": os.cpu_count(),
    }
    for stage, footprint in large.stages.items():
        before = small.stages[stage]
        more = {
            "at_smallest": round(before.peak_pss_mb, 1),
            "smallest_mb": round(small.text_mb, 1),
            "wall_s": round(footprint.wall_s, 2),
            "cpu_s": round(footprint.cpu_s, 2),
        }
        figure(
            f"data_peak_mb_{stage}",
            footprint.peak_pss_mb,
            None,
            "MB of PSS",
            footprint.peak_rss_mb,
            **more,
            **about,
        )
    peak = max(footprint.peak_rss_mb for footprint in large.stages.values())
    wall_s, cpu_s = (
        sum(getattr(footprint, name) for footprint in large.stages.values())
        for name in ("wall_s", "cpu_s")
    )
    figure("data_mb_per_second", large.text_mb / wall_s, None, "MB/s", peak, **about)
    figure("data_mb_per_cpu_second", large.text_mb / cpu_s, None, "MB/s", peak, **about)
    compared = [large.stages[stage] for stage in ("import", "corpus", "shards")]
    peer = (
        asdict(large.peer) if large.peer else {"wall_s": None, "cpu_s": None, "peak_pss_mb": None}
    )
    about |= {"tokens": large.tokens, "peer_tokens": large.peer_tokens}
    for name in ("wall_s", "cpu_s"):
        ours = sum(getattr(footprint, name) for footprint in compared)
        figure(
            f"data_total_{name}",
            ours,
            peer[name],
            "s",
            peak,
            peer_peak_pss_mb=peer["peak_pss_mb"],
            **about,
        )


# ---- the stages, each in a process of its own ----------------------------------------------------


def write_pack(places: Places) -> None:
    places.pack.parent.mkdir(parents=True)
    places.pack.write_text(json.dumps({"name": "bench", "corpus": {"recipe": "recipe.json"}}))
    recipe = {"sources": [{"path": "../import/documents", "label": "text"}]}
    (places.pack.parent / "recipe.json").write_text(json.dumps(recipe))


def run_import(places: Places, _: int) -> None:
    from picochat.data.importing.hf_import import import_dataset
    from picochat.data.importing.import_report import ImportRequest

    folder = places.root / "import"
    request = ImportRequest(
        dataset=DATASET,
        out=str(folder / "corpus.txt"),
        documents_dir=str(folder / "documents"),
        report=str(folder / "report.json"),
        max_rows=1_000_000_000,
        min_chars=MIN_CHARS,
    )
    import_dataset(request)


def run_corpus(places: Places, _: int) -> None:
    from picochat.config import DataConfig, HostConfig
    from picochat.core.publish import publish
    from picochat.data.corpus.build import build_corpus
    from picochat.data.pack import load_pack

    with publish(places.artifact("corpus"), "corpus", "bench", {}) as staging:
        build_corpus(
            load_pack(places.pack), DataConfig(drop_near_duplicates=True), HostConfig(), staging
        )


def run_preview(places: Places, _: int) -> None:
    from picochat.cli.main import main as cli

    sys.argv = ["picochat", "data", "preview", "--dataset-pack", str(places.pack), "--json"]
    cli()


def run_tokenizer(places: Places, vocab_size: int) -> None:
    from picochat.config import TokenizerConfig
    from picochat.core.publish import open_artifact, publish
    from picochat.tokens.tokenizer import train_tokenizer

    with publish(places.artifact("tokenizer"), "tokenizer", "bench", {}) as staging:
        corpus = open_artifact(places.artifact("corpus"), "corpus")
        train_tokenizer(corpus, TokenizerConfig(vocab_size=vocab_size), SEED, staging)


def run_shards(places: Places, _: int) -> None:
    from picochat.config import ExercisesConfig, HostConfig, ShardsConfig
    from picochat.core.publish import open_artifact, publish
    from picochat.skills.exercises import write_exercises
    from picochat.tokens.shards import write_shards

    corpus, tokenizer = (
        open_artifact(places.artifact(kind), kind) for kind in ("corpus", "tokenizer")
    )
    with publish(
        places.artifact("exercises"), "exercises", "bench", {"corpus": corpus.digest}
    ) as staging:
        write_exercises(corpus, ExercisesConfig(), HostConfig(), SEED, staging)
    exercises = open_artifact(places.artifact("exercises"), "exercises")
    with publish(places.artifact("shards"), "shards", "bench", {}) as staging:
        write_shards(corpus, exercises, tokenizer, ShardsConfig(), HostConfig(), SEED, staging)


STAGES: dict[str, Callable[[Places, int], None]] = {
    "import": run_import,
    "corpus": run_corpus,
    "preview": run_preview,
    "tokenizer": run_tokenizer,
    "shards": run_shards,
}


if __name__ == "__main__":
    main()
