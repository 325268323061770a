"""Log lines on standard output, each a JSON object, whole also where several processes write there.

Most lines are those of calls. They go past `logging`, where a record costs more than all else that is done to count a
call, and wait a moment for one another: one write for all of them.

Laws:
- A line is never broken by another's, be it another thread's or process's.
- Lines come in the order they were given, records between them.
- A call's line waits for 5 ms, longer only while nobody takes the output. The event loop does not wait for that, until
  too many lines do.
- What still waits at the end of the process is written then: `logging` closes its handlers.
"""

import asyncio
import contextlib
import fcntl
import json
import logging
import select
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TextIO

from gateway.call_log import JSON_LOGS, now_text, refused_log

_TOGETHER_S = 0.005
_TOGETHER_BYTES = select.PIPE_BUF
"""A pipe that can be written to at all takes so much at once."""
_WAITING_LINES_MAX = 2000
_REFUSED_LINES_MAX = 1000
"""With so many waiting, the line of what was refused is dropped: `gateway_turned_away_total` has counted it."""


def configure_logging(shared: Path | None = None) -> Callable[[str], None]:
    """One line a record on standard output. Returns what writes a call's line there: soon, not at once.

    `shared` is a file that all processes writing to this output are given: then no line is broken by another's.
    """
    output = _Output(sys.stdout, shared)
    output.setFormatter(_AsJSON())
    logging.basicConfig(handlers=[output], level=logging.INFO, force=True)
    for noisy in ("httpx", "httpcore", "asyncio", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return output.write_soon


class _AsJSON(logging.Formatter):
    """A record as a line like those of calls, the server's own records too; what is such a line already stays so."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.name in JSON_LOGS:
            return message
        line = {
            "at": now_text(),
            "event": "log",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, separators=(",", ":"))


class _Output(logging.StreamHandler[TextIO]):
    def __init__(self, stream: TextIO, shared: Path | None) -> None:
        super().__init__(stream)
        # Opened anew in each process: a lock belongs to an open file.
        self._turn = shared.open("ab") if shared else None
        self._takes_more = _readiness_of(stream)
        self._waiting: deque[str] = deque()
        self._awaited_by: asyncio.AbstractEventLoop | None = None

    def write_soon(self, line: str) -> None:
        """With others of the next 5 ms; where no event loop runs, at once. ASCII, without a line break."""
        self._waiting.append(line)
        if self._awaited_by is not None and self._awaited_by.is_running():
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._write_waiting(wait=True)
            return
        self._awaited_by = loop
        loop.call_later(_TOGETHER_S, self._write_what_is_taken)

    def emit(self, record: logging.LogRecord) -> None:
        """After the lines that were there before. A record may be long (a traceback): it waits for who reads.

        Not so the line of what was refused: anybody can have some written, and would stop the gateway by that.
        """
        if record.name == refused_log.name:
            if len(self._waiting) < _REFUSED_LINES_MAX:
                self.write_soon(self.format(record))
            return
        with self._turn_taken(wait=True):
            self._write_lines(wait=True)
            super().emit(record)

    def close(self) -> None:
        self._write_waiting(wait=True)
        super().close()

    def _write_what_is_taken(self) -> None:
        loop, self._awaited_by = self._awaited_by, None
        self._write_waiting(wait=len(self._waiting) >= _WAITING_LINES_MAX)
        if self._waiting and loop is not None:
            self._awaited_by = loop
            loop.call_later(_TOGETHER_S, self._write_what_is_taken)

    def _write_waiting(self, *, wait: bool) -> None:
        with self._turn_taken(wait=wait) as taken:
            if taken:
                self._write_lines(wait=wait)

    def _write_lines(self, *, wait: bool) -> None:
        # Where nobody reads any more there is nobody to tell, and a call must not fail for it.
        with contextlib.suppress(OSError, ValueError):
            while self._waiting and (wait or self._takes_more()):
                self.stream.write(self._next_lines())
                self.stream.flush()

    def _next_lines(self) -> str:
        """The first of them that a pipe keeps together; one at least."""
        lines = [self._waiting.popleft()]
        free_bytes = _TOGETHER_BYTES - len(lines[0]) - 1
        while self._waiting and len(self._waiting[0]) < free_bytes:
            lines.append(self._waiting.popleft())
            free_bytes -= len(lines[-1]) + 1
        return "\n".join((*lines, ""))

    @contextlib.contextmanager
    def _turn_taken(self, *, wait: bool) -> Iterator[bool]:
        """Nobody else writes meanwhile; False where somebody does, and is not to be waited for."""
        if self.lock is None or not self.lock.acquire(blocking=wait):
            yield False
            return
        try:
            with _locked(self._turn, wait=wait) as locked:
                yield locked
        finally:
            self.lock.release()


@contextlib.contextmanager
def _locked(turn: IO[bytes] | None, *, wait: bool) -> Iterator[bool]:
    """Whether this process has its turn; without such a file it always has."""
    if turn is None:
        yield True
        return
    try:
        fcntl.flock(turn, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        fcntl.flock(turn, fcntl.LOCK_UN)


def _readiness_of(stream: TextIO) -> Callable[[], object]:
    """Tells, without waiting, whether the stream takes more, or never will; a stream of no file always does."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return lambda: True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return lambda: poll.poll(0)
