"""What `roads` prints never stops what it does: a reader that has gone, a full disk, a closed stream."""

import errno
import io
import os
import sys


class Stream(io.FileIO):
    """A standard stream that can always be written to; ``fault`` is what became of it, and the rest is dropped.

    Like make, and unlike a filter, `roads run | head -1` is not here to be read: its results are files.
    """

    fault: OSError | None = None

    def write(self, data) -> int:
        """Write what the stream takes; all of it once that has failed."""
        if self.fault is None:
            try:
                return super().write(data)
            except OSError as error:
                self.fault = error
        return len(data)


def guard() -> None:
    """Put such streams in place of standard output and standard error; one that is closed leads nowhere.

    Characters that the stream's encoding lacks are escaped.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # the next file that is opened would take its place, and be printed into
            os.open(os.devnull, os.O_RDWR)
    for number, name in ((1, "stdout"), (2, "stderr")):
        encoding = getattr(getattr(sys, name), "encoding", None) or "utf-8"
        raw = io.BufferedWriter(Stream(number, "w", closefd=False))
        stream = io.TextIOWrapper(raw, encoding, "backslashreplace", line_buffering=number == 2 or os.isatty(number))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def leave(code: int) -> None:
    """End this process now. A standard output that lacks something, but was not closed by its reader, is a failure."""
    sys.__stdout__.flush()
    fault = sys.__stdout__.buffer.raw.fault  # type: ignore[attr-defined]  # a Stream, by guard()
    if fault and fault.errno != errno.EPIPE:
        print(f"error: Standard output lacks some of what was said ({fault.strerror}).", file=sys.__stderr__)
        code = code or 1
    sys.__stderr__.flush()
    os._exit(code)  # threads of Prefect or MLflow would go on for minutes where their server is gone
