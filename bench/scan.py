"""The contamination scan: what it finds of planted rows, what else it flags, speed and memory.

    python bench/scan.py --source FOLDER --evals-wheel FILE.whl
        [--megabytes 1000] [--rows 500] [--no-peer] [--quick]

The rows of external benchmarks (quartz, socialiqa, logiqa and others):
    pip download --no-deps evals==3.0.1.post1
The peer; without it its figures are null:
    pip install 'datatrove==0.10.1' 'xxhash<4' regex

FOLDER holds parquet files with a text column (bench/harness/text.py says how so much text is made
of it). Looked for are 700 eval rows of the five skills and, with the wheel, some 17,000 rows of 20
to 100 words; 500 of them, half of each kind, are planted in ten disguises
(bench/harness/disguises.py), each time in a document of its own of that text.

Figures. `scan_recall_DISGUISE`: fraction of the planted rows that are reported for that
document. `scan_false_rows`: fraction of all rows that are flagged in documents where nothing was
planted; each is shown, to be looked at. `scan_mb_per_second`: UTF-8 text over the scan's own
processor time in one process, without reading the text, nothing planted; `..._planted` the same
with all plantings; `scan_peak_mb`: the largest resident size of that process, and `of_a_tenth` the
same with a tenth of the text. The peer, datatrove's n-gram filter at its default of 12, gets words
by `str.split` instead of its default spaCy, whole rows as what it looks for, and the planted
documents alone for its speed; it says only whether a document is contaminated, so its recall
counts any row.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from harness.disguises import DISGUISES
from harness.figures import figure, installed, say, table
from harness.text import find_documents, take_bytes

from picochat.config import HonestyConfig
from picochat.honesty.index import Index, build_index
from picochat.honesty.items import ScanItem, item_of_row, scan_item
from picochat.honesty.scan_texts import Tally, Text, scan_batch, scan_texts
from picochat.skills.mixture import make_rows
from picochat.skills.task_rows import row_json

OWN_ROWS = 700
ROW_WORDS = range(20, 101)
MOST_ROWS_OF_ONE = 2_300
FILES = [
    "quartz/samples",
    "theory_of_mind/socialiqa/test",
    "logiqa/logiqa",
    "crepe/samples",
    "fcc_amateur_extra/samples",
    "arc/samples",
    "bulgarian-exams-qa/samples",
    "vietnamese-exams-qa/samples",
    "hungarian-exams-qa/samples",
    "macedonian-exams-qa/samples",
    "turkish-exams-qa/samples",
    "polish-exams-qa/samples",
    "german-exams-qa/samples",
    "italian-exams-qa/samples",
]
PLANTED_KINDS = (
    "quartz",
    "socialiqa",
    "logiqa",
    "crepe",
    "fcc_amateur_extra",
)  # in English, as numbers and synonyms are
SPACING = 3  # of each so many documents one is planted in, where there are enough


@dataclass(frozen=True)
class Row:
    """A row to look for: its item, and the text that is planted."""

    item: ScanItem
    text: str


@dataclass(frozen=True)
class Planting:
    """Row number `row` in a disguise, as it stands in a document."""

    row: int
    disguise: str
    text: str


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path)
    parser.add_argument("--column", default="text")
    parser.add_argument("--evals-wheel", type=Path)
    parser.add_argument("--megabytes", type=float, default=1000.0)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--quick", action="store_true", help="--megabytes 50, or what the source holds"
    )
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    flags.megabytes = 50.0 if flags.quick else flags.megabytes
    rows = own_rows() + (benchmark_rows(flags.evals_wheel) if flags.evals_wheel else [])
    started = time.process_time()
    index = build_index([row.item for row in rows], HonestyConfig())
    if flags.file:
        tally, seconds = timed_scan(index, flags.file, flags.megabytes * 1e6)
        print(
            json.dumps(
                {
                    "mb_per_s": tally.text_bytes / seconds / 1e6,
                    "text_mb": tally.text_bytes / 1e6,
                    "peak_mb": peak_mb(),
                }
            )
        )
        return
    plantings = plant(rows, flags.rows)
    say(
        f"{len(rows):,} rows in an index made in {time.process_time() - started:.1f} s,"
        f" {len(plantings):,} plantings of {flags.rows} rows"
    )
    with tempfile.TemporaryDirectory() as folder:
        clean, planted = Path(folder) / "clean.jsonl", Path(folder) / "planted.jsonl"
        write_texts(clean, texts(flags, []))
        report_speed(
            flags,
            len(rows),
            *(speed_of(flags, clean, flags.megabytes * part * 1e6) for part in (2, 0.1)),
        )
        write_texts(planted, texts(flags, plantings))
        clean.unlink()
        tally, seconds = timed_scan(index, planted, float("inf"))
    figure(
        "scan_mb_per_second_planted",
        tally.text_bytes / seconds / 1e6,
        None,
        "MB/s of one core",
        None,
        plantings=len(plantings),
    )
    documents = planted_documents(flags, plantings)
    by_disguise = recall(index, documents, tally)
    wanted = flags.peer and installed(
        "datatrove", "pip install 'datatrove==0.10.1' 'xxhash<4' regex"
    )
    report_recall(by_disguise, peer_recall(rows, index, documents) if wanted else None)
    report_false_rows(index, flags, plantings, tally)


# ---- rows ----------------------------------------------------------------------------------------


def own_rows() -> list[Row]:
    _, evals = make_rows("release_skills", 100, OWN_ROWS, "scratchpad", 42)
    return [Row(item_of_row(row_json(row)), row.user) for row in evals]


def benchmark_rows(wheel: Path) -> list[Row]:
    """What the user says in rows of 20 to 100 words, by benchmark."""
    rows: list[Row] = []
    with zipfile.ZipFile(wheel) as archive:
        for file in FILES:
            name = file.split("/")[-2]
            lines = archive.read(f"evals/registry/data/{file}.jsonl").decode().splitlines()
            texts = [
                text
                for text in (user_text(json.loads(line)) for line in lines)
                if len(text.split()) in ROW_WORDS
            ]
            rows += [
                Row(replace(scan_item(f"{name}-{n}", name, text), benchmark=name), text)
                for n, text in enumerate(texts[:MOST_ROWS_OF_ONE])
            ]
    return rows


def user_text(row: dict[str, Any]) -> str:
    turns = [
        turn["content"]
        for turn in row.get("input", [])
        if isinstance(turn, dict) and turn.get("role") == "user"
    ]
    return turns[-1] if turns else ""


def plant(rows: Sequence[Row], count: int) -> list[Planting]:
    """`count` rows, each in every disguise that changes it; half of them are benchmark rows."""
    draw = random.Random("plant")
    own = [n for n, row in enumerate(rows) if row.item.benchmark is None]
    external = [n for n, row in enumerate(rows) if row.item.benchmark in PLANTED_KINDS]
    half = min(count // 2, len(external))
    chosen = [*draw.sample(own, min(count - half, len(own))), *draw.sample(external, half)]
    changed = (
        (n, disguise, disguise.change(rows[n].text, random.Random(f"{n} {disguise.name}")))
        for n in chosen
        for disguise in DISGUISES
    )
    plantings = [
        Planting(n, disguise.name, text) for n, disguise, text in changed if text is not None
    ]
    draw.shuffle(plantings)
    return plantings


# ---- texts ---------------------------------------------------------------------------------------


def texts(
    flags: argparse.Namespace, plantings: Sequence[Planting]
) -> Iterator[tuple[str, str, Planting | None]]:
    """(id, text, what is planted in it).

    Every SPACING-th document is planted in at a space, until all are.
    """
    _, documents = find_documents(flags.source, flags.column)
    waiting = iter(plantings)
    for number, (_, text) in enumerate(take_bytes(documents, round(flags.megabytes * 1e6))):
        planting = next(waiting, None) if number % SPACING == 0 else None
        if planting is None:
            yield f"d{number}", text, None
        else:
            place = text.find(" ", len(text) // 2) + 1
            yield f"p{number}", f"{text[:place]}\n\n{planting.text}\n\n{text[place:]}", planting


class Clock:
    """The texts of a file, and the processor time of reading them, so that it can be taken off."""

    def __init__(self, file: Path, most_bytes: float) -> None:
        self.file, self.most_bytes, self.seconds = file, most_bytes, 0.0

    def __iter__(self) -> Iterator[Text]:
        taken = 0
        with self.file.open("rb") as stream:
            while taken < self.most_bytes:
                started = time.process_time()
                line = stream.readline()
                row = json.loads(line) if line else None
                self.seconds += time.process_time() - started
                if row is None:
                    return
                taken += len(line)
                yield row["id"], row["text"]


def timed_scan(index: Index, file: Path, most_bytes: float) -> tuple[Tally, float]:
    clock = Clock(file, most_bytes)
    scan_texts(index, [("warm", "w\u00e4rmer")])  # the table of code points is made once
    started = time.process_time()
    tally = scan_texts(
        index, clock, workers=1, total_bytes=round(min(most_bytes, file.stat().st_size))
    )
    return tally, time.process_time() - started - clock.seconds


def speed_of(flags: argparse.Namespace, file: Path, most_bytes: float) -> dict[str, float]:
    """Speed and memory of a process that does nothing else."""
    command = [sys.executable, __file__, "--file", str(file), "--megabytes", str(most_bytes / 1e6)]
    command += ["--evals-wheel", str(flags.evals_wheel)] if flags.evals_wheel else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def write_texts(path: Path, rows: Iterator[tuple[str, str, Planting | None]]) -> None:
    with path.open("w") as stream:
        stream.writelines(
            json.dumps({"id": id, "text": text}, ensure_ascii=False) + "\n" for id, text, _ in rows
        )


def planted_documents(
    flags: argparse.Namespace, plantings: Sequence[Planting]
) -> list[tuple[str, str, Planting]]:
    found = (
        (id, text, planting)
        for id, text, planting in texts(flags, plantings)
        if planting is not None
    )
    return list(islice(found, len(plantings)))


def peak_mb() -> float:
    """The most that this process has had in memory.

    `getrusage` would count what its parent had when it was started.
    """
    status = Path("/proc/self/status").read_text()
    return (
        next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        * 1024
        / 1e6
    )


# ---- what was found ------------------------------------------------------------------------------


def recall(
    index: Index, documents: Sequence[tuple[str, str, Planting]], whole: Tally
) -> dict[str, list[bool]]:
    """By disguise, for each planting whether its row is found in its document.

    The scan of all text must have said the same.
    """
    found: dict[str, list[bool]] = {disguise.name: [] for disguise in DISGUISES}
    reported = set(whole.to_leave_out)
    for id, text, planting in documents:
        tally = scan_batch(index, "planted", [(id, text)])
        assert bool(tally.texts_holding) == (id in reported), id
        found[planting.disguise].append(planting.row in tally.texts_holding)
        if planting.row not in tally.texts_holding and planting.disguise in PROMISED:
            say(
                f"missed ({planting.disguise}): {index.items[planting.row].id}:"
                f" {planting.text[:300]!r}"
            )
    return found


PROMISED = {disguise.name for disguise in DISGUISES if disguise.promised}


def report_recall(
    by_disguise: dict[str, list[bool]], peer: tuple[dict[str, list[bool]], float] | None
) -> None:
    rows = [
        (name, len(found), fraction(found), fraction(peer[0][name]) if peer else None)
        for name, found in by_disguise.items()
    ]
    table("fraction of planted rows found", ("disguise", "planted", "ours", "datatrove"), rows)
    for name, count, ours, theirs in rows:
        figure(
            f"scan_recall_{name.lower().replace(' ', '_')}",
            ours,
            theirs,
            "fraction of planted rows",
            None,
            planted=count,
        )


def fraction(found: Sequence[bool]) -> float | None:
    return sum(found) / len(found) if found else None


def report_speed(
    flags: argparse.Namespace, rows: int, whole: dict[str, float], tenth: dict[str, float]
) -> None:
    about = {"text_mb": round(whole["text_mb"], 1), "rows": rows, "source": str(flags.source)}
    peak = whole["peak_mb"]
    figure(
        "scan_mb_per_second",
        whole["mb_per_s"],
        None,
        "MB/s of one core",
        peak,
        of_a_tenth=round(tenth["mb_per_s"], 1),
        **about,
    )
    figure("scan_peak_mb", peak, None, "MB", peak, of_a_tenth=round(tenth["peak_mb"], 1), **about)


def report_false_rows(
    index: Index, flags: argparse.Namespace, plantings: Sequence[Planting], tally: Tally
) -> None:
    """Every row that is flagged where nothing was planted, with the words, for people to judge."""
    flagged = set(tally.to_leave_out)
    rows: dict[int, str] = {}
    for id, text, planting in texts(flags, plantings):
        if planting is None and id in flagged:
            found = scan_batch(index, "text", [(id, text)])
            for hit in found.hits:
                say(
                    f"flagged in {id}: {hit.benchmark or hit.skill} {hit.row}, {hit.rule}:"
                    f" {hit.words}"
                )
            rows |= dict.fromkeys(found.texts_holding, id)
    say(f"{len(rows)} of {len(index.items):,} rows were flagged in text where nothing was planted")
    figure(
        "scan_false_rows",
        len(rows) / len(index.items),
        None,
        "fraction of rows",
        None,
        rows=len(rows),
        of=len(index.items),
    )


# ---- the peer ------------------------------------------------------------------------------------


def peer_recall(
    rows: Sequence[Row], index: Index, documents: Sequence[tuple[str, str, Planting]]
) -> tuple[dict[str, list[bool]], float]:
    """(by disguise whether the document of each planting is flagged, MB/s of one core)."""
    from datatrove.data import Document  # pyright: ignore[reportMissingImports]
    from datatrove.pipeline import decont  # pyright: ignore[reportMissingImports]
    from datatrove.utils.text import ngrams, simplify_text  # pyright: ignore[reportMissingImports]

    class Words:
        """Words as `str.split` cuts them."""

        @staticmethod
        def word_tokenize(text: str) -> list[str]:
            return text.split()

    import datatrove.pipeline.decont.n_grams as module  # pyright: ignore[reportMissingImports]

    module.load_word_tokenizer = lambda _: Words()
    peer = decont.NGramsDecontFilter("unused")
    looked_for: dict[int, str] = {}
    for row in rows:
        words = Words.word_tokenize(simplify_text(row.text, peer.config.norm_config))
        looked_for |= {
            peer.hash_func(" ".join(run)): "rows" for run in ngrams(words, peer.config.n_grams)
        }
    peer._index_hashes = looked_for
    found: dict[str, list[bool]] = {disguise.name: [] for disguise in DISGUISES}
    started = time.process_time()
    for id, text, planting in documents:
        found[planting.disguise].append(peer.filter(Document(text=text, id=id)) is not True)
    seconds = time.process_time() - started
    text_bytes = sum(len(text.encode()) for _, text, _ in documents)
    started = time.process_time()
    scan_texts(index, ((id, text) for id, text, _ in documents))
    ours = time.process_time() - started
    figure(
        "scan_mb_per_second_beside_peer",
        text_bytes / ours / 1e6,
        text_bytes / seconds / 1e6,
        "MB/s of one core",
        peak_mb(),
        text_mb=round(text_bytes / 1e6, 1),
    )
    return found, text_bytes / seconds / 1e6


if __name__ == "__main__":
    main()
