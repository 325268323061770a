"""A client that says what it likes: bytes on a socket, and what comes back until the server closes."""

import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

_TIMEOUT_S = 30


@dataclass(frozen=True)
class Reply:
    """One answer off the wire; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def refusal(self) -> tuple[int, str]:
        """Status and code of an error that is the gateway's own and in the shape of all others."""
        assert "gateway" == self.headers["x-gateway-error-source"]
        error = json.loads(self.body)["error"]
        assert {"message", "type", "param", "code"} <= error.keys()
        assert error["message"].strip()
        return self.status, error["code"]


def connected(url: str) -> socket.socket:
    return socket.create_connection((urlsplit(url).hostname or "", urlsplit(url).port or 0), timeout=_TIMEOUT_S)


def said(url: str, *parts: bytes, half_close: bool = False) -> list[Reply]:
    """Send the parts, and read until the server closes: every answer that came. Fails where it does not close."""
    with connected(url) as client:
        sent(client, parts)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        return replies(read_to_end(client))


def sent(client: socket.socket, parts: Iterable[bytes]) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for part in parts:
        client.sendall(part)


def read_to_end(client: socket.socket) -> bytes:
    came = b""
    while data := client.recv(65_536):
        came += data
    return came


def replies(came: bytes) -> list[Reply]:
    """Whole answers, one behind the other; anything else that came fails."""
    found = []
    while came:
        head, _, rest = came.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            body, came = _unchunked(rest)
        else:
            length = int(headers.get("content-length", "0"))
            assert len(rest) >= length, came
            body, came = rest[:length], rest[length:]
        assert first.startswith("HTTP/1.1 "), first
        status = int(first.split(" ")[1])
        if status != 100:
            found.append(Reply(status, headers, body))
    return found


def _unchunked(rest: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        assert len(rest) >= length + 2, rest
        body, rest = body + rest[:length], rest[length + 2 :]
        if not length:
            return body, rest
