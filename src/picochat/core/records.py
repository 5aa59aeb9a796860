"""Reads and writes JSON: a canonical form, digests of it, and strict typed records.

A digest is taken of the canonical form (sorted keys, no spaces, UTF-8, no NaN), so all machines
agree on it. A typed record refuses unknown fields.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any, BinaryIO, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from picochat.core.errors import BadInput, PicochatError, Problem, did_you_mean

READ_BLOCK_BYTES = 1 << 20


class Record(BaseModel):
    """A frozen value. Unknown fields and wrong types are errors, in code and in files."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


R = TypeVar("R", bound=Record)


def canonical_json(value: object) -> bytes:
    """A JSON value as sorted keys, no spaces, UTF-8. Raises ValueError for NaN and infinity."""
    return json.dumps(
        to_jsonable(value),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    ).encode()


def pretty_json(value: object) -> bytes:
    """A JSON value for people: sorted keys, indented, with a newline at the end."""
    return (
        json.dumps(
            to_jsonable(value), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False
        )
        + "\n"
    ).encode()


def to_jsonable(value: object) -> Any:
    """The value with records, tuples and paths replaced by dicts, lists and strings."""
    if isinstance(value, BaseModel):
        return to_jsonable(value.model_dump(mode="json"))
    if isinstance(value, dict):
        return {
            str(key): to_jsonable(item) for key, item in cast("dict[object, object]", value).items()
        }
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in cast("list[object]", value)]
    if isinstance(value, Path):
        return str(value)
    return value


def finite_or_none(number: float | None) -> float | None:
    """The number if it is finite, else None, which means unmeasured: JSON has no NaN."""
    return number if number is not None and math.isfinite(number) else None


def digest_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_json(value: object) -> str:
    return digest_bytes(canonical_json(value))


def digest_file(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(READ_BLOCK_BYTES):
            hasher.update(block)
    return hasher.hexdigest()


@contextmanager
def naming_disk(folder: Path) -> Generator[None, None, None]:
    """Put `folder` into an error of a full disk that names no file.

    The system names the file where one is opened, but not where bytes are written to it.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:
            error.filename = str(folder)
        raise


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file by temporary name, sync and rename: a kill leaves the old file or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with naming_disk(path.parent), os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp gives 0600, which other users cannot read
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def write_json(path: Path, value: object) -> None:
    write_atomic(path, pretty_json(value))


def require_writable(path: Path) -> None:
    """Raise BadInput if a file cannot be written at `path`. Writes nothing.

    Call it before long work that writes its result at the end.
    """
    folder = path.parent
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if path.is_dir():
        raise BadInput(
            f"{path} is a folder, and a file is to be written there",
            fix="name a file in it, or move the folder away",
        )
    if not folder.is_dir():
        raise BadInput(
            f"{path} cannot be written: {folder} is not a folder", fix="choose another path"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadInput(
            f"{path} cannot be written: no permission in {folder}",
            fix="choose another folder, or change its mode",
        )


def open_input(path: Path, what: str) -> BinaryIO:
    """Open a file for reading. Raises BadInput that says why it cannot be read."""
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise BadInput(f"{what} {path} does not exist") from None
    except IsADirectoryError:
        raise BadInput(f"{what} {path} is a folder, not a file") from None
    except PermissionError:
        raise BadInput(
            f"{what} {path} may not be read", fix=f"chmod u+r {quote(str(path))}"
        ) from None


def read_json(path: Path, what: str = "file", *, fix: str | None = None) -> Any:
    """The JSON value of a file. Raises BadInput if it is absent or not JSON, with the position."""
    with open_input(path, what) as stream:
        data = stream.read()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{what} {path} is not UTF-8 text (byte {error.start})", fix=fix) from None
    try:
        return load_json(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise BadInput(
            f"{what} {path} is not valid JSON: {error.msg} at {where}", fix=fix
        ) from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{what} {path} is not usable JSON: {error}", fix=fix) from None


def load_json(text: str) -> Any:
    """The value of a JSON text.

    Stricter than `json.loads`: raises ValueError also for a repeated key and for NaN, because
    readers of JSON disagree on them. As there, a number of thousands of digits raises ValueError,
    and thousands of brackets raise RecursionError.
    """
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice in one"
            " object"
        )
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def parse_record(
    model: type[R],
    value: object,
    where: str,
    *,
    fix: str | None = None,
    error: type[PicochatError] = BadInput,
) -> R:
    """A JSON value as a record. Raises `error`, which lists every wrong field.

    where: the name of the value in messages.
    """
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:
        raise error(f"{where} holds a number that is not finite", fix=fix) from None
    try:
        return model.model_validate_json(text)
    except ValidationError as invalid:
        problems = [Problem(_describe(item, model)) for item in invalid.errors()]
        raise error(f"{where} is not usable", problems=problems, fix=fix) from None


def read_record(model: type[R], path: Path, what: str = "file", *, fix: str | None = None) -> R:
    return parse_record(model, read_json(path, what, fix=fix), f"{what} {path}", fix=fix)


def _describe(item: Any, model: type[BaseModel]) -> str:
    location = ".".join(str(part) for part in item["loc"]) or "(whole value)"
    if item["type"] == "extra_forbidden":
        return f"{location}: unknown key{did_you_mean(str(item['loc'][-1]), _known_keys(model))}"
    if item["type"] == "missing":
        return f"{location}: is missing"
    found = json.dumps(item["input"], ensure_ascii=False, default=str)
    return f"{location}: {item['msg'][0].lower()}{item['msg'][1:]}, found {found[:80]}"


def _known_keys(model: type[BaseModel]) -> set[str]:
    """Names and aliases of the fields of a record and of the records inside it."""
    known: set[str] = set()
    for name, field in model.model_fields.items():
        known.add(name)
        if field.alias:
            known.add(field.alias)
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel) and inner is not model:
                known |= _known_keys(inner)
    return known


def write_jsonl(path: Path, rows: Iterable[object]) -> int:
    """Write one canonical JSON object per line, atomically. Returns the number of rows."""
    lines = [canonical_json(row) + b"\n" for row in rows]
    write_atomic(path, b"".join(lines))
    return len(lines)


def read_jsonl(path: Path, what: str = "file") -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) of each line that is not empty. Raises BadInput."""
    with open_input(path, what) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                value = load_json(line.decode("utf-8"))
            except UnicodeDecodeError:
                raise BadInput(f"{what} {path}, line {number}: not UTF-8 text") from None
            except json.JSONDecodeError as error:
                raise BadInput(
                    f"{what} {path}, line {number}: not valid JSON ({error.msg})"
                ) from None
            except (ValueError, RecursionError) as error:
                raise BadInput(f"{what} {path}, line {number}: not usable JSON ({error})") from None
            if not isinstance(value, dict):
                raise BadInput(
                    f"{what} {path}, line {number}: a JSON object is needed, found"
                    f" {type(value).__name__}"
                )
            yield number, value


# ---- schemas -------------------------------------------------------------------------------------


def json_schema(model: type[Record], title: str) -> dict[str, Any]:
    """The JSON Schema of a record."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "made by `make docs`; do not edit",
        **model.model_json_schema(),
        "title": title,
    }


def schema_text(schema: dict[str, Any]) -> str:
    """A schema as it is written to a file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
