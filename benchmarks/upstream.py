"""An upstream that costs as little as possible: what it answers is made once for every shape and then only sent.

    python -m benchmarks.upstream PORT

GET tells how many calls have come. Any POST is answered with a stream of server-sent events as MiniToolAI documents
them. The field `user` of the request says its `Shape`, for the gateway forwards that field and charges nothing for it.
"""

import asyncio
import functools
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import httptools
import uvloop

_SHAPE = re.compile(rb'"user":\s*"(\d+)x(\d+)"')
_SHAPE_WITHIN_BYTES = 4096
"""It stands at a request's end: megabytes before it are not looked through, for other streams would wait for that."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How an answer comes: so many events, so far apart (0: all at once, each sent by itself).

    The last two are the finish and the usage, those before them a word each; `data: [DONE]` is not counted.
    """

    events: int
    gap_ms: int = 0

    @property
    def user(self) -> str:
        """As a request asks for it."""
        return f"{self.events}x{self.gap_ms}"


class Upstream(asyncio.Protocol):
    """One connection: a request at a time, its answer at once or paced."""

    calls = 0
    """How many have come on all connections."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._last = b""
        self._rest: Iterator[bytes] = iter(())
        self._gap_s = 0.0
        self._due_s = 0.0
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._socket = transport.get_extra_info("socket").fileno()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._last = (self._last + body)[-_SHAPE_WITHIN_BYTES:]

    def on_message_complete(self) -> None:
        if self._parser.get_method() == b"GET":
            count = b"%d" % Upstream.calls
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(count), count))
            return
        Upstream.calls += 1
        asked = _SHAPE.search(self._last)
        self._last = b""
        shape = Shape(*map(int, asked.groups())) if asked else Shape(3)
        self._rest, self._gap_s, self._due_s = iter(pieces_of(shape)), shape.gap_ms / 1000, self._loop.time()
        self._send_on()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._send_on()

    def _send_on(self) -> None:
        while not self._paused and not self._transport.is_closing():
            piece = next(self._rest, None)
            if piece is None:
                return
            self._send(piece)
            if self._gap_s:
                self._due_s += self._gap_s
                self._loop.call_at(self._due_s, self._send_on)
                return

    def _send(self, piece: bytes) -> None:
        """At once and by itself; the transport would keep it until the end of this turn and send all pieces as one."""
        sent = 0
        if not self._transport.get_write_buffer_size():
            try:
                sent = os.write(self._socket, piece)
            except BlockingIOError:
                pass
            except OSError:
                self._transport.abort()
                return
        if sent < len(piece):
            self._transport.write(piece[sent:])


@functools.cache
def pieces_of(shape: Shape) -> tuple[bytes, ...]:
    """The answer as it is sent: the head with the first event, then an event each, the end with the last."""
    events = [_WORD] * (shape.events - 2) + [_FINISH, _USAGE]
    pieces = [_chunk(event) for event in events[-shape.events :]]
    pieces[0] = _HEAD + pieces[0]
    pieces[-1] += _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return tuple(pieces)


def _event(**members: object) -> bytes:
    """An event as the contract of the upstream has it, about 300 bytes."""
    chunk = {
        "id": "chatcmpl-0123456789abcdefghijklmno",
        "object": "chat.completion.chunk",
        "created": 1_763_700_000,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
        "choices": [],
        "usage": None,
    }
    return b"data: " + json.dumps(chunk | members, separators=(",", ":")).encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


_HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: bench\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
_WORD = _event(choices=[{"index": 0, "delta": {"content": " hello"}, "logprobs": None, "finish_reason": None}])
_FINISH = _event(choices=[{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}])
_USAGE = _event(
    usage={
        "prompt_tokens": 110,
        "completion_tokens": 7,
        "total_tokens": 117,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
