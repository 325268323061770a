"""Requests that are not what HTTP says: each with the exact answer it gets, on both planes, and nothing else moves."""

import contextlib
import itertools
import json
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import pytest
import redis

from gateway.store.embedded import EmbeddedRedis
from tests.e2e.client import CHAT, send, stream
from tests.e2e.waiting import until
from tests.hostile.attacker import chunk
from tests.hostile.wire import connected, read_to_end, replies, said, sent
from tests.stack import ADMIN_KEY, Admin, Process, Stack, chat, running_stack

HEAD_TIMEOUT_S = BODY_TIMEOUT_S = 0.5
WRITE_TIMEOUT_S = 1
BODY_BYTES_MAX = 200_000
TEAMS = "/admin/v1/teams"
PLANES = (CHAT, TEAMS)


@dataclass(frozen=True)
class Siege:
    """A gateway under attack: `key` is the attacker's, valid, and `neighbour` another client's."""

    stack: Stack
    url: str
    admin: Admin
    key: str
    neighbour: str

    def calls_seen(self) -> int:
        """Calls that reached the upstream."""
        return len(self.stack.emulator.get("/__requests").json()["requests"])


@pytest.fixture(scope="module")
def stack(valkey: EmbeddedRedis) -> Iterator[Stack]:
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    with running_stack(valkey.url) as one:
        yield one


@pytest.fixture(scope="module")
def siege(stack: Stack) -> Iterator[Siege]:
    gateway = stack.gateway(
        head_timeout_s=str(HEAD_TIMEOUT_S),
        body_timeout_s=str(BODY_TIMEOUT_S),
        client_write_timeout_s=str(WRITE_TIMEOUT_S),
        body_bytes_max=str(BODY_BYTES_MAX),
    )
    admin = Admin(gateway.url)
    yield Siege(stack, gateway.url, admin, admin.key("attackers")["key"], admin.key("neighbours")["key"])
    admin.http.close()


@pytest.fixture
def unmoved(siege: Siege) -> Iterator[Siege]:
    """After the attack: no call reached the upstream, nothing is booked or held, and the neighbour is served."""
    seen, booked = siege.calls_seen(), len(siege.admin.ledger())
    yield siege
    assert (seen, booked, []) == (siege.calls_seen(), len(siege.admin.ledger()), siege.admin.get("/holds")["data"])
    assert 200 == send(siege.url, CHAT, chat("Hello"), siege.neighbour).status


def head(siege: Siege, path: str, *lines: str, version: str = "HTTP/1.1", method: str = "POST") -> bytes:
    """A head that would be served, and the lines behind it."""
    key = siege.key if path == CHAT else ADMIN_KEY
    standing = (f"{method} {path} {version}", "host: gateway", f"authorization: Bearer {key}")
    return "\r\n".join([*standing, "content-type: application/json", *lines, "", ""]).encode("latin-1")


def body_for(path: str) -> bytes:
    return json.dumps(chat("Hello") if path == CHAT else {"id": "made-by-an-attack"}).encode()


BAD_HEADS = {
    "length and coding": ("content-length: 3", "transfer-encoding: chunked"),
    "coding and length": ("transfer-encoding: chunked", "content-length: 3"),
    "two lengths": ("content-length: 3", "content-length: 3"),
    "two other lengths": ("content-length: 3", "content-length: 4"),
    "a list of lengths": ("content-length: 3, 3",),
    "a signed length": ("content-length: +3",),
    "a negative length": ("content-length: -3",),
    "a length in hex": ("content-length: 0x3",),
    "an empty length": ("content-length:",),
    "a length past all bounds": ("content-length: " + "9" * 30,),
    "obs-fold": ("x-a: b\r\n c",),
    "obs-fold by tab": ("x-a: b\r\n\tc",),
    "a bare LF": ("x-a: b\nx-c: d",),
    "a bare CR": ("x-a: b\rx-c: d",),
    "NUL in a value": ("x-a: b\0c",),
    "NUL in a name": ("x-\0a: b",),
    "a control character": ("x-a: b\x01",),
    "a space before the colon": ("x-a : b",),
    "a length with a space before the colon": ("content-length : 3",),
    "no colon": ("x-a",),
    "no name": (": b",),
    "a space in a name": ("x a: b",),
    "an unknown coding": ("transfer-encoding: zip",),
    "identity": ("transfer-encoding: identity",),
    "stacked codings": ("transfer-encoding: gzip, chunked",),
    "codings in two lines": ("transfer-encoding: gzip", "transfer-encoding: chunked"),
    "chunked before another": ("transfer-encoding: chunked, gzip",),
    "chunked twice": ("transfer-encoding: chunked, chunked",),
    "a coding that looks like chunked": ("transfer-encoding: xchunked",),
    "chunked with a parameter": ("transfer-encoding: chunked;q=1",),
    "two hosts": ("host: other",),
    "two keys": ("authorization: Bearer sk-other",),
    "two types": ("content-type: text/plain",),
    "two keys the other way": ("x-api-key: a", "x-api-key: b"),
    "two encodings": ("content-encoding: gzip", "content-encoding: identity"),
}


@pytest.mark.parametrize("path", PLANES)
@pytest.mark.parametrize("lines", BAD_HEADS.values(), ids=BAD_HEADS)
def test_a_head_that_can_be_read_in_two_ways_is_refused(unmoved: Siege, path: str, lines: tuple[str, ...]) -> None:
    """400 and the connection closed: what follows it may belong to the body or be another request."""
    asked = head(unmoved, path, *lines) + b"3\r\nabc\r\n0\r\n\r\nGET /livez HTTP/1.1\r\nhost: gateway\r\n\r\n"
    assert [(400, "invalid_request")] == [reply.refusal for reply in said(unmoved.url, asked)]


BAD_LINES = {
    "HTTP/0.9": b"GET /livez HTTP/0.9\r\nhost: a\r\n\r\n",
    "HTTP/0.9 as it was": b"GET /livez\r\n\r\n",
    "HTTP/1.2": b"GET /livez HTTP/1.2\r\nhost: a\r\n\r\n",
    "HTTP/2.0": b"GET /livez HTTP/2.0\r\nhost: a\r\n\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.01": b"GET /livez HTTP/1.01\r\nhost: a\r\n\r\n",
    "http in lower case": b"GET /livez http/1.1\r\nhost: a\r\n\r\n",
    "RTSP": b"GET /livez RTSP/1.0\r\nhost: a\r\n\r\n",
    "RTSP/1.1": b"GET /livez RTSP/1.1\r\nhost: a\r\n\r\n",
    "RTSP's own method": b"DESCRIBE /livez RTSP/1.0\r\nhost: a\r\n\r\n",
    "ICE": b"SOURCE /livez ICE/1.0\r\nhost: a\r\n\r\n",
    "two spaces before the target": b"GET  /livez HTTP/1.1\r\nhost: a\r\n\r\n",
    "two spaces behind the target": b"GET /livez  HTTP/1.1\r\nhost: a\r\n\r\n",
    "two spaces in HTTP/1.0": b"GET  /livez HTTP/1.0\r\n\r\n",
    "two spaces behind a blank line": b"\r\nGET  /livez HTTP/1.1\r\nhost: a\r\n\r\n",
    "a space before the method": b" GET /livez HTTP/1.1\r\nhost: a\r\n\r\n",
    "a space behind the version": b"GET /livez HTTP/1.1 \r\nhost: a\r\n\r\n",
    "a space in the version": b"GET /livez HTTP/ 1.1\r\nhost: a\r\n\r\n",
    "a tab before the target": b"GET\t/livez HTTP/1.1\r\nhost: a\r\n\r\n",
    "a tab behind the target": b"GET /livez\tHTTP/1.1\r\nhost: a\r\n\r\n",
    "a tab beside the space": b"GET /livez \tHTTP/1.1\r\nhost: a\r\n\r\n",
    "a tab behind the version": b"GET /livez HTTP/1.1\t\r\nhost: a\r\n\r\n",
    "a form feed for a space": b"GET\x0c/livez HTTP/1.1\r\nhost: a\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nhost: a\r\n\r\n",
    "an empty target": b"GET  HTTP/1.1\r\nhost: a\r\n\r\n",
    "no Host": b"GET /livez HTTP/1.1\r\nx-a: b\r\n\r\n",
    "an absolute URI": b"GET http://minitoolai.com/livez HTTP/1.1\r\nhost: a\r\n\r\n",
    "an asterisk": b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
    "an authority": b"CONNECT minitoolai.com:443 HTTP/1.1\r\nhost: a\r\n\r\n",
    "a fragment": b"GET /livez#top HTTP/1.1\r\nhost: a\r\n\r\n",
    "no path": b"GET livez HTTP/1.1\r\nhost: a\r\n\r\n",
    "a space in the path": b"GET /li vez HTTP/1.1\r\nhost: a\r\n\r\n",
    "NUL in the path": b"GET /livez\0 HTTP/1.1\r\nhost: a\r\n\r\n",
    "bytes above ASCII in the path": b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n",
    "a method in lower case": b"get /livez HTTP/1.1\r\nhost: a\r\n\r\n",
    "a method nobody knows": b"STEAL /livez HTTP/1.1\r\nhost: a\r\n\r\n",
    "a method that is no token": b"G\0T /livez HTTP/1.1\r\nhost: a\r\n\r\n",
    "a line that ends in LF": b"GET /livez HTTP/1.1\nhost: a\n\n",
    "a header before the first line": b" host: a\r\nGET /livez HTTP/1.1\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "chunks in HTTP/1.0": b"POST /livez HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_a_line_that_is_not_http_is_refused(unmoved: Siege, line: bytes) -> None:
    """400 in JSON, also where it was no HTTP at all; then closed."""
    assert [(400, "invalid_request")] == [reply.refusal for reply in said(unmoved.url, line)]


@pytest.mark.parametrize("line", [b"GET  /livez HTTP/1.1\r\n", b"GET /livez  HTTP/1.1\r\n", b"GET /livez RTSP/1.1\r\n"])
def test_such_a_line_is_refused_wherever_it_begins(unmoved: Siege, line: bytes) -> None:
    """In packets of one byte; behind another request, a body that holds a good line, in chunks or not, an offer."""
    rest = b"host: a\r\n\r\n"
    good = b"GET /livez HTTP/1.1\r\n" + rest
    chunked = b"POST /v1/estimate HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    in_chunks = chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(good), good)
    with_length = b"POST /v1/estimate HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%b}" % (len(good) + 1, good)
    offered = good[:-2] + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n"
    for before, status in ((good, 200), (b"\r\n" + good, 200), (in_chunks, 401), (with_length, 401), (offered, 200)):
        served, refused = said(unmoved.url, before + line + rest)
        assert (status, (400, "invalid_request")) == (served.status, refused.refusal)
    with connected(unmoved.url) as client:
        sent(client, (bytes([byte]) for byte in good + line + rest))
        served, refused = replies(read_to_end(client))
    assert (200, (400, "invalid_request")) == (served.status, refused.refusal)


def test_a_good_line_is_served_wherever_it_begins(siege: Siege) -> None:
    """In packets of one byte, behind blank lines, behind others: the law is for what breaks it alone."""
    asked = head(siege, CHAT, f"content-length: {len(body_for(CHAT))}") + body_for(CHAT)
    last = b"GET /livez?a=HTTP/1.0 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    in_bytes = [bytes([byte]) for byte in asked + b"\r\n" + last]
    before, text, after = json.dumps(chat("So: I am a boy, A  B, POST /x HTTP/2")).encode().partition(b"I am a boy")
    in_chunks = head(siege, CHAT, "transfer-encoding: chunked")
    in_chunks += b"".join(map(chunk, (before, text, *after.partition(b"A  "), b"")))
    for parts in ([asked + b"\r\n\r\n" + last], [asked + last[:5], last[5:]], [in_chunks + last], in_bytes):
        assert [200, 200] == [reply.status for reply in said(siege.url, *parts)]


BAD_CHUNKS = {
    "LF behind the size": b"3\nabc\r\n0\r\n\r\n",
    "LF behind the data": b"3\r\nabc\n0\r\n\r\n",
    "a longer chunk than it says": b"3\r\nabcd\r\n0\r\n\r\n",
    "a signed size": b"+3\r\nabc\r\n0\r\n\r\n",
    "a size past all bounds": b"fffffffffffffffff\r\nabc",
    "no size": b"\r\nabc",
    "LF in an extension": b"3;\n\r\nabc\r\n0\r\n\r\n",
    "a length among the trailers": b"3\r\nabc\r\n0\r\ncontent-length: 4\r\n\r\n",
    "extensions without end": b"1;" + b"x" * 100_000,
    "trailers without end": b"0\r\n" + b"x: y\r\n" * 20_000,
    "one byte a chunk, and each with an extension": b"1;%b\r\nx\r\n" % (b"x" * 200) * 1000,
}


@pytest.mark.parametrize("path", PLANES)
@pytest.mark.parametrize("chunks", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
def test_a_body_in_broken_chunks_is_refused(unmoved: Siege, path: str, chunks: bytes) -> None:
    """Nobody knows where it ends: 400 to this request, and the connection closed."""
    asked = head(unmoved, path, "transfer-encoding: chunked") + chunks
    assert [(400, "invalid_request")] == [reply.refusal for reply in said(unmoved.url, asked)]


def test_a_trailer_is_not_a_header(unmoved: Siege) -> None:
    """A key in it counts for nothing: neither beside another nor alone."""
    asked = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    chunks = b"0\r\nauthorization: Bearer " + unmoved.key.encode() + b"\r\n\r\n"
    assert [(401, "missing_api_key")] == [reply.refusal for reply in said(unmoved.url, asked + chunks)]


BIG_HEADS = {
    "33,000 bytes in one line": ("x-a: " + "b" * 33_000,),
    "33,000 bytes in lines": tuple(f"x-{number}: {'b' * 500}" for number in range(66)),
    "101 lines": tuple(f"x-{number}: b" for number in range(101)),
    "the same line 101 times": ("x-a: b",) * 101,
    "a million bytes": ("x-a: " + "b" * 1_000_000,),
}


@pytest.mark.parametrize("path", PLANES)
@pytest.mark.parametrize("lines", BIG_HEADS.values(), ids=BIG_HEADS)
@pytest.mark.parametrize("is_cut", [False, True], ids=["at once", "in parts"])
def test_a_head_above_the_bounds_is_not_read_on(
    unmoved: Siege, path: str, lines: tuple[str, ...], is_cut: bool
) -> None:
    """431, whatever packets it comes in."""
    asked = head(unmoved, path, *lines)
    with connected(unmoved.url) as client:
        client.sendall(asked[:200])
        if is_cut:
            settle()
        with contextlib.suppress(ConnectionError):  # it was closed before it had all
            client.sendall(asked[200:])
        assert [(431, "headers_too_large")] == [reply.refusal for reply in replies(read_to_end(client))]


def settle() -> None:
    """Let what was sent leave on its own: two packets, not one."""
    time.sleep(0.02)


def test_a_target_above_the_bound_counts_as_head(unmoved: Siege) -> None:
    """Its length is the head's."""
    asked = head(unmoved, "/livez?" + "a" * 33_000, method="GET")
    assert [(431, "headers_too_large")] == [reply.refusal for reply in said(unmoved.url, asked)]


@pytest.mark.parametrize("begun", [b"P", b"POST / HTTP/1.1\r\nhost: a\r\n", b"POST / HTTP/1.1\r\nhost: a\r\nx-a: b"])
def test_a_head_that_does_not_end_is_given_up(unmoved: Siege, begun: bytes) -> None:
    """408, however far it came."""
    assert [(408, "request_timeout")] == [reply.refusal for reply in said(unmoved.url, begun)]


def test_a_head_that_trickles_is_given_up(unmoved: Siege) -> None:
    """The time is the whole head's, not from byte to byte."""
    with connected(unmoved.url) as client:
        client.settimeout(0.05)
        began, came = time.monotonic(), b""
        with contextlib.suppress(ConnectionError):
            for byte in head(unmoved, CHAT, *["x-a: b"] * 50):
                client.sendall(bytes([byte]))
                with contextlib.suppress(TimeoutError):
                    if came := client.recv(65_536):
                        break
    assert [(408, "request_timeout")] == [reply.refusal for reply in replies(came)]
    assert time.monotonic() - began > HEAD_TIMEOUT_S


@pytest.mark.parametrize("begun", [b"", b"\r\n", b"\r\n\r\n"])
def test_who_asks_nothing_is_closed(unmoved: Siege, begun: bytes) -> None:
    """Without a word: there is nobody to tell."""
    assert [] == said(unmoved.url, begun)


@pytest.mark.parametrize("path", PLANES)
@pytest.mark.parametrize("framing", ["content-length: 100", "transfer-encoding: chunked"])
def test_a_body_that_does_not_end_is_given_up(unmoved: Siege, path: str, framing: str) -> None:
    """408 on both planes; what comes of it then is for nobody."""
    assert [(408, "request_timeout")] == [reply.refusal for reply in said(unmoved.url, head(unmoved, path, framing))]


def test_a_large_body_on_a_slow_line_is_waited_for(siege: Siege) -> None:
    """What came of it earns it more time than the bound, which is for those that hardly send."""
    body = b" " * (BODY_BYTES_MAX - 2) + b"{}"
    with connected(siege.url) as client:
        client.sendall(head(siege, CHAT, f"content-length: {len(body)}") + body[:100_000])
        time.sleep(2 * BODY_TIMEOUT_S)  # 100,000 bytes earn 1.5 s
        client.sendall(body[100_000:])
        (reply,) = replies(client.recv(65_536))
    assert (400, "invalid_request") == reply.refusal


def test_the_rest_of_a_refused_body_is_not_waited_for(unmoved: Siege) -> None:
    """A short body may come behind its answer; if it trickles, the connection is closed all the same."""
    with connected(unmoved.url) as client:
        client.sendall(head(unmoved, "/nowhere", "content-length: 1000"))
        came, client_sees_end = b"", False
        client.settimeout(0.2)
        while not client_sees_end:
            with contextlib.suppress(TimeoutError):
                data = client.recv(65_536)
                came, client_sees_end = came + data, not data
            with contextlib.suppress(ConnectionError):
                client.sendall(b"x")
    assert [(404, "not_found")] == [reply.refusal for reply in replies(came)]


@pytest.mark.parametrize("path", PLANES)
def test_a_body_above_the_bound_is_not_read_on(unmoved: Siege, path: str) -> None:
    """Declared or in chunks: 413, readable although the client goes on sending, and closed."""
    above = (BODY_BYTES_MAX if path == CHAT else 1 << 20) + 1
    declared = head(unmoved, path, f"content-length: {above}")
    chunked = head(unmoved, path, "transfer-encoding: chunked") + b"%x\r\n" % above + b"x" * above + b"\r\n"
    for asked in (declared, declared + b"x" * 100_000, chunked):
        assert [(413, "request_too_large")] == [reply.refusal for reply in said(unmoved.url, asked)]


@pytest.mark.parametrize("path", PLANES)
def test_who_still_sends_can_read_its_refusal(unmoved: Siege, path: str) -> None:
    """A client that hears 413 within its body is not reset for the piece that is on its way."""
    with connected(unmoved.url) as client:
        client.sendall(head(unmoved, path, f"content-length: {10**9}"))
        came = client.recv(65_536)
        for _ in range(3):
            client.sendall(b"x" * 1000)
            settle()
        assert [(413, "request_too_large")] == [reply.refusal for reply in replies(came + read_to_end(client))]


@pytest.mark.parametrize("path", PLANES)
def test_who_sends_on_without_end_is_reset(unmoved: Siege, path: str) -> None:
    """So much is dropped and no more, and not for long: the connection ends whatever the client does."""
    asked = head(unmoved, path, f"content-length: {10**9}")
    with connected(unmoved.url) as client, pytest.raises(ConnectionError):
        sent(client, itertools.chain([asked], itertools.repeat(b"x" * 65_536)))


@pytest.mark.parametrize("path", PLANES)
@pytest.mark.parametrize("line", ["content-type: text/plain", "content-encoding: gzip"])
def test_a_body_that_is_not_plain_json_is_refused(unmoved: Siege, path: str, line: str) -> None:
    """415: what cannot be read cannot be priced."""
    asked = head(unmoved, path, f"content-length: {len(body_for(path))}", line, "connection: close")
    if line.startswith("content-type"):
        asked = asked.replace(b"content-type: application/json\r\n", b"")
    answers = said(unmoved.url, asked + body_for(path))
    assert [(415, "unsupported_media_type")] == [reply.refusal for reply in answers]


def test_garbage_behind_a_whole_request_is_answered_behind_its_answer(siege: Siege) -> None:
    """Two answers, in order: the first is not cut, and the second says why nothing more is read."""
    for path, status in ((CHAT, 200), ("/livez", 200)):
        body = body_for(CHAT) if path == CHAT else b""
        method = "POST" if path == CHAT else "GET"
        asked = head(siege, path, f"content-length: {len(body)}", method=method) + body
        first, second = said(siege.url, asked + b"\x00\x01 garbage \r\n\r\n")
        assert (status, (400, "invalid_request")) == (first.status, second.refusal)


def test_a_running_stream_is_not_touched_by_what_is_sent_behind_it(siege: Siege) -> None:
    """Its bytes go on; the error comes when it has ended, as an answer of its own."""
    body = json.dumps(chat("[[fault:withhold_after=1]] Hello")).encode()
    with connected(siege.url) as client:
        client.sendall(head(siege, CHAT, f"content-length: {len(body)}") + body)
        came = client.recv(65_536)
        client.sendall(b"garbage\r\n\r\n")
        siege.stack.emulator.post("/__release")
        stream, refused = replies(came + read_to_end(client))
    assert stream.body.endswith(b"data: [DONE]\n\n")
    assert (400, "invalid_request") == refused.refusal


def test_a_page_that_breaks_off_in_the_pipeline_is_refused_in_its_turn(siege: Siege) -> None:
    """Behind the call before it, and not served."""
    body = body_for(CHAT)
    first = head(siege, CHAT, f"content-length: {len(body)}") + body
    second = head(siege, TEAMS, "transfer-encoding: chunked") + b"3\nabc"
    stream, refused = said(siege.url, first + second)
    assert (200, (400, "invalid_request")) == (stream.status, refused.refusal)


@pytest.mark.parametrize("path", ["/livez", "/v1/estimate"])
def test_thousands_of_requests_in_one_packet_are_not_taken(siege: Siege, path: str) -> None:
    """As many as may wait are answered; building the others would hold up everybody else for a fifth of a second."""
    replies_to_all = said(siege.url, head(siege, path, method="GET") * 1_000)
    assert (503, "overloaded") == replies_to_all[-1].refusal
    assert 60 < len(replies_to_all) < 70


@pytest.mark.parametrize("path", [CHAT, "/v1/estimate", TEAMS])
def test_who_says_that_it_sends_no_more_gets_its_answer(siege: Siege, path: str) -> None:
    """`printf … | nc` closes its half of the connection at once."""
    body = b"{" if path == TEAMS else body_for(CHAT)
    asked = head(siege, path, f"content-length: {len(body)}").replace(ADMIN_KEY.encode(), siege.key.encode())
    if path == TEAMS:
        asked = head(siege, path, f"content-length: {len(body)}")
    (reply,) = said(siege.url, asked + body, half_close=True)
    assert (400 if path == TEAMS else 200) == reply.status


def test_who_leaves_within_a_request_is_forgotten(unmoved: Siege) -> None:
    """Half a head or half a body, and the connection's end: nothing to answer."""
    for asked in (b"POST / HT", head(unmoved, CHAT, "content-length: 9"), head(unmoved, TEAMS, "content-length: 9")):
        assert [] == said(unmoved.url, asked, half_close=True)


EXPECTS = {"100-continue": True, "200-ok": False}


@pytest.mark.parametrize("expected", EXPECTS)
@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
@pytest.mark.parametrize("path", ["/v1/estimate", TEAMS])
def test_only_what_expects_to_go_on_is_told_to(unmoved: Siege, path: str, version: str, expected: str) -> None:
    """HTTP/1.0 knows no 100; an expectation that nobody knows is ignored, as RFC 9110 allows."""
    key = unmoved.key if path != TEAMS else ADMIN_KEY
    body = body_for(CHAT) if path != TEAMS else b"{"
    lines = f"POST {path} {version}\r\nhost: a\r\nauthorization: Bearer {key}\r\nexpect: {expected}\r\n"
    with connected(unmoved.url) as client:
        client.sendall(f"{lines}connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode())
        settle()
        client.sendall(body)
        came = read_to_end(client)
    assert (EXPECTS[expected] and version == "HTTP/1.1") is came.startswith(b"HTTP/1.1 100 ")
    assert [400 if path == TEAMS else 200] == [reply.status for reply in replies(came)]


@pytest.mark.parametrize("path", [CHAT, "/metrics"])
def test_who_reads_nothing_is_closed(unmoved: Siege, path: str) -> None:
    """A hundred answers are asked for and none is taken: reset within the write timeout, on both planes."""
    asked = head(unmoved, path, "content-length: 2") + b"[]" if path == CHAT else head(unmoved, path, method="GET")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((urlsplit(unmoved.url).hostname or "", urlsplit(unmoved.url).port or 0))
        client.setblocking(False)
        ended = select.poll()
        ended.register(client, 0)  # an error or the end are told anyway

        def closed() -> bool:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                client.send(asked * 100)
            return bool(ended.poll(0))

        until(closed)


@pytest.fixture(scope="module")
def narrow(stack: Stack, siege: Siege) -> Process:
    """A gateway that lets in two connections of an address, and serves one call at a time."""
    return stack.gateway(connections_per_address_max="2", calls_max="1")


@pytest.fixture(scope="module")
def full(stack: Stack, siege: Siege) -> Process:
    """A gateway that lets in two connections, behind a proxy on this machine."""
    return stack.gateway(connections_max="2", trusted_proxies="127.0.0.1")


LIVEZ = b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize("kind", ["narrow", "full"])
def test_one_address_takes_no_more_than_its_connections(
    unmoved: Siege, kind: str, request: pytest.FixtureRequest
) -> None:
    """Nor all together more than all: 503 and when to come again; who leaves makes room."""
    url = request.getfixturevalue(kind).url
    until(lambda: [200] == [reply.status for reply in said(url, LIVEZ)])
    with connected(url), connected(url):
        (refused,) = said(url, LIVEZ)
        assert ((503, "overloaded"), "1") == (refused.refusal, refused.headers["retry-after"])
        assert [] == said(url)  # nor is one kept that says nothing
    until(lambda: [200] == [reply.status for reply in said(url, LIVEZ)])


def test_there_are_no_more_calls_than_the_bound(siege: Siege, narrow: Process) -> None:
    """While one streams, the next hears 503 and when to come again; what streams goes on."""
    seen = siege.calls_seen()
    with stream(narrow.url, CHAT, chat("[[fault:withhold_after=1]] Hello"), siege.key) as running:
        running.read_event()
        refused = send(narrow.url, CHAT, chat("Hello"), siege.key)
        assert (503, "overloaded", "1") == (refused.status, refused.error["code"], refused.headers["retry-after"])
        assert "close" == refused.headers["connection"]
        assert seen + 1 == siege.calls_seen()
        siege.stack.emulator.post("/__release")
        assert running.read_rest().endswith(b"data: [DONE]\n\n")
    assert 200 == send(narrow.url, CHAT, chat("Hello"), siege.key).status


def test_what_is_turned_away_is_counted(unmoved: Siege) -> None:
    """By the code of its error, whatever it sent."""

    def counted() -> float:
        key = {"authorization": f"Bearer {ADMIN_KEY}"}
        lines = httpx.get(f"{unmoved.url}/metrics", headers=key).text.splitlines()
        name = 'gateway_turned_away_total{code="invalid_request"} '
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    before = counted()
    said(unmoved.url, b"garbage\r\n\r\n")
    assert before + 1 == counted()
