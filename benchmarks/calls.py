"""What is asked: the bodies of the calls, and whole requests ready to be sent."""

import itertools
import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from benchmarks.load import END
from benchmarks.upstream import Shape

_QUESTION = "Say hello to the world, please. " * 12


@dataclass(frozen=True)
class Way:
    """How calls are asked: at which path, with which further fields, and what each answer ends with."""

    path: str = "/api/chat-completions/"
    fields: Mapping[str, object] = field(default_factory=dict)
    end: bytes = END


MINITOOLAI = Way()


def body_of(shape: Shape, content: object = _QUESTION, model: str = "gpt-4o-mini", way: Way = MINITOOLAI) -> bytes:
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
            **way.fields,
            "user": shape.user,
        }
    ).encode()


def request_of(port: int, key: str, body: bytes, *headers: str, way: Way = MINITOOLAI) -> bytes:
    """One HTTP request with that body; `headers` are further lines."""
    lines = (
        f"POST {way.path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"Authorization: Bearer {key}",
        *headers,
    )
    return "\r\n".join((*lines, "", "")).encode() + body


def requests_of(port: int, keys: deque[str], body: bytes, way: Way = MINITOOLAI) -> Iterator[bytes]:
    """Without an end, each with the next key. The keys are turned: who asks again goes on where this ended."""
    if len(keys) == 1:
        yield from itertools.repeat(request_of(port, keys[0], body, way=way))
    while True:
        keys.rotate(-1)
        yield request_of(port, keys[0], body, way=way)
