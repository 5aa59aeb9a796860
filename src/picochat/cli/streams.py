"""Standard output and error that outlast their readers and take any text.

In `picochat ... 2>&1 | tee log`, Ctrl-C ends tee first: what picochat then says has no reader, and
an error of writing must not end the work that is just being saved. The same holds for `| head -1`
and for a terminal that was closed. A full disk under a log is still an error, because its reader is
still there.
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
    """A writer to the file descriptor `number` that survives the end of its reader.

    What is written after the reader is gone is dropped.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self._gone = False

    def write(self, data: ReadableBuffer, /) -> int:
        if not self._gone:
            try:
                return super().write(data) or 0
            except OSError as error:
                self._gone = True  # a full disk is said once, and not again when the process ends
                if error.errno not in READER_GONE:
                    raise
        return memoryview(data).nbytes


def outlast_readers() -> None:
    """Put such streams in the place of sys.stdout and sys.stderr.

    What their encoding lacks is written as an escape.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):  # None where the caller closed it
            stream.flush()
            lines = stream.line_buffering or stream.write_through
            raw = io.BufferedWriter(Outlasting(stream.fileno()))
            setattr(
                sys,
                name,
                io.TextIOWrapper(raw, stream.encoding, "backslashreplace", line_buffering=lines),
            )
