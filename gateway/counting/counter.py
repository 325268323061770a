"""The gateway's end of its counting process.

Why a process: tiktoken's encoding is built in Rust, in one go of a fifth of a second into which no other thread of its
process gets (ADR 0029). And what a text may do to tiktoken, it does to a process that can be started again.
"""

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence

import msgspec

from gateway.counting.question import ANSWER_BYTES, BYTE_ORDER, LENGTH_BYTES, READY, Question
from gateway.wire.call import PromptText

log = logging.getLogger("gateway.counting")

_COMMAND = (sys.executable, "-m", "gateway.counting.process")
_TIMES_ASKED = 2
_ANSWER_S = 60.0
"""Far above what the largest prompt takes: past it the process hangs."""
_TOKENS_MAX = 2**62
"""Far above any count, and still a number on the wire."""


class Counter:
    """Counts prompts, one at a time, in a process that is started at the first count and again where it has ended.

    `command` is what starts it. For any number of threads.
    """

    def __init__(self, command: Sequence[str] = _COMMAND) -> None:
        self._command = command
        self._turn = threading.Lock()
        self._process: _Process | None = None

    def count(self, prompt: PromptText, tokens_max: int) -> int:
        """As `wire.tokens.count_prompt`. Blocks until it is counted: run it in a thread. Never fails.

        Where no process can be started it is counted here; a prompt that ends the process twice counts as its bytes,
        which is an upper bound.
        """
        extra_tokens, tokens_max = min(prompt.extra_tokens, _TOKENS_MAX), min(tokens_max, _TOKENS_MAX)
        asked = Question([text.encode(errors="replace") for text in prompt.texts], extra_tokens, tokens_max)
        question = msgspec.msgpack.encode(asked)
        with self._turn:
            for _ in range(_TIMES_ASKED):
                try:
                    process = self._process = self._process or _Process(self._command)
                except OSError as error:
                    log.warning("tokens are counted in the gateway itself, for no process can be started: %s", error)
                    return _count_here(prompt, tokens_max)
                try:
                    return process.ask(question)
                except OSError as error:
                    log.warning("the process that counts tokens has ended and is started again: %s", error)
                    self._end()
        return min(prompt.extra_tokens + sum(map(len, asked.texts)), tokens_max)

    @property
    def pid(self) -> int | None:
        """The process that counts, where there is one."""
        return self._process.pid if self._process else None

    def close(self) -> None:
        """End the process, once nothing is counted. Blocks."""
        with self._turn:
            self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()


class _Process:
    """One process, from its start to its end. Raises OSError: it cannot be started."""

    def __init__(self, command: Sequence[str]) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(_ANSWER_S)
        try:
            with theirs:
                self._popen = _start(command, theirs)
        except OSError:
            self._socket.close()
            raise
        self.pid = self._popen.pid
        try:
            self._hear(len(READY))
        except OSError:
            self.end()
            raise

    def ask(self, question: bytes) -> int:
        """The number of tokens. Raises OSError: the process ended meanwhile, or hangs."""
        self._socket.sendall(len(question).to_bytes(LENGTH_BYTES, BYTE_ORDER) + question)
        return int.from_bytes(self._hear(ANSWER_BYTES), BYTE_ORDER)

    def end(self) -> None:
        """At once: it keeps nothing."""
        self._socket.close()
        self._popen.kill()
        self._popen.wait()

    def _hear(self, size: int) -> bytes:
        said = self._socket.recv(size)
        if len(said) != size:
            raise ConnectionResetError("it said nothing more")
        return said


def _start(command: Sequence[str], connection: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  # our own interpreter and our own module
        command,
        stdin=connection.fileno(),
        stdout=connection.fileno(),
        # What this process can import, that one can, wherever it was started.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def _count_here(prompt: PromptText, tokens_max: int) -> int:
    from gateway.wire.tokens import count_prompt  # noqa: PLC0415  # tiktoken: only who needs it pays for it

    return count_prompt(prompt, tokens_max)
