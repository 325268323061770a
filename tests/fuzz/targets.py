"""What is fuzzed: each target takes bytes, feeds them to the code, and fails where a law of that code is broken.

Bytes, so that Hypothesis, atheris and a file left by a crash drive them alike. The last bytes of an input decide where
the rest is cut, for a network cuts where it likes.
"""

import asyncio
import json
import math
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TypeVar, cast

from gateway.billing.errors import GatewayError
from gateway.billing.prices import ModelPrice, PriceList
from gateway.billing.principal import SECRET_CHARS, make_sub_key, organisation_of
from gateway.upstream.connection import ARRIVALS_BYTES, Connection
from gateway.web.auth import bearer
from gateway.wire.chat import ChatRules, inspect_chat
from gateway.wire.chat_meter import ChatMeter
from gateway.wire.images import ImageRules, inspect_image, inspect_poll
from gateway.wire.openai_chat import inspect_openai_chat
from gateway.wire.openai_images import inspect_images
from gateway.wire.sse import EventParser
from gateway.wire.strictjson import decode, encode
from tests.wire.recordings import CALL, RECORDINGS

T = TypeVar("T")

_CUTS_MAX = 3
_KEPT_BYTES_MAX = 4096
_SMALL = {"raw_bytes_max": 256, "event_bytes_max": 512, "text_characters_max": 256, "json_bytes_max": 1024}
_PRICES = PriceList(
    [
        ModelPrice(
            model="gpt-4o-mini",
            kind="chat",
            input_pico_usd=150_000,
            output_pico_usd=600_000,
            context_tokens_max=128_000,
            output_tokens_max=16_384,
            image_tokens_low=2_833,
            image_tokens_high=48_169,
        ),
        ModelPrice(model="dreamshaper", kind="image", unit_pico_usd=1_500_000_000),
    ]
)


@dataclass(frozen=True)
class Target:
    """`check` raises where a law is broken; `seeds` are inputs near something, `alphabet` what its branches look at."""

    check: Callable[[bytes], None]
    seeds: Sequence[bytes]
    alphabet: Sequence[bytes]


def check_meter(data: bytes) -> None:
    """An answer's meter: the same outcome at every split and whenever it is asked, bounded memory, nothing raises."""
    chunks = list(_cut(data))
    whole, pieces, asked, small = ChatMeter(CALL), ChatMeter(CALL), ChatMeter(CALL), ChatMeter(CALL, **_SMALL)
    whole.feed(b"".join(chunks))
    for chunk in chunks:
        pieces.feed(chunk)
        asked.feed(chunk)
        asked.outcome()
        small.feed(chunk)
        assert small.kept_bytes() <= _KEPT_BYTES_MAX + len(chunk)
    assert whole.outcome() == pieces.outcome() == asked.outcome()
    assert whole.done == pieces.done == asked.done
    small.outcome()
    assert _events(chunks) == _events([b"".join(chunks)])


def check_inspection(data: bytes) -> None:
    """A request: refused by a sentence that can be sent, or priced, and then sent as it was priced."""
    fields = _unless_refused(lambda: decode(data))
    if fields is None:
        return
    assert fields == json.loads(data)
    chat, images = ChatRules(), ImageRules()
    for inspect in (
        lambda: inspect_chat(fields, chat, _PRICES),
        lambda: inspect_openai_chat(fields, chat, _PRICES),
        lambda: inspect_image(fields, images, _PRICES),
        lambda: inspect_images(fields, images, _PRICES),
    ):
        call = _unless_refused(inspect)
        if call is None:
            continue
        assert call.body == encode(decode(call.body))
        assert all(bound <= most for bound, most in zip(call.bound, call.usage_max, strict=True))
        assert 0 < _PRICES.of(call.model, call.kind).most_of(call.bound)
    poll = _unless_refused(lambda: inspect_poll(fields))
    assert poll is None or (poll.jobid and poll.signature)


def check_answer(data: bytes) -> None:
    """The upstream's HTTP: the same answer at every split, bounded headers, no byte that was not sent."""
    chunks = list(_cut(data))
    split, whole = _answer_of(chunks), _answer_of([b"".join(chunks)])
    assert split == whole
    headers, body = whole[1], whole[2]
    assert len(headers) <= 200
    assert len(body) <= len(data)


def check_key(data: bytes) -> None:
    """A key is spelled in one way, with one character changed it is none; a header has a secret or is refused."""
    text = data.decode("latin-1")
    org = organisation_of(text)
    assert org is None or text == make_sub_key(org, text[len(f"sk-mt-{org}-") :][:SECRET_CHARS])
    for headers in ((data, None), (None, data), (data, data)):
        secret = _unless_refused(partial(bearer, *headers))
        if secret is None:
            continue
        raw = secret.encode("latin-1")
        assert raw == raw.strip()
        assert raw in data
    key, place, replacement = _spoilt(data)
    spoilt = key[:place] + replacement + key[place + 1 :]
    assert organisation_of(key) is not None
    assert (organisation_of(spoilt) is not None) == (spoilt == key)


def _unless_refused(read: Callable[[], T]) -> T | None:
    """What was read; None where it was refused, by a sentence that can be sent."""
    try:
        return read()
    except GatewayError as error:
        refused = error
    assert 400 <= refused.status < 500
    assert f"{refused.message}{refused.param}".encode()
    return None


def _cut(data: bytes) -> Iterator[bytes]:
    """All but the last bytes of an input, cut where those say."""
    body, places = data[:-_CUTS_MAX], data[-_CUTS_MAX:]
    borders = sorted({0, len(body), *(place * len(body) // 256 for place in places)})
    yield from (body[start:end] for start, end in pairwise(borders))


def _events(chunks: Sequence[bytes]) -> list[bytes]:
    parser = EventParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def _answer_of(chunks: Sequence[bytes]) -> tuple[int, list[tuple[bytes, bytes]], bytes, str]:
    """What a connection makes of an answer to one request: status, headers, body, and how it ended."""
    arrivals = memoryview(bytearray(ARRIVALS_BYTES))
    connection = Connection(cast(asyncio.AbstractEventLoop, _STILL), math.inf, lambda _: None, arrivals)
    connection.connection_made(cast(asyncio.Transport, _DEAF))
    connection.ask(b"GET / HTTP/1.1\r\n\r\n")
    for chunk in chunks:
        if connection.state not in ("asked", "answering"):
            break
        arrivals[: len(chunk)] = chunk
        connection.buffer_updated(len(chunk))
    connection.connection_lost(None)
    headers = connection.headers if connection.status else []  # of a head that breaks off nobody sees anything
    return connection.status, headers, b"".join(connection._body), connection.state


_STILL = types.SimpleNamespace(time=lambda: 0.0, call_later=lambda *_: types.SimpleNamespace(cancel=lambda: None))
"""A loop whose time stands still."""
_DEAF = types.SimpleNamespace(
    get_extra_info=lambda _: None,
    set_write_buffer_limits=lambda **_: None,
    is_closing=lambda: False,
    write=lambda _: None,
    abort=lambda: None,
    pause_reading=lambda: None,
)
"""A transport that sends nothing anywhere."""


def _spoilt(data: bytes) -> tuple[str, int, str]:
    """A true key made of the input, a place in it, and what to put there."""
    letters = [chr(ord("a") + byte % 26) for byte in data.ljust(SECRET_CHARS + 2, b"\0")]
    key = make_sub_key("org", "".join(letters[:SECRET_CHARS]))
    return key, ord(letters[-1]) % len(key), letters[-2]


TARGETS = {
    "meter": Target(
        check_meter,
        seeds=[recording.body for recording in RECORDINGS],
        alphabet=[
            *(
                b"\n",
                b"\r",
                b"data: ",
                b": ",
                b"{",
                b"}",
                b"[DONE]",
                b'"usage":',
                b"null",
                b'"choices":[]',
                b"\xef\xbb\xbf",
            ),
            *(
                b'{"prompt_tokens":',
                b'"completion_tokens":',
                b"1",
                b"-1",
                b"1e999",
                b",",
                b'"',
                b"\\",
                b"\xff",
                b"\xe2\x80\xa8",
            ),
        ],
    ),
    "inspection": Target(
        check_inspection,
        seeds=[
            b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello"}],"max_tokens":5,"stream":true}',
            b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":[{"type":"text","text":"a"},'
            b'{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo=","detail":"low"}}]}],"n":2}',
            b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":""}],"response_format":{"type":"json_schema",'
            b'"json_schema":{"name":"a","schema":{"type":"object"}}},"logit_bias":{"1":-100},"stop":["a"]}',
            b'{"model":"dreamshaper","prompt":"A lake","width":256,"cfgScale":1.5,"scheduler":"Euler a"}',
            b'{"model":"dreamshaper","prompt":"A lake","n":2,"size":"256x256","response_format":"b64_json"}',
            b'{"jobid":"12345678","signature":"abcxyz123"}',
        ],
        alphabet=[
            *(
                b"{",
                b"}",
                b"[",
                b"]",
                b",",
                b":",
                b'"',
                b"\\",
                b"\\ud800",
                b"\\u006e",
                b"null",
                b"true",
                b"NaN",
                b"-",
                b"1",
            ),
            *(
                b"1e999",
                b"0.5",
                b'"n":',
                b'"model":',
                b'"messages":',
                b'"content":',
                b'"prompt":',
                b"\xff",
                b"\0",
                b" ",
            ),
        ],
    ),
    "answer": Target(
        check_answer,
        seeds=[
            b"HTTP/1.1 200 OK\r\ncontent-type: a/b\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nkeep-alive: timeout=5\r\n\r\nhello",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\nto the end",
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nx",
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno",
        ],
        alphabet=[
            *(
                b"\r\n",
                b"\n",
                b"\r",
                b" ",
                b"\t",
                b":",
                b"HTTP/1.1 ",
                b"HTTP/1.0 ",
                b"200",
                b"304",
                b"100",
                b"0",
                b"5",
                b"ffff",
            ),
            *(
                b"content-length: ",
                b"transfer-encoding: ",
                b"chunked",
                b"gzip",
                b";x=y",
                b"keep-alive: timeout=",
                b"\0",
                b"\xff",
            ),
        ],
    ),
    "key": Target(
        check_key,
        seeds=[make_sub_key("default", "a" * SECRET_CHARS).encode(), b"Bearer sk-mt-x", b"Basic eDp5", b"bearer \t"],
        alphabet=[
            b"sk-mt-",
            b"-",
            b"a",
            b"Z",
            b"0",
            b"f",
            b"Bearer ",
            b"bearer",
            b" ",
            b"\t",
            b"\xff",
            b"\xc2\xa0",
            b"\n",
        ],
    ),
}
