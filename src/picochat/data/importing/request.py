"""What an import is asked for, and where it writes. Reads and writes nothing itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from picochat.core.errors import Problem, WrongUsage
from picochat.core.records import Record, digest_json
from picochat.data.importing.origin import is_local

IMPORT_VERSION = 2  # raise it when the same request would give other documents


class ImportRequest(Record):
    """What to import and where to put it. `max_rows` counts rows inspected, not rows kept."""

    dataset: str
    out: str
    config: str | None = None
    split: str = "train"
    text_column: str = "text"
    documents_dir: str | None = None
    report: str | None = None
    max_rows: int = 1000
    min_chars: int = 20
    document_shard_rows: int = 1000
    revision: str | None = None
    sample: Literal["spread", "head"] = "spread"
    seed: int = 42

    def digest(self) -> str:
        """Equal for requests that ask for the same documents, wherever they are put and wherever a
        local source lies.
        """
        wanted = self.model_dump(mode="json", exclude={"out", "documents_dir", "report"})
        if is_local(self.dataset):
            wanted["dataset"] = Path(self.dataset).expanduser().resolve().name
        return digest_json({"version": IMPORT_VERSION, **wanted})


@dataclass(frozen=True)
class ImportPlaces:
    """Where one import writes. Documents and report lie beside `--out` unless told otherwise."""

    out: Path
    documents: Path
    report: Path

    @property
    def work(self) -> Path:
        return self.documents.with_name(f"{self.documents.name}.work")

    @property
    def observed(self) -> Path:
        return self.report.with_name(f"{self.report.stem}.observed.json")


def import_places(request: ImportRequest) -> ImportPlaces:
    out = Path(request.out).expanduser()
    documents = (
        Path(request.documents_dir).expanduser()
        if request.documents_dir
        else out.parent / "documents"
    )
    report = (
        Path(request.report).expanduser()
        if request.report
        else out.parent / "hf_import_report.json"
    )
    return ImportPlaces(out, documents, report)


def require_sound(request: ImportRequest) -> None:
    """Raises WrongUsage with everything in which the request contradicts itself."""
    places = import_places(request)
    problems = [
        Problem(f"{flag} must be at least {least}, found {value}")
        for flag, value, least in (
            ("--max-rows", request.max_rows, 1),
            ("--min-chars", request.min_chars, 0),
            ("--document-shard-rows", request.document_shard_rows, 1),
        )
        if value < least
    ]
    if len({places.out, places.documents, places.report}) < 3:
        problems.append(
            Problem("--out, --documents-dir and --report must be three different paths")
        )
    if places.out.is_dir() or request.out.endswith("/"):
        problems.append(Problem(f"--out {places.out} is a folder; it names a text file"))
    if places.documents.is_file():
        problems.append(Problem(f"--documents-dir {places.documents} is a file; it names a folder"))
    if problems:
        raise WrongUsage("the import cannot be started", problems=problems)
