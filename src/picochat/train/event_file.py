"""The event file that TensorBoard reads: scalars by name and step, appended to one file.

The format is TensorFlow's: records of (length, its checksum, bytes, their checksum), each the
protocol-buffer message Event with a Summary of simple values. So little of it is needed that no
package is required; the usual writers also put the host's name into the file, and this one names no
machine. Each row is flushed whole, so a kill loses at most the row being written. Writes scalars
only; reads only where the last whole record ends.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

POLYNOMIAL = 0x82F63B78
"""CRC-32C (Castagnoli), bits reversed."""
MASK_DELTA = 0xA282EAD8
"""Added to a rotated checksum, as in the format: checksums of checksums would be weak otherwise."""
FILE_VERSION = b"brain.Event:2"
HEADER_BYTES, FOOTER_BYTES = 12, 4


def _crc_row(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (POLYNOMIAL if byte & 1 else 0)
    return byte


CRC_TABLE = tuple(_crc_row(byte) for byte in range(256))


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


class EventFile:
    """Appends scalars to `path`, after cutting off a record that a kill left torn at its end.

    A reader stops at a torn record and would miss all that follows.
    """

    def __init__(self, path: Path, now: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("ab")
        self._stream.truncate(_whole_bytes(path))
        if not path.stat().st_size:
            self._append(_double(1, now) + _bytes(3, FILE_VERSION))

    def write(self, step: int, values: Mapping[str, float], now: float) -> None:
        """One event of all `values`. now: seconds since 1970."""
        scalars = b"".join(
            _bytes(1, _bytes(1, name.encode()) + _float(2, value)) for name, value in values.items()
        )
        self._append(_double(1, now) + _varint(2, step) + _bytes(5, scalars))

    def close(self) -> None:
        self._stream.close()

    def _append(self, event: bytes) -> None:
        length = struct.pack("<Q", len(event))
        self._stream.write(length + _checksum(length) + event + _checksum(event))
        self._stream.flush()


def _whole_bytes(path: Path) -> int:
    """Where the last whole record ends, by the lengths alone: only its end can be torn."""
    size, end = path.stat().st_size, 0
    with path.open("rb") as stream:
        while len(header := stream.read(HEADER_BYTES)) == HEADER_BYTES:
            after = end + HEADER_BYTES + struct.unpack("<Q", header[:8])[0] + FOOTER_BYTES
            if after > size:
                break
            end = after
            stream.seek(end)
    return end


def _checksum(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF)


# ---- protocol-buffer fields: a key of number and kind, then the value ----------------------------


def _number(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the top bit says that more follow."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _varint(field: int, value: int) -> bytes:
    return _number(field << 3) + _number(value)


def _double(field: int, value: float) -> bytes:
    return _number(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _number(field << 3 | 2) + _number(len(value)) + value


def _float(field: int, value: float) -> bytes:
    return _number(field << 3 | 5) + struct.pack("<f", value)
