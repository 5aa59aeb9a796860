"""Writes reproducible archives, and reads archives of others safely.

The same members give the same bytes, since an archive states nothing but its content.

Writing: sorted names, fixed times and owners, gzip without name or time. Files that do not compress
(weights, tokens) are stored in gzip members of their own, since packing 430 MB of float32 costs
half a minute and saves 7%.

Reading: a stream, one pass, every member hashed. Nothing is written outside the folder, and nothing
that is not needed. Links, devices, absolute paths, `..`, doubled names (in any case of letters),
control characters, sizes beyond the limits, and anything behind the end are refused.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from picochat.core.errors import BadInput, HostProblem
from picochat.core.machine import environment_count
from picochat.core.progress import Progress
from picochat.core.publish import FileDigest, is_junk
from picochat.core.records import READ_BLOCK_BYTES, digest_bytes
from picochat.present.printable import printable_line
from picochat.present.values import byte_quantity

PACKED_LEVEL, STORED_LEVEL = 6, 0
STORED_SUFFIXES = (".safetensors", ".bin")
LARGEST_FILES = 10_000  # folders that an archive lists included; a run of 107M parameters has 200
LARGEST_HEADER_BYTES = 1 << 20
LARGEST_BYTES = 64 << 30  # a 1B model's bundle is 10 GB
LARGEST_RATIO, ALWAYS_BYTES = 100, 1 << 30
"""What a bundle may unpack to: so many times its own size, or a gigabyte.

Evidence packs about 10 to 1, a bomb 1000 to 1.
"""

LONGEST_TAIL_BYTES = 1 << 20
"""Of zeros, with which tar ends an archive: two blocks, filled up to a record of 10 KB or more."""
GZIP_MAGIC = b"\x1f\x8b"
HEADER_TYPES = (  # what stands before the header of a file and says more of it
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


@dataclass(frozen=True)
class Member:
    """One file of an archive, from disk or from memory.

    It has the digest that the file had when it was chosen.
    """

    name: str
    source: Path | bytes
    digest: FileDigest

    @staticmethod
    def of_bytes(name: str, data: bytes) -> Member:
        return Member(name, data, FileDigest(sha256=digest_bytes(data), bytes=len(data)))

    def open(self) -> IO[bytes]:
        return io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")


class _GzipMembers(io.RawIOBase):
    """A file of gzip members: `level` starts a new one.

    `tell` counts unpacked bytes, which is what a tar writer asks for.
    """

    def __init__(self, raw: IO[bytes], epoch: int) -> None:
        super().__init__()
        self._raw, self._epoch = raw, epoch
        self._current: gzip.GzipFile | None = None
        self._level: int | None = None
        self._written = 0

    def level(self, level: int) -> None:
        if level != self._level:
            self.finish()
            # A name or the present time would enter the header, and so the bytes of the archive.
            self._current = gzip.GzipFile("", "wb", level, self._raw, self._epoch)
            self._level = level

    def finish(self) -> None:
        if self._current is not None:
            self._current.close()
        self._current, self._level = None, None

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, data: object) -> int:
        assert self._current is not None, "level() comes first"
        count = self._current.write(cast("bytes", data))
        self._written += count
        return count


def write_archive(out: Path, folder: str, members: Sequence[Member]) -> str:
    """Write the members below `folder` as a .tgz and return its sha256.

    The archive appears whole or not at all.

    Raises HostProblem where a file changed since its digest was taken.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    epoch = environment_count("SOURCE_DATE_EPOCH", 0)
    handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as raw:
            _write_members(raw, folder, members, epoch)
            raw.flush()
            os.fsync(raw.fileno())
        # mkstemp makes a file that its owner alone can read, but a bundle is made to be handed on.
        os.chmod(temporary, 0o644)
        sha256 = _digest(temporary)
        os.replace(temporary, out)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return sha256


def _write_members(raw: IO[bytes], folder: str, members: Sequence[Member], epoch: int) -> None:
    total = sum(member.digest.bytes for member in members)
    packed = _GzipMembers(raw, epoch)
    packed.level(PACKED_LEVEL)
    with (
        Progress("bundle", total, "B") as progress,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for member in members:
            packed.level(STORED_LEVEL if member.name.endswith(STORED_SUFFIXES) else PACKED_LEVEL)
            info = tarfile.TarInfo(f"{folder}/{member.name}")
            info.size, info.mtime, info.mode = member.digest.bytes, epoch, 0o644
            with member.open() as stream:
                reader = _HashingReader(stream)
                archive.addfile(info, cast("IO[bytes]", reader))
                # A log may grow while it is read, so one byte more than the stated size is a change
                # too.
                if reader.read(1) or reader.sha256.hexdigest() != member.digest.sha256:
                    raise HostProblem(
                        f"{member.source} changed while it was bundled",
                        fix="wait until the run has ended",
                    )
            progress.advance(member.digest.bytes, note=member.name)
        packed.level(PACKED_LEVEL)
    packed.finish()


class _HashingReader:
    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.sha256.update(data)
        return data


def _digest(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(READ_BLOCK_BYTES):
            hasher.update(block)
    return hasher.hexdigest()


@dataclass(frozen=True)
class Opened:
    """An archive that was read: the folder with its files, and the digest of every member.

    Digests are listed by the member's name in the folder.
    """

    root: Path
    digests: dict[str, FileDigest]


def read_archive(
    path: Path,
    into: Path,
    *,
    skip: tuple[str, ...] = STORED_SUFFIXES,
    limit_bytes: int = LARGEST_BYTES,
    always_bytes: int = ALWAYS_BYTES,
) -> Opened:
    """Unpack a .tgz, or a .tar, of one folder below `into`, hashing all of it.

    Files with a `skip` suffix are hashed, not written. What a desktop adds is passed over.

    Raises BadInput for anything that is not a plain archive of plain files in one folder, or that
    is larger than the limits.
    """
    try:
        limit_bytes = min(limit_bytes, max(always_bytes, LARGEST_RATIO * path.stat().st_size))
        with _opened(path) as unpacked:
            stream = _LimitedReader(cast("IO[bytes]", unpacked), limit_bytes, path)
            digests, end = _read_stream(path, stream, into, skip, limit_bytes)
            # Read to the end, because only there gzip compares its checksum.
            tail = stream.since(end) + stream.read(LONGEST_TAIL_BYTES)
            if len(tail) >= LONGEST_TAIL_BYTES or any(tail):
                raise BadInput(
                    f"{path} goes on after its last file", fix="fetch or make the bundle again"
                )
            return Opened(into, digests)
    except FileNotFoundError:
        raise BadInput(f"bundle {path} does not exist") from None
    # RecursionError: tarfile calls itself for each header that stands before a file.
    except (
        tarfile.TarError,
        EOFError,
        RecursionError,
        zlib.error,
        gzip.BadGzipFile,
        ValueError,
    ) as error:
        raise BadInput(
            f"{path} is not a whole .tgz or .tar archive ({printable_line(str(error))})",
            fix="fetch or make the bundle again",
        ) from None


def _opened(path: Path) -> IO[bytes]:
    """The tar stream of a .tgz, or of a .tar: some browsers unpack gzip by themselves."""
    stream = path.open("rb")
    if stream.peek(2)[:2] != GZIP_MAGIC:
        return stream
    stream.close()
    return cast("IO[bytes]", gzip.open(path, "rb"))


class _LimitedReader:
    """The bytes of a stream up to a limit, headers included.

    A header may state any length, and `tarfile` believes it.
    """

    def __init__(self, stream: IO[bytes], limit_bytes: int, path: Path) -> None:
        self._stream, self._left, self._path, self._limit = (
            stream,
            limit_bytes + LONGEST_TAIL_BYTES,
            path,
            limit_bytes,
        )
        self._position, self._newest = 0, (b"", b"")

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise BadInput(f"{self._path} unpacks to more than {byte_quantity(self._limit)}")
        self._position, self._newest = self._position + len(data), (self._newest[1], data)
        return data

    def since(self, position: int) -> bytes:
        """What was read from `position` on, which lies within the last two reads."""
        newest = b"".join(self._newest)
        count = self._position - position
        return newest[len(newest) - count :] if count > 0 else b""


class _Header(tarfile.TarInfo):
    """A header as tarfile reads it, if it is short and of a file that is stored whole.

    tarfile reads long names, extended headers and maps of sparse files into memory, however long
    they say that they are. It has no limit for them, so this overrides where it reads them.
    """

    def _proc_member(self, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in HEADER_TYPES and self.size > LARGEST_HEADER_BYTES:
            raise BadInput(f"a header of the archive has {byte_quantity(self.size)}")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise BadInput("the archive holds a sparse file")
        return super()._proc_member(tarfile_)  # type: ignore[misc]

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise BadInput("the archive holds a sparse file")


def _read_stream(
    path: Path, stream: _LimitedReader, into: Path, skip: tuple[str, ...], limit_bytes: int
) -> tuple[dict[str, FileDigest], int]:
    """(digest of each file, where the tar stream ends)."""
    # "r|" never seeks: every byte passes the limit once, and hashing needs no second pass.
    with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", tarinfo=_Header) as archive:
        digests = _read_members(path, archive, into, skip, limit_bytes)
        return digests, archive.offset


def _read_members(
    path: Path, archive: tarfile.TarFile, into: Path, skip: tuple[str, ...], limit_bytes: int
) -> dict[str, FileDigest]:
    digests: dict[str, FileDigest] = {}
    # Names in one case: on a disk that ignores case, `A` and `a` are the same file.
    files, folders = set[str](), set[str]()
    folder: str | None = None
    left = limit_bytes
    with Progress("reading the bundle", None, "B") as progress:
        for number, info in enumerate(iter(archive.next, None)):
            cast("Any", archive).members.clear()  # else tarfile keeps every header
            if number >= LARGEST_FILES:
                raise BadInput(f"{path} holds more than {LARGEST_FILES:,} files")
            if info.isdir():
                # Archives packed by hand list folders; here a folder is made for the files in it.
                _check_folder_name(path, info)
                continue
            if info.isreg() and is_junk(PurePosixPath(info.name)):
                continue
            top, name = _safe_name(path, info)
            if folder not in (None, top) or name.casefold() in files:
                raise BadInput(
                    f"{path}: {info.name!r} is outside the bundle's folder or stands there twice"
                )
            parents = {parent.as_posix().casefold() for parent in PurePosixPath(name).parents}
            if parents & files or name.casefold() in folders:
                raise BadInput(f"{path}: {info.name!r} is a folder as well as a file")
            files.add(name.casefold())
            folders |= parents
            folder, left = top, left - info.size
            if left < 0:
                raise BadInput(f"{path} unpacks to more than {byte_quantity(limit_bytes)}")
            stream = archive.extractfile(info)
            assert stream is not None, "plain files have content"
            digests[name] = _copy(stream, None if name.endswith(skip) else into / name)
            progress.advance(info.size)
    if folder is None:
        raise BadInput(f"{path} is an empty archive", fix="fetch or make the bundle again")
    return digests


def _check_folder_name(path: Path, info: tarfile.TarInfo) -> None:
    parts = PurePosixPath(info.name).parts
    if not is_plain_name(info.name) or not parts or {"/", ".."} & set(parts):
        raise BadInput(f"{path}: {info.name!r} is not a safe path inside one folder")


def _safe_name(path: Path, info: tarfile.TarInfo) -> tuple[str, str]:
    """(top folder, name below it) of a plain file; BadInput for every other kind of member."""
    # A sparse file of gigabytes takes no bytes in an archive, so the ratio would not stop it.
    if not info.isreg() or info.issparse():
        raise BadInput(f"{path}: {info.name!r} is not a plain file")
    folder, _, name = info.name.partition("/")
    parts = PurePosixPath(name).parts
    unsafe = not is_plain_name(info.name) or ".." in (folder, *parts) or folder in ("", ".")
    if unsafe or not name or name.startswith("/") or "/".join(parts) != name:
        raise BadInput(f"{path}: {info.name!r} is not a safe path inside one folder")
    return folder, name


def is_plain_name(name: str) -> bool:
    """Whether a name can be listed and printed safely.

    Such a name has no control character, no line end, nothing invisible, and no backslash.
    """
    return "\\" not in name and printable_line(name) == name


def _copy(stream: IO[bytes], target: Path | None) -> FileDigest:
    hasher, size = hashlib.sha256(), 0
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") if target else open(os.devnull, "wb") as output:
        while block := stream.read(READ_BLOCK_BYTES):
            hasher.update(block)
            size += len(block)
            output.write(block)
    return FileDigest(sha256=hasher.hexdigest(), bytes=size)
