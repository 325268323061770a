"""A plain HTTP client for tests that look at bytes: whole answers, answers read piece by piece, clients that leave."""

import contextlib
import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.stack import bearer

CHAT = "/api/chat-completions/"
OPENAI_CHAT = "/v1/chat/completions"
IMAGES = "/api/texttoimage/"
JOBS = "/api/texttoimage/jobs/"
_TIMEOUT_S = 60


@dataclass(frozen=True)
class Answer:
    """A whole answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The object under "error"."""
        error: dict[str, Any] = self.json["error"]
        return error

    @property
    def request_id(self) -> str:
        return self.headers["x-request-id"]


class OpenAnswer:
    """An answer that is still arriving."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.received = b""

    @property
    def request_id(self) -> str:
        return self.headers["x-request-id"]

    def read_event(self) -> bytes:
        """The next event with its blank line; waits for it. Lines end in LF or CRLF."""
        event = line = b""
        while line not in (b"\n", b"\r\n"):
            line = self._response.readline()
            if not line:
                raise AssertionError(f"the answer ended within an event: {event!r}")
            event += line
        self.received += event
        return event

    def read_rest(self) -> bytes:
        rest = self._response.read()
        self.received += rest
        return rest


def send(url: str, path: str, body: object, key: str | None = None, headers: Mapping[str, str] | None = None) -> Answer:
    """POST and read the whole answer; `body` as in `stream`."""
    with stream(url, path, body, key, headers) as answer:
        answer.read_rest()
        return Answer(answer.status, answer.headers, answer.received)


@contextlib.contextmanager
def stream(
    url: str,
    path: str,
    body: object,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "POST",
    timeout_s: float = _TIMEOUT_S,
) -> Iterator[OpenAnswer]:
    """POST and read as it comes; leaving the block closes the connection, whatever is still to come.

    `body` is sent as JSON; bytes as they are; an iterator of bytes in chunks, without a declared length.
    """
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)
    data = body if isinstance(body, bytes | Iterator) else json.dumps(body).encode()
    sent = {"content-type": "application/json", **(bearer(key) if key else {}), **(headers or {})}
    try:
        connection.request(method, path, data, sent)
        response = connection.getresponse()
        with response:
            yield OpenAnswer(response)
    finally:
        connection.close()
