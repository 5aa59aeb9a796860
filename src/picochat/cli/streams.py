"""Standard output and error that survive the end of their reader and accept any text.

In `picochat ... 2>&1 | tee log`, Ctrl-C ends tee first. The next message of picochat then has no
reader, and the failed write must not stop the work that is being saved. The same happens with
`| head -1` and with a closed terminal. A full disk under a log is still an error.
"""

from __future__ import annotations

import errno
import io
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

READER_GONE = (errno.EPIPE, errno.EIO)


class Outlasting(io.FileIO):
    """A writer to a file descriptor that drops its data when the reader is gone."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self._gone = False

    def write(self, data: ReadableBuffer, /) -> int:
        if not self._gone:
            try:
                return super().write(data) or 0
            except OSError as error:
                # For a full disk too: Python flushes at exit, and would report it a second time.
                self._gone = True
                if error.errno not in READER_GONE:
                    raise
        return memoryview(data).nbytes


def outlast_readers() -> None:
    """Replace sys.stdout and sys.stderr with streams that survive the end of their reader.

    A character that their encoding does not have is written as a backslash escape.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):  # None if the caller closed it
            continue
        stream.flush()
        lines = stream.line_buffering or stream.write_through
        raw = io.BufferedWriter(Outlasting(stream.fileno()))
        wrapper = io.TextIOWrapper(raw, stream.encoding, "backslashreplace", line_buffering=lines)
        setattr(sys, name, wrapper)
