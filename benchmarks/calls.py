"""What is asked: the bodies of the calls, and whole requests ready to be sent."""

import itertools
import json
from collections import deque
from collections.abc import Iterator

from benchmarks.upstream import Shape

_PATH = "/api/chat-completions/"
_QUESTION = "Say hello to the world, please. " * 12


def body_of(shape: Shape, content: object = _QUESTION, model: str = "gpt-4o-mini") -> bytes:
    """A chat call whose answer has this shape."""
    return json.dumps(
        {
            "model": model,
            "messages": [
                {"role": "developer", "content": "You are a helpful assistant."},
                {"role": "user", "content": content},
            ],
            "temperature": 0.7,
            "max_completion_tokens": 200,
            "user": shape.user,
        }
    ).encode()


def request_of(port: int, key: str, body: bytes, *headers: str) -> bytes:
    """One HTTP request with that body; `headers` are further lines."""
    lines = (
        f"POST {_PATH} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"Authorization: Bearer {key}",
        *headers,
    )
    return "\r\n".join((*lines, "", "")).encode() + body


def requests_of(port: int, keys: deque[str], body: bytes) -> Iterator[bytes]:
    """Without an end, each with the next key. The keys are turned: who asks again goes on where this ended."""
    if len(keys) == 1:
        yield from itertools.repeat(request_of(port, keys[0], body))
    while True:
        keys.rotate(-1)
        yield request_of(port, keys[0], body)
