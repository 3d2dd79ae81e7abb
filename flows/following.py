"""What a running stage prints and measures, told to a logger while it runs."""

import contextlib
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

PERIOD = 2.0  # seconds between two looks; what is new at a look is one record, so that a chatty stage costs no more


@contextlib.contextmanager
def followed(log: Path, events: Path, logger: logging.Logger | logging.LoggerAdapter) -> Iterator[None]:
    """Whatever is written to the stage's log and its events in this block is logged, the rest of it at the end."""
    ended, printed, measured = threading.Event(), Lines(log), Lines(events)

    def follow() -> None:
        last = False
        while not last:
            last = ended.wait(PERIOD)
            lines = [*printed.new(last), *map(in_words, measured.new(last))]
            if lines:
                wrong = any(line.startswith("error:") for line in lines)
                logger.log(logging.ERROR if wrong else logging.INFO, "\n".join(lines))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Lines:
    """The lines of a file that somebody else is writing."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def new(self, last: bool) -> list[str]:
        """Those that have ended since the last call; at the ``last`` call also one that has not.

        Without blank ones; of a line that was written over, as progress bars are, what it is now.
        """
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        if not last:
            text = text[: text.rfind(b"\n") + 1]
        self._offset += len(text)
        lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.decode(errors="replace").split("\n")]
        return [line for line in lines if line.strip()]


def in_words(event: str) -> str:
    """{"step": 3, "metrics": {"loss": 0.5}} -> step 3: loss 0.5"""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):  # cut short by a kill
        told = json.loads(event)
        numbers = ", ".join(f"{name} {number:.4g}" for name, number in told["metrics"].items())
        return f"step {told['step']}: {numbers}" if told["step"] is not None else numbers
    return event
