"""Those who attack, in a process of their own: what they take must not make the streams late that are watched.

    python -m benchmarks.attackers ATTACK PORT KEY SECONDS SCALE

Ends with one line of JSON: how many were sent, and how many were answered how. Each connects from an address of the
loopback network that is not the watchers', so that a bound on one address is not what others feel.
"""

import asyncio
import itertools
import json
import os
import secrets
import string
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.calls import body_of, request_of
from benchmarks.upstream import Shape
from gateway.billing.principal import SECRET_CHARS, make_sub_key

MIB = 1024 * 1024
_LETTERS = string.ascii_letters + string.digits
_TRICKLE_S = 0.5
_REFUSED_AT_ANY_PRICE = "x-gateway-max-cost-usd: 0.00001"
_UNANSWERED = "no answer"


@dataclass(frozen=True, slots=True)
class Attack:
    """`requests` makes them without an end, of port, key and scale; `connections` send one after the other.

    `is_siege`: each connection stays, sends a byte now and then, and is done once it is answered or closed.
    `addresses`: from how many the connections come.
    """

    requests: Callable[[int, str, float], Iterator[bytes]]
    connections: int
    is_siege: bool = False
    addresses: int = 1


def bad_json(port: int, key: str, scale: float) -> Iterator[bytes]:
    """Every kind of body that is no request, as large as a body may be."""
    size = int(32 * MIB * scale)
    pieces = (b"[", b'{"a":', b"[],", b'"\\u006e":0,', b"9", b"\xff", b" ", b'{"n":1},', b"1e9,")
    bodies = [b'{"a":[' + piece * (size // len(piece) - 10) for piece in pieces]
    keys = b"".join(b'"k%07d":0,' % number for number in range(size // 14))
    bodies += [b"{" + keys + b'"k0000000":0}', b'{"a":"' + b"x" * (size - 32) + b'","a":1}']
    return itertools.cycle([request_of(port, key, body) for body in bodies])


def head_floods(port: int, key: str, _scale: float) -> Iterator[bytes]:
    """Heads of too many lines, and of too many bytes."""
    first = (
        f"POST /api/chat-completions/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n".encode()
    )
    many, long = b"a: b\r\n" * 20_000, b"a: " + b"b" * MIB
    return itertools.cycle([first + many + b"\r\n", first + long + b"\r\n\r\n"])


def requests_ahead(port: int, _key: str, _scale: float) -> Iterator[bytes]:
    """As many small requests as fit into what is read at once, none of which waits for an answer."""
    return itertools.repeat(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode() * 7_000)


def slow_heads(port: int, _key: str, _scale: float) -> Iterator[bytes]:
    """The beginning of a head, and then a letter now and then."""
    return itertools.repeat(f"POST /api/chat-completions/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nx: ".encode())


def bad_keys(port: int, _key: str, _scale: float) -> Iterator[bytes]:
    """Keys that are well spelled and nobody's."""
    body = body_of(Shape(3))
    while True:
        secret = "".join(secrets.choice(_LETTERS) for _ in range(SECRET_CHARS))
        yield request_of(port, make_sub_key("default", secret), body)


def data_urls(port: int, key: str, scale: float) -> Iterator[bytes]:
    """Pictures of 20 MB that are none, at a price that nothing has."""
    url = "data:image/png;base64," + "A" * int(20 * MIB * scale)
    body = body_of(Shape(3), [{"type": "image_url", "image_url": {"url": url}}])
    return itertools.repeat(request_of(port, key, body, _REFUSED_AT_ANY_PRICE))


def tabs(port: int, key: str, scale: float) -> Iterator[bytes]:
    """A megabyte of tabs, spaces or one letter, which has to be counted before it is refused for its price."""
    bodies = [body_of(Shape(3), letter * int(MIB * scale), "gpt-4.1-nano") for letter in "\t x"]
    return itertools.cycle([request_of(port, key, body, _REFUSED_AT_ANY_PRICE) for body in bodies])


ATTACKS = {
    "bad JSON of 32 MiB": Attack(bad_json, connections=2),
    "heads of 120 kB and 1 MiB": Attack(head_floods, connections=8),
    "7,000 requests sent ahead": Attack(requests_ahead, connections=2),
    "500 slow heads": Attack(slow_heads, connections=500, is_siege=True, addresses=5),
    "connections over the cap": Attack(slow_heads, connections=1200, is_siege=True),
    "keys that are nobody's": Attack(bad_keys, connections=4),
    "20 MB data URLs": Attack(data_urls, connections=2),
    "1 MB of one letter": Attack(tabs, connections=2),
}


async def attack(name: str, port: int, key: str, seconds: float, scale: float) -> Counter[str]:
    """Attack for so long; returns what was answered how often, by status."""
    one = ATTACKS[name]
    requests, answers = one.requests(port, key, scale), Counter[str]()
    until_s = time.monotonic() + seconds
    connections = max(2, round(one.connections * min(1.0, scale * 10)))
    async with asyncio.TaskGroup() as group:
        for number in range(connections):
            address = f"127.0.1.{1 + number % one.addresses}"
            if one.is_siege:
                group.create_task(_besiege(port, address, next(requests), until_s, answers))
            else:
                group.create_task(_send_on(port, address, requests, until_s, answers))
    return answers


async def _send_on(port: int, address: str, requests: Iterator[bytes], until_s: float, answers: Counter[str]) -> None:
    while time.monotonic() < until_s:
        answers[await _sent(port, address, next(requests))] += 1


async def _sent(port: int, address: str, request: bytes) -> str:
    """The status of the answer, which may come before the request is whole."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        writer.write(request)
        return _status_in(await reader.readline())
    except ConnectionError:
        return _UNANSWERED
    finally:
        writer.transport.abort()


async def _besiege(port: int, address: str, beginning: bytes, until_s: float, answers: Counter[str]) -> None:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    except ConnectionError:
        answers[_UNANSWERED] += 1
        return
    writer.write(beginning)
    answer = asyncio.ensure_future(reader.readline())
    while time.monotonic() < until_s and not answer.done():
        await asyncio.wait([answer], timeout=min(_TRICKLE_S, max(0.0, until_s - time.monotonic())))
        writer.write(b"x")
    writer.transport.abort()
    try:
        answers[_status_in(await answer) if answer.done() else "held"] += 1
    except ConnectionError:
        answers[_UNANSWERED] += 1


def _status_in(line: bytes) -> str:
    words = line.split()
    return words[1].decode() if len(words) > 1 else _UNANSWERED


if __name__ == "__main__":
    os.nice(10)  # the watchers come first on the CPU that they share
    _name, _port, _key, _seconds, _scale = sys.argv[1:]
    print(json.dumps(asyncio.run(attack(_name, int(_port), _key, float(_seconds), float(_scale)))))
