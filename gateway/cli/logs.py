"""Log lines on standard output, whole also where several processes write there."""

import fcntl
import logging
import sys
from pathlib import Path


def configure_logging(shared: Path | None = None) -> None:
    """One line a record on standard output; a call's line is already JSON.

    `shared` is a file that all processes writing to this output are given: then no line is broken by another's.
    """
    handler = logging.StreamHandler(sys.stdout) if shared is None else _WholeLines(shared)
    logging.basicConfig(handlers=[handler], level=logging.INFO, format="%(message)s", force=True)
    for noisy in ("httpx", "httpcore", "asyncio", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class _WholeLines(logging.StreamHandler):  # type: ignore[type-arg]  # subscripted it is no class to derive from
    """A pipe keeps 4,096 bytes together, a longer record (a traceback) may be cut in two: one writes at a time."""

    def __init__(self, shared: Path) -> None:
        super().__init__(sys.stdout)
        self._turn = shared.open("ab")  # opened anew in each process: a lock belongs to an open file

    def emit(self, record: logging.LogRecord) -> None:
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        try:
            super().emit(record)
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)
