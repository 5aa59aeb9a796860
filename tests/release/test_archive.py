import gzip
import io
import os
import subprocess
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from picochat.core.errors import BadInput, HostProblem
from picochat.release.archive import Member, read_archive, write_archive
from picochat.release.integrity import digest_of

FILES = {
    "a.json": b'{"a": 1}\n',
    "deep/er/b.txt": b"text\n" * 1_000,
    "model.safetensors": bytes(range(256)) * 500,
}


def members(root: Path) -> list[Member]:
    for name, data in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return [Member(name, root / name, digest_of(root / name)) for name in sorted(FILES)]


def archive_of(path: Path, *infos: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, data in infos:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def plain_file(name: str, data: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), data


def folder(name: str) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info, b""


def test_what_is_written_is_read_back_with_its_digests(tmp_path: Path) -> None:
    chosen = members(tmp_path / "in")
    write_archive(tmp_path / "x.tgz", "run", chosen)
    opened = read_archive(tmp_path / "x.tgz", tmp_path / "out")
    assert opened.digests == {member.name: member.digest for member in chosen}
    assert (tmp_path / "out" / "deep/er/b.txt").read_bytes() == FILES["deep/er/b.txt"]


def test_weights_are_hashed_but_not_written(tmp_path: Path) -> None:
    write_archive(tmp_path / "x.tgz", "run", members(tmp_path / "in"))
    opened = read_archive(tmp_path / "x.tgz", tmp_path / "out")
    assert "model.safetensors" in opened.digests
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_the_same_members_give_the_same_bytes_whatever_their_times(tmp_path: Path) -> None:
    first = write_archive(tmp_path / "x.tgz", "run", members(tmp_path / "in"))
    os.utime(tmp_path / "in" / "a.json", (1, 1))
    os.chmod(tmp_path / "in" / "a.json", 0o600)
    assert write_archive(tmp_path / "y.tgz", "run", members(tmp_path / "in")) == first
    assert (tmp_path / "x.tgz").read_bytes() == (tmp_path / "y.tgz").read_bytes()


def test_plain_tar_reads_it_with_neutral_owners_and_times(tmp_path: Path) -> None:
    write_archive(tmp_path / "x.tgz", "run", members(tmp_path / "in"))
    listing = subprocess.run(
        ["tar", "-tvzf", str(tmp_path / "x.tgz")], capture_output=True, text=True, check=True
    ).stdout
    assert len(listing.splitlines()) == len(FILES)
    assert all(
        line.startswith("-rw-r--r-- 0/0") and "1970-01-01" in line for line in listing.splitlines()
    )


def test_a_file_that_changes_while_it_is_bundled_leaves_no_archive(tmp_path: Path) -> None:
    chosen = members(tmp_path / "in")
    (tmp_path / "in" / "a.json").write_bytes(b'{"a": 2}\n')
    with pytest.raises(HostProblem, match="changed while") as caught:
        write_archive(tmp_path / "x.tgz", "run", chosen)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert caught.value.fix == "wait until the run has ended"
    write_archive(tmp_path / "x.tgz", "run", members(tmp_path / "in"))


LINK = tarfile.TarInfo("run/link")
LINK.type, LINK.linkname = tarfile.SYMTYPE, "/etc/passwd"
HARD = tarfile.TarInfo("run/hard")
HARD.type, HARD.linkname = tarfile.LNKTYPE, "../outside"
DEVICE = tarfile.TarInfo("run/device")
DEVICE.type = tarfile.CHRTYPE


@pytest.mark.parametrize(
    "hostile",
    [
        [plain_file("run/../outside")],
        [plain_file("/absolute/file")],
        [plain_file("run//double")],
        [plain_file("run/./dot")],
        [plain_file("top-level-file")],
        [plain_file("../run/file")],
        [plain_file("run\\..\\file")],
        [plain_file("run/a"), plain_file("other/a")],
        [plain_file("run/a"), plain_file("run/a")],
        [plain_file("run/a"), plain_file("run/A")],
        [plain_file("run/a"), plain_file("run/a/b")],
        [plain_file("run/a/a"), plain_file("run/A")],
        [plain_file("run/two\nlines")],
        [plain_file("run/\x1b[2Jcleared")],
        [plain_file("run/\u202egpj.exe")],
        [plain_file("run/a"), folder("../outside")],
        [plain_file("run/a"), folder("/outside")],
        [plain_file("run/a"), folder("run/two\nlines")],
        [(LINK, b"")],
        [(HARD, b"")],
        [(DEVICE, b"")],
        [],
    ],
)
def test_hostile_archives_are_refused_and_write_nothing_outside(
    tmp_path: Path, hostile: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    path = archive_of(tmp_path / "bad.tgz", *hostile)
    with pytest.raises(BadInput):
        read_archive(path, tmp_path / "into" / "deep")
    assert {item.name for item in tmp_path.iterdir()} <= {"bad.tgz", "into"}
    assert {item.name for item in (tmp_path / "into").rglob("*") if item.is_file()} <= {"a"}


def test_folders_of_an_archive_packed_by_hand_are_passed_over(tmp_path: Path) -> None:
    members(tmp_path / "run")
    subprocess.run(["tar", "-czf", str(tmp_path / "x.tgz"), "-C", str(tmp_path), "run"], check=True)
    assert set(read_archive(tmp_path / "x.tgz", tmp_path / "out").digests) == set(FILES)


def test_a_plain_tar_is_read_and_what_a_desktop_adds_is_passed_over(tmp_path: Path) -> None:
    """Some browsers unpack gzip by themselves; macOS adds files of its own to what it packs."""
    members(tmp_path / "run")
    for name in (".DS_Store", "._a.json", "deep/Thumbs.db"):
        (tmp_path / "run" / name).write_bytes(b"x")
    (tmp_path / "._run").write_bytes(b"x")
    command = ["tar", "-cf", str(tmp_path / "x.tar"), "-C", str(tmp_path), "._run", "run"]
    subprocess.run(command, check=True)
    assert set(read_archive(tmp_path / "x.tar", tmp_path / "out").digests) == set(FILES)
    (tmp_path / "cut.tar").write_bytes((tmp_path / "x.tar").read_bytes()[:1000])
    with pytest.raises(BadInput, match=r"not a whole \.tgz or \.tar archive"):
        read_archive(tmp_path / "cut.tar", tmp_path / "out2")


def test_an_archive_larger_than_the_limit_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "big.tgz", plain_file("run/big", bytes(5_000_000)))
    with pytest.raises(BadInput, match="unpacks to more"):
        read_archive(path, tmp_path / "into", limit_bytes=1_000_000)
    assert not (tmp_path / "into" / "big").exists()


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "tail"])
def test_damaged_archives_are_named_and_not_a_traceback(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.tgz"
    write_archive(path, "run", members(tmp_path / "in"))
    whole = path.read_bytes()
    bytes_of = {
        "empty": b"",
        "text": b"no archive",
        "cut": whole[: len(whole) // 2],
        "tail": whole[:-6],
    }
    path.write_bytes(bytes_of[damage])
    with pytest.raises(BadInput):
        read_archive(path, tmp_path / "out")


def test_bytes_after_the_end_are_not_read_without_limit(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "x.tgz", plain_file("run/a"))
    path.write_bytes(path.read_bytes() + gzip.compress(bytes(3_000_000)))
    with pytest.raises(BadInput, match="goes on"):
        read_archive(path, tmp_path / "out")


def test_an_archive_of_a_few_bytes_cannot_fill_the_disk(tmp_path: Path) -> None:
    """A sparse file states gigabytes and holds none; zeros pack a thousand to one."""
    sparse = tarfile.TarInfo("run/sparse")
    sparse.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": "0,1",
        "GNU.sparse.size": str(1 << 40),
    }
    with pytest.raises(BadInput):
        read_archive(archive_of(tmp_path / "sparse.tgz", (sparse, b"x")), tmp_path / "into")
    bomb = archive_of(tmp_path / "bomb.tgz", plain_file("run/zeros", bytes(20_000_000)))
    with pytest.raises(BadInput, match="unpacks to more"):
        read_archive(bomb, tmp_path / "into", always_bytes=1_000_000)
    assert not list((tmp_path / "into").rglob("zeros"))


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_long_header_is_refused_before_it_is_read(tmp_path: Path, kind: bytes) -> None:
    """A few megabytes of zeros in an archive of four kilobytes; tarfile keeps what it reads."""
    header = tarfile.TarInfo("header")
    header.type = kind
    path = archive_of(tmp_path / "long.tgz", (header, bytes(4_000_000)), plain_file("run/a"))
    tracemalloc.start()
    with pytest.raises(BadInput, match="a header of the archive has 4"):
        read_archive(path, tmp_path / "into")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2_000_000


def test_headers_without_a_file_are_refused(tmp_path: Path) -> None:
    """tarfile calls itself for each of them."""
    header = tarfile.TarInfo("header")
    header.type = tarfile.XHDTYPE
    path = archive_of(tmp_path / "many.tgz", *[(header, b"9 a=b\n\0\0")] * 3_000)
    with pytest.raises(BadInput, match="not a whole"):
        read_archive(path, tmp_path / "into")


def test_the_map_of_a_sparse_file_is_not_read(tmp_path: Path) -> None:
    sparse = tarfile.TarInfo("run/sparse")
    sparse.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "run/sparse",
        "GNU.sparse.realsize": "9",
    }
    numbers = b"400000\n" + b"1\n" * 800_000
    with pytest.raises(BadInput, match="sparse"):
        read_archive(archive_of(tmp_path / "x.tgz", (sparse, numbers)), tmp_path / "into")
    old = tarfile.TarInfo("run/sparse")
    old.type = tarfile.GNUTYPE_SPARSE
    with pytest.raises(BadInput, match="sparse"):
        read_archive(archive_of(tmp_path / "old.tgz", (old, b"x")), tmp_path / "into")


@pytest.mark.parametrize("gap", [0, 1_000, 20_000])
def test_what_stands_behind_the_end_is_refused(tmp_path: Path, gap: int) -> None:
    """A second archive behind the end, within the last record, at its end, or later."""
    whole = tmp_path / "x.tar"
    with tarfile.open(whole, "w") as archive:
        for info, data in [plain_file("run/a")]:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        end = archive.offset
    hidden = whole.read_bytes()[:1024]
    whole.write_bytes(whole.read_bytes()[: end + 1024] + bytes(gap) + hidden)
    with pytest.raises(BadInput, match="goes on after its last file"):
        read_archive(whole, tmp_path / "into")


def test_a_header_that_is_none_does_not_end_the_archive_silently(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for info, data in [plain_file("run/a"), plain_file("run/b")]:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    data = bytearray(path.read_bytes())
    data[1024:1034] = b"no header!"
    path.write_bytes(data)
    with pytest.raises(BadInput, match="goes on after its last file"):
        read_archive(path, tmp_path / "into")
