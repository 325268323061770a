"""An upstream that means harm: raw bytes on a socket, whatever HTTP thinks of them."""

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterable, Iterator

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n%b\r\n"
CONTENT = b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"%b"}}],"usage":null}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}\n\n'
DONE = b"data: [DONE]\n\n"

Answer = Callable[[], Iterable[bytes]]


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def events(*parts: bytes, headers: bytes = b"") -> bytes:
    """A stream of events, a chunk each, brought to its end."""
    return CHUNKED % headers + b"".join(map(chunk, parts)) + b"0\r\n\r\n"


def whole(body: bytes, status: bytes = b"200 OK", headers: bytes = b"Content-Type: application/json\r\n") -> bytes:
    """An answer with its length."""
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, headers, len(body), body)


GOOD = events(CONTENT % b"Hello", STOP, USAGE, DONE)


class Attacker:
    """Answers every request on its port with what `answer` gives, piece by piece, and closes the connection.

    `reads`: whether it takes the request whole before, not its beginning alone.
    """

    def __init__(self) -> None:
        self.answer: Answer = lambda: [GOOD]
        self.reads = True
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # the gateway has had enough
            if self.reads:
                read_request(connection)
            else:
                received(connection)
            for piece in self.answer():
                connection.sendall(piece)


def read_request(connection: socket.socket) -> bytes:
    """Head and body, by its length."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += received(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    (length,) = (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += received(connection)
    return head + b"\r\n\r\n" + body


def received(connection: socket.socket) -> bytes:
    data = connection.recv(65_536)
    if not data:
        raise ConnectionError("the gateway has left")
    return data


def drip(data: bytes, then: bytes, pause: threading.Event) -> Iterator[bytes]:
    """`data`, and then one more piece each twentieth of a second, without end."""
    yield data
    for piece in itertools.repeat(then):
        pause.wait(0.05)
        yield piece
