"""Bodies that two parsers might read differently, or that take long to read: refused on every path that takes JSON."""

import json
from collections.abc import Mapping

import pytest

from gateway.wire.structure import DEPTH_MAX, ESCAPES_MAX, PADDING_BYTES_MAX, TEXT_BYTES_MAX, VALUES_MAX
from tests.e2e.client import CHAT, IMAGES, OPENAI_CHAT
from tests.hostile.conftest import Target
from tests.stack import ADMIN_KEY

CALLS = (CHAT, OPENAI_CHAT, IMAGES, "/v1/images/generations", "/v1/estimate")
CONTROL = (
    "/admin/v1/teams",
    "/admin/v1/users",
    "/admin/v1/keys",
    "/admin/v1/credits",
    "/admin/v1/prices",
    "/admin/v1/upstream",
)
INVALID, DUPLICATE = (400, "invalid_json"), (400, "duplicate_key")
TOO_MUCH = (400, "invalid_request")

REQUEST = '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello"}]}'

BODIES: Mapping[str, tuple[bytes, tuple[int, str]]] = {
    "nothing": (b"", INVALID),
    "no object": (b"[1]", INVALID),
    "two objects": (b"{}{}", INVALID),
    "a comment": (b"{}//", INVALID),
    "a comma too many": (b'{"a":1,}', INVALID),
    "single quotes": (b"{'a':1}", INVALID),
    "no UTF-8": (b'{"a":"\xff"}', INVALID),
    "an overlong slash": (b'{"a":"\xc0\xaf"}', INVALID),
    "a surrogate in UTF-8": (b'{"a":"\xed\xa0\x80"}', INVALID),
    "a byte-order mark": (b"\xef\xbb\xbf" + REQUEST.encode(), INVALID),
    "UTF-16": (REQUEST.encode("utf-16"), INVALID),
    "UTF-16 without its mark": (REQUEST.encode("utf-16-le"), INVALID),
    "UTF-32": (REQUEST.encode("utf-32"), INVALID),
    "half a pair": (rb'{"a":"\ud800"}', INVALID),
    "the other half": (rb'{"a":"\udc00\ud800"}', INVALID),
    "half a pair in a key": (rb'{"\ud800":1}', INVALID),
    "NaN": (b'{"a":NaN}', INVALID),
    "Infinity": (b'{"a":-Infinity}', INVALID),
    "5,000 digits": (b'{"a":' + b"9" * 5000 + b"}", TOO_MUCH),
    "1e999": (b'{"a":1e999}', INVALID),
    "a leading zero": (b'{"a":01}', INVALID),
    "a control character": (b'{"a":"\x00"}', INVALID),
    "65 levels": (b'{"a":' * 65 + b"1" + b"}" * 65, TOO_MUCH),
    "100,000 levels": (b"[" * 100_000, TOO_MUCH),
    "a key twice": (b'{"model":"gpt-4o-mini","model":"gpt-4o"}', DUPLICATE),
    "a key twice, escaped": (rb'{"model":"gpt-4o-mini","mod\u0065l":"gpt-4o"}', DUPLICATE),
    "a key twice, far down": (b'{"a":[{"b":{"c":1,"c":1}}]}', DUPLICATE),
    "a key twice, the same value": (b'{"a":1,"a":1}', DUPLICATE),
    "an empty key twice": (b'{"":1,"":2}', DUPLICATE),
    "too many values": (b'{"a":[' + b"1," * VALUES_MAX + b"1]}", TOO_MUCH),
}


@pytest.mark.parametrize("path", CALLS + CONTROL)
def test_a_body_without_one_meaning_is_refused(target: Target, path: str) -> None:
    """The same decoder everywhere: what is refused of a call is refused of an administrator."""
    key = ADMIN_KEY if path in CONTROL else target.neighbour
    with target.untouched():
        answers = {name: answer_to(target, path, body, key) for name, (body, _) in BODIES.items()}
    assert {name: expected for name, (_, expected) in BODIES.items()} == answers


M = 1_000_000
LARGE: Mapping[str, bytes] = {
    "30 MB of [": b"[" * 30 * M,
    "30 MB of {": b'{"a":' * 6 * M,
    "65 levels that close 30 million times": b"[" * (DEPTH_MAX + 1) + b"]" * 30 * M,
    "30 MB of quotes": b'"' * 30 * M,
    "a million keys": b"{" + b",".join(b'"k%d":1' % number for number in range(M)) + b"}",
    "a million empty lists": b'{"a":[' + b",".join([b"[]"] * M) + b"]}",
    "backslashes alone": b'{"a":"' + b"\\" * (2 * ESCAPES_MAX) + b'"}',
    "white space alone": b" " * (PADDING_BYTES_MAX + M) + REQUEST.encode(),
}


@pytest.mark.parametrize("body", LARGE.values(), ids=LARGE)
def test_a_large_body_made_to_take_long_is_refused(target: Target, body: bytes) -> None:
    """Within the bound of its size, before anything is built of it; what may be valid JSON is not called invalid."""
    with target.untouched():
        assert TOO_MUCH == answer_to(target, CHAT, body, target.neighbour)
        assert (413, "request_too_large") == answer_to(target, CONTROL[0], body, ADMIN_KEY)


WIDE: Mapping[str, bytes] = {
    "30 MB of letters beyond ASCII": "中".encode() * 10 * M,
    "one emoji behind 29 MB": b"a" * 29 * M + "😀".encode(),
    "one escape behind 29 MB": b"a" * 29 * M + rb"\u4e2d",
}


@pytest.mark.parametrize("text", WIDE.values(), ids=WIDE)
def test_more_text_than_any_model_takes_is_refused(target: Target, text: bytes) -> None:
    """Each of its letters would take as many bytes as the widest, in one step."""
    assert len(text) > TEXT_BYTES_MAX
    with target.untouched():
        body = REQUEST.encode().replace(b"Hello", text)
        assert (413, "request_too_large") == answer_to(target, CHAT, body, target.neighbour)


def test_what_is_sent_on_is_what_was_read(target: Target) -> None:
    """Written anew: no white space, escape or spelling of the caller's gets as far as another parser."""
    body = rb""" { "messages" : [ {"role":"user", "content":"\u0041\/\ud83d\ude00"} ] ,
        "model":"gpt-4o-mini", "temperature":1.0e0, "stream":true, "max_tokens":5, "seed":-0 } """
    assert 200 == target.ask("POST", CHAT, target.neighbour, content=body, headers=_JSON).status_code
    sent = target.stack.emulator.get("/__requests").json()["requests"][-1]["body"]
    assert (
        '{"messages":[{"role":"user","content":"A/😀"}],"model":"gpt-4o-mini","temperature":1.0,"seed":0,'
        '"max_completion_tokens":5}'
    ) == sent


_JSON = {"content-type": "application/json"}


def answer_to(target: Target, path: str, body: bytes, key: str) -> tuple[int, str]:
    """Status and code; the message is a sentence that quotes next to nothing."""
    answer = target.ask("POST", path, key, content=body, headers=_JSON)
    error = json.loads(answer.content)["error"]
    assert len(error["message"]) < 300
    assert error["message"].endswith(".")
    return answer.status_code, error["code"]
