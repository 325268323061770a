"""The load: connections that send one call after the other, and check and time every answer.

Closed loop: a connection sends its next call when its answer has ended. A wrong answer ends the bench, for what is
measured must be the whole work.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import httptools

END = b"data: [DONE]\n\n"
_HARD_STOP_S = 60.0

clock_s = time.perf_counter


class WrongAnswer(RuntimeError):
    """An answer was not a 200, or did not end as it must; the text shows how it ended."""


@dataclass(slots=True)
class Load:
    """What was seen. Times in seconds, one for each answer."""

    first_byte_s: list[float] = field(default_factory=list)
    whole_s: list[float] = field(default_factory=list)
    began_s: float = 0.0
    ended_s: float = 0.0
    open: int = 0
    most_open: int = 0
    """Answers of which the first byte has come and the last has not."""

    @property
    def answers(self) -> int:
        return len(self.whole_s)

    @property
    def per_second(self) -> float:
        return self.answers / (self.ended_s - self.began_s)


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of all do not exceed (0.5: the median)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def run_load(
    port: int,
    requests: Iterator[bytes],
    connections: int,
    seconds: float,
    spread_s: float = 0.0,
    answer_end: bytes = END,
) -> Load:
    """Send `requests` in turn until the seconds are over; every answer that was begun is read to its end.

    `spread_s`: connections begin one after the other over that time, for paced streams are not in step in real life.
    `answer_end`: what each right answer ends with.
    Raises WrongAnswer.
    """
    load = Load(began_s=clock_s())
    callers = [
        Caller(requests, load, load.began_s + seconds, number * spread_s / connections, answer_end)
        for number in range(connections)
    ]
    for caller in callers:
        await connect(caller, port)
    try:
        async with asyncio.timeout(seconds + _HARD_STOP_S):
            await asyncio.gather(*(caller.ended for caller in callers))
    finally:
        for caller in callers:
            caller.close()
    load.ended_s = clock_s()
    return load


async def connect(exchange: "Exchange", port: int) -> None:
    """Connect it; what it sends is its own affair."""
    await asyncio.get_running_loop().create_connection(lambda: exchange, "127.0.0.1", port)


class Exchange(asyncio.Protocol):
    """One connection, one call at a time: sends what it is given and checks the answer.

    `on_piece` is called with each piece of a body as it arrives; a right answer ends with `answer_end`.
    """

    def __init__(self, on_piece: Callable[[bytes], None] | None = None, answer_end: bytes = END) -> None:
        self._on_piece = on_piece
        self._answer_end = answer_end
        self._parser = httptools.HttpResponseParser(self)
        self._tail = b""
        self.sent_s = 0.0
        self.first_byte_s = 0.0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def send(self, request: bytes) -> None:
        self._tail, self.first_byte_s = b"", 0.0
        self.sent_s = clock_s()
        self.transport.write(request)

    def begun(self) -> None:
        """The first byte of a body has come."""

    def answered(self) -> None:
        """The answer has ended and was right."""
        self.end()

    def end(self, error: Exception | None = None) -> None:
        if not self.ended.done():
            self.ended.set_exception(error) if error else self.ended.set_result(None)
        self.close()

    def close(self) -> None:
        self.transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.end(WrongAnswer(f"the connection was closed before its answer had ended ({error})"))

    # What httptools calls

    def on_body(self, body: bytes) -> None:
        if not self.first_byte_s:
            self.first_byte_s = clock_s()
            self.begun()
        self._tail = body if len(body) >= len(self._answer_end) else (self._tail + body)[-512:]
        if self._on_piece:
            self._on_piece(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status == 200 and self._tail.endswith(self._answer_end):
            self.answered()
        else:
            self.end(WrongAnswer(f"{status} … {self._tail[-500:].decode(errors='replace')}"))


class Caller(Exchange):
    """A connection of `run_load`."""

    def __init__(
        self, requests: Iterator[bytes], load: Load, until_s: float, delay_s: float, answer_end: bytes
    ) -> None:
        super().__init__(answer_end=answer_end)
        self._requests = requests
        self._load = load
        self._until_s = until_s
        self._delay_s = delay_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        asyncio.get_running_loop().call_later(self._delay_s, self._send_next)

    def begun(self) -> None:
        self._load.open += 1
        self._load.most_open = max(self._load.most_open, self._load.open)

    def answered(self) -> None:
        now_s = clock_s()
        self._load.open -= 1
        self._load.first_byte_s.append(self.first_byte_s - self.sent_s)
        self._load.whole_s.append(now_s - self.sent_s)
        if now_s < self._until_s:
            self._send_next()
        else:
            self.end()

    def _send_next(self) -> None:
        self.send(next(self._requests))
