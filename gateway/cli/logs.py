"""Log lines on standard output, each a JSON object, whole also where several processes write there.

Most lines are those of calls. They go past `logging`, where a record costs more than all else that is done to count a
call, and wait a moment for one another: one write for all of them.

Laws:
- A line is never broken by another's, be it another thread's or process's.
- Lines come in the order they were given, records between them.
- A call's line waits for 5 ms, longer only while nobody takes the output.
- Nobody waits for whoever reads, but the process at its start and its end, and then for `_PATIENCE_S`. Lines wait
  instead, so many; then they are dropped and counted. Those that anybody can have written (`Lines.of_stranger`) give
  way long before the others, and take no room from them.
- What still waits at the end of the process is written then: `logging` closes its handlers.
"""

import asyncio
import fcntl
import itertools
import json
import logging
import select
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from gateway.call_log import JSON_LOGS, Lines, now_text, refused_log

_TOGETHER_S = 0.005
_TOGETHER_BYTES = select.PIPE_BUF
"""A pipe that can be written to at all takes so much at once."""
_WRITES_AT_ONCE = 32
"""Then calls go on: a reader that comes back may have megabytes to take."""
_STRANGERS_LINES_MAX = 1_000
_WAITING_LINES_MAX = 20_000 + _STRANGERS_LINES_MAX
"""About 12 MB. With so many waiting, 20,000 are not of strangers."""
_PATIENCE_S = 2.0
_TURN_LOOK_S = 0.01


def configure_logging(shared: Path | None = None) -> Lines:
    """One line a record on standard output. Returns where lines go that are no records.

    `shared` is a file that all processes writing to this output are given: then no line is broken by another's.
    """
    output = _Output(sys.stdout, shared)
    output.setFormatter(_AsJSON())
    logging.basicConfig(handlers=[output], level=logging.INFO, force=True)
    for noisy in ("httpx", "httpcore", "asyncio", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return output.lines


class _AsJSON(logging.Formatter):
    """A record as a line like those of calls, the server's own records too; what is such a line already stays so."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.name in JSON_LOGS:
            return message
        traceback = self.formatException(record.exc_info) if record.exc_info else None
        return _remark(record.levelname.lower(), record.name, message, traceback)


class _Output(logging.StreamHandler[TextIO]):
    """Its `lock`, which `logging` takes around `emit`, is for whoever writes; a line waits without it."""

    def __init__(self, stream: TextIO, shared: Path | None) -> None:
        super().__init__(stream)
        self.lines = Lines(self._put, self._put_if_room)
        self._turn = _Turn(shared)
        self._takes_more = _readiness_of(stream)
        self._waiting: deque[str] = deque()
        self._rest = ""
        """What the output has not yet taken of a line that it has begun to take."""
        self._dropped = 0
        """So many since the last line that tells of it."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_due = False
        """Whether that loop will write."""
        self._patience_s = _PATIENCE_S

    def emit(self, record: logging.LogRecord) -> None:
        """After the lines that were there before, and at once, if the output takes it."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001  # as all handlers: what cannot be told must not end who tells it
            self.handleError(record)
            return
        if record.name == refused_log.name:
            self._put_if_room(line)
        else:
            self._put(line)
            self._write()

    def close(self) -> None:
        self._write(wait=True)
        super().close()

    def _put(self, line: str) -> None:
        """With others of the next 5 ms; where no event loop runs, at once. ASCII, without a line break."""
        if len(self._waiting) >= _WAITING_LINES_MAX:
            self._drop("caller")
            return
        self._waiting.append(line)
        if not self._is_due or self._loop is None or not self._loop.is_running():
            self._see_to_it()

    def _put_if_room(self, line: str) -> None:
        if len(self._waiting) >= _STRANGERS_LINES_MAX:
            self._drop("stranger")
        else:
            self._put(line)

    def _drop(self, whose: str) -> None:
        self._dropped += 1
        self.lines.on_dropped(whose)

    def _see_to_it(self) -> None:
        """That what waits is written: by the loop, or here where none runs."""
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            if self._loop is None or not self._loop.is_running():
                self._write(wait=True)
            else:  # of another thread
                self._loop.call_soon_threadsafe(self._write_later)
        else:
            self._write_later()

    def _write_later(self) -> None:
        if self._loop is not None:
            self._is_due = True
            self._loop.call_later(_TOGETHER_S, self._write_what_is_taken)

    def _write_what_is_taken(self) -> None:
        self._is_due = False
        self._write()
        if self._waiting or self._rest:
            self._write_later()

    def _write(self, *, wait: bool = False) -> None:
        """What the output takes now; with `wait` everything, as long as it takes something within `_PATIENCE_S`."""
        if self.lock is None or not self.lock.acquire(blocking=wait):
            return
        patience_s = self._patience_s if wait else 0
        try:
            if self._turn.take(patience_s):
                self._write_lines(None if wait else _WRITES_AT_ONCE, patience_s)
                if not self._rest:
                    self._turn.give()
        finally:
            self.lock.release()

    def _write_lines(self, writes_max: int | None, patience_s: float) -> None:
        for _ in itertools.repeat(None) if writes_max is None else range(writes_max):
            self._rest = self._rest or self._next_lines()
            if not self._rest:
                return
            if not self._takes_more(patience_s):
                self._patience_s = 0.0 if patience_s else self._patience_s  # it is not waited for a second time
                return
            self._patience_s = _PATIENCE_S
            piece, self._rest = self._rest[:_TOGETHER_BYTES], self._rest[_TOGETHER_BYTES:]
            try:
                self.stream.write(piece)
                self.stream.flush()
            except (OSError, ValueError):  # nobody reads any more, and no call must fail for it
                self._rest = ""

    def _next_lines(self) -> str:
        """The first of them that a pipe keeps together; one at least, if there is one."""
        if not self._waiting:
            dropped, self._dropped = self._dropped, 0
            return f"{_remark('warning', __name__, _LEFT_OUT % dropped)}\n" if dropped else ""
        lines = [self._waiting.popleft()]
        free_bytes = _TOGETHER_BYTES - len(lines[0]) - 1
        while self._waiting and len(self._waiting[0]) < free_bytes:
            lines.append(self._waiting.popleft())
            free_bytes -= len(lines[-1]) + 1
        return "\n".join((*lines, ""))


_LEFT_OUT = "%d lines are left out above: whoever reads this log was too slow. The ledger has all calls."


class _Turn:
    """How processes that write to one output do not break one another's lines. Without a file it is always ours."""

    def __init__(self, shared: Path | None) -> None:
        # Opened anew in each process: a lock belongs to an open file.
        self._file = shared.open("ab") if shared else None
        self._is_ours = shared is None

    def take(self, patience_s: float) -> bool:
        """Whether it is ours, within that time."""
        until_s = time.monotonic() + patience_s
        while not self._is_ours and self._file is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._is_ours = True
            except BlockingIOError:
                if time.monotonic() >= until_s:
                    break
                time.sleep(_TURN_LOOK_S)
        return self._is_ours

    def give(self) -> None:
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self._is_ours = False


def _remark(level: str, logger: str, message: str, traceback: str | None = None) -> str:
    line = {"at": now_text(), "event": "log", "level": level, "logger": logger, "message": message}
    if traceback is not None:
        line["traceback"] = traceback
    return json.dumps(line, separators=(",", ":"))


def _readiness_of(stream: TextIO) -> Callable[[float], object]:
    """Tells whether the stream takes more within that many seconds, or never will; a stream of no file always does."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return lambda _: True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return lambda seconds: poll.poll(seconds * 1000)
