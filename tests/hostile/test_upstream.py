"""An upstream that attacks: whatever it answers, the caller hears what to do, the hold ends once, nothing leaks."""

import contextlib
import gzip
import itertools
import json
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis

from gateway.store.embedded import EmbeddedRedis
from tests.e2e.client import CHAT, IMAGES, JOBS, OPENAI_CHAT, Answer, send
from tests.hostile.attacker import CHUNKED, CONTENT, DONE, GOOD, STOP, USAGE, Attacker, chunk, drip, events, whole
from tests.stack import UPSTREAM_KEY, Admin, Process, Stack, chat

KEY = UPSTREAM_KEY.encode()
JSON = b"Content-Type: application/json\r\n"
OPENAI_IMAGES = "/v1/images/generations"
IMAGE = {"model": "realvision", "prompt": "A tree"}
GZIPPED = b"Content-Encoding: gzip\r\n"
NEVER = threading.Event()

Entry = tuple[str, list[str]]
EXACT: Entry = ("capture", [])
ESTIMATED: Entry = ("capture", ["estimated"])
UNANSWERED: Entry = ("capture", ["estimated", "unanswered"])
RELEASED: Entry = ("release", [])


@dataclass(frozen=True)
class Front:
    """A gateway before the attacker, with bounds that a test can wait for."""

    attacker: Attacker
    gateway: Process
    admin: Admin
    key: str

    def call(self, path: str, answer: bytes | Iterable[bytes], body: object = None) -> Answer:
        self.attacker.answer = lambda: [answer] if isinstance(answer, bytes) else answer
        asked = body or ({**IMAGE} if path in (IMAGES, OPENAI_IMAGES) else chat())
        return send(self.gateway.url, path, asked, self.key)

    def entry(self, answer: Answer) -> Entry:
        """The one entry of a call: how its hold ended, and its flags."""
        (entry,) = self.admin.ledger(request_id=answer.request_id)
        return entry["type"], entry["flags"]


@pytest.fixture(scope="module")
def front(valkey: EmbeddedRedis) -> Iterator[Front]:
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    with contextlib.ExitStack() as ends:
        attacker = Attacker()
        ends.callback(attacker.close)
        stack = Stack(valkey.url, attacker.url, ends)
        ends.callback(stack.emulator.close)
        gateway = stack.gateway(
            upstream_answer_timeout_s="0.8",
            answer_s_max="1",
            lease_s="600",
            whole_answer_bytes_max="100000",
            image_wait_s="1",
        )
        admin = Admin(gateway.url)
        ends.callback(admin.http.close)
        yield Front(attacker, gateway, admin, admin.key("victims")["key"])


@pytest.fixture(autouse=True)
def unharmed(front: Front) -> Iterator[None]:
    """After each attack: no money is held, no key came out, and the next call goes as ever."""
    front.attacker.reads = True
    yield
    front.attacker.reads = True
    assert [] == front.admin.get("/holds")["data"]
    assert UPSTREAM_KEY not in front.gateway.output
    answer = front.call(CHAT, GOOD)
    assert (200, EXACT) == (answer.status, front.entry(answer))


def code_of(answer: Answer) -> str | None:
    """The code of an answer in our shape; None for the upstream's own."""
    try:
        return str(answer.error["code"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


ATTACKS = {
    "a redirect": (whole(b"", b"302 Found", b"Location: http://169.254.169.254/\r\n"), 502, RELEASED),
    "a redirect that keeps the method": (whole(b"", b"307 Now", b"Location: http://127.0.0.1/\r\n"), 502, RELEASED),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\n\r\n", 502, RELEASED),
    "switching protocols": (b"HTTP/1.1 101 Go\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", 502, UNANSWERED),
    "a status above all": (whole(b"", b"999 Odd"), 502, RELEASED),
    "a status of four digits": (whole(b"", b"2000 OK"), 502, UNANSWERED),
    "no status": (b"HTTP/1.1 \r\n\r\n", 502, UNANSWERED),
    "HTTP/0.9": (b"<html>Hello</html>", 502, UNANSWERED),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", 502, UNANSWERED),
    "nothing": (b"", 502, UNANSWERED),
    "gzip": (events(gzip.compress(USAGE), headers=GZIPPED), 502, UNANSWERED),
    "gzip behind identity": (events(USAGE, headers=b"Content-Encoding: identity\r\n" + GZIPPED), 502, UNANSWERED),
    "gzip as a transfer coding": (GOOD.replace(b": chunked", b": gzip, chunked"), 502, UNANSWERED),
    "a failure in gzip": (whole(gzip.compress(KEY), b"500 Bad", JSON + GZIPPED), 502, RELEASED),
    "a name with a NUL": (GOOD.replace(b"Content-Type", b"Content\0Type"), 502, UNANSWERED),
    "a value with a NUL": (GOOD.replace(b"event-stream", b"event\0stream"), 502, UNANSWERED),
    "a bare CR": (GOOD.replace(b"event-stream\r\n", b"event-stream\rX-Gateway: 1\r\n"), 502, UNANSWERED),
    "two lengths": (whole(b"{}", headers=JSON + b"Content-Length: 1\r\n"), 502, UNANSWERED),
    "a length below zero": (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}", 502, UNANSWERED),
    "a length that overflows": (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n{}" % 2**65, 502, UNANSWERED),
    "a length and chunks": (events(USAGE, headers=b"Content-Length: 5\r\n"), 502, UNANSWERED),
    "a chunk that overflows": (CHUNKED % b"" + b"F" * 17 + b"\r\n" + USAGE, 200, ESTIMATED),
    "less than its length": (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", 502, UNANSWERED),
    "a head without end": (b"HTTP/1.1 200 OK\r\nA: " + b"a" * 200_000, 502, UNANSWERED),
    "a thousand headers": (b"HTTP/1.1 200 OK\r\n" + b"A: a\r\n" * 1000 + b"\r\n", 502, UNANSWERED),
    "interim answers without end": (b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000, 502, UNANSWERED),
    "a whole answer above the bound": (whole(b'{"a":"' + b"a" * 200_000 + b'"}'), 502, UNANSWERED),
    "an object nested without end": (whole(b"[" * 90_000), 200, RELEASED),
    "an error that claims usage": (whole(USAGE[6:], b"500 Bad"), 500, RELEASED),
    "a page": (whole(b"<script>alert(1)</script>", headers=b"Content-Type: text/html\r\n"), 200, RELEASED),
    "nothing, with success": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, RELEASED),
    "a long line": (events(CONTENT % (b"a" * 2_000_000), USAGE, DONE), 200, EXACT),
    "usage inside content": (events(CONTENT % USAGE[6:-2].replace(b'"', b'\\"'), STOP, DONE), 200, ESTIMATED),
    "usage below zero": (events(CONTENT % b"a", USAGE.replace(b":9", b":-9"), DONE), 200, ("capture", ["anomaly"])),
    "usage without measure": (events(USAGE.replace(b":9", b":" + b"9" * 5000), DONE), 200, ("capture", ["anomaly"])),
    "trailers": (GOOD[:-2] + b"X-Gateway-Cost-Usd: 0\r\n\r\n", 200, EXACT),
    "a second answer behind the first": (GOOD + whole(b"{}"), 200, EXACT),
    "a second answer, and never an end": ([GOOD, whole(b"{}"), b"HTTP/1.1 200 OK\r\n" * 50_000], 200, EXACT),
}


@pytest.mark.parametrize(("answer", "status", "entry"), ATTACKS.values(), ids=ATTACKS)
def test_an_answer_that_is_an_attack(front: Front, answer: bytes | Iterable[bytes], status: int, entry: Entry) -> None:
    """Each has the answer that the caller gets, and how the hold ends by the table of `wire.charge`."""
    heard = front.call(CHAT, answer)
    assert (status, entry) == (heard.status, front.entry(heard))
    assert ("upstream_error" if status == 502 else None) == code_of(heard)
    assert b"169.254" not in heard.body + repr(heard.headers).encode()


USED = b'"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}'
COMPLETION = b'{"object":"chat.completion","choices":[{"index":0,"message":{"content":"Ok"}}],%b}' % USED
HTML = b"Content-Type: text/html\r\n"

NO_STREAMS = {
    "one object": (whole(COMPLETION), False, 200, None, EXACT),
    "one object to who asked for a stream": (whole(COMPLETION), True, 502, "false", EXACT),
    "one that says not what it used": (whole(COMPLETION.replace(USED, b'"usage":null')), True, 502, "false", ESTIMATED),
    "one that is cut": (whole(COMPLETION[:-2]), False, 502, "false", ESTIMATED),
    "one without a choice": (whole(b'{"choices":[]}'), False, 502, "false", ESTIMATED),
    "an error": (whole(b'{"error":{"message":"no"}}'), False, 502, None, RELEASED),
    "an error in a stream's place": (whole(b'{"error":{"message":"no"}}'), True, 502, None, RELEASED),
    "a page": (whole(b"<p>Maintenance", headers=HTML), False, 502, None, RELEASED),
    "a page in a stream's place": (whole(b"<p>Maintenance", headers=HTML), True, 502, None, RELEASED),
    "an object nested without end": (whole(b"[" * 90_000), False, 502, None, RELEASED),
    "nothing": (whole(b""), True, 502, None, RELEASED),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", False, 502, None, RELEASED),
}


@pytest.mark.parametrize(("answer", "streamed", "status", "retry", "entry"), NO_STREAMS.values(), ids=NO_STREAMS)
def test_a_success_without_a_stream_is_none_to_clients_of_openai(
    front: Front, answer: bytes, streamed: bool, status: int, retry: str | None, entry: Entry
) -> None:
    """They would read an empty answer, or fail at a page; only an object where one was asked for is what they know."""
    heard = front.call(OPENAI_CHAT, answer, chat(stream=streamed))
    assert (status, retry, entry) == (heard.status, heard.headers.get("x-should-retry"), front.entry(heard))
    assert ("upstream_error" if status == 502 else None) == code_of(heard)
    assert status == 502 or answer.endswith(heard.body)


ENDLESS = {
    "a head, byte by byte": (CHAT, drip(b"HTTP/1.1 200 OK\r\nA: ", b"a", NEVER), UNANSWERED),
    "an object, byte by byte": (CHAT, drip(b"HTTP/1.1 200 OK\r\n\r\n{", b" ", NEVER), UNANSWERED),
    "a stream folded into an object": (OPENAI_CHAT, drip(CHUNKED % b"", chunk(CONTENT % b"a"), NEVER), ESTIMATED),
    "the answer to a submission": (IMAGES, drip(b"HTTP/1.1 200 OK\r\n\r\n{", b" ", NEVER), UNANSWERED),
    "the answers to submissions": (OPENAI_IMAGES, drip(b"HTTP/1.1 200 OK\r\n\r\n{", b" ", NEVER), UNANSWERED),
    "silence": (CHAT, drip(b"", b"", NEVER), UNANSWERED),
}


@pytest.mark.parametrize(("path", "answer", "entry"), ENDLESS.values(), ids=ENDLESS)
def test_an_answer_without_end_has_one(front: Front, path: str, answer: Iterable[bytes], entry: Entry) -> None:
    """However slowly it comes: silence ends by `upstream_answer_timeout_s`, everything else by `answer_s_max`, whenever
    its lease is looked at next (here: not within the test)."""
    heard = front.call(path, answer)
    assert (504, "upstream_timeout", entry) == (heard.status, code_of(heard), front.entry(heard))
    assert "false" == heard.headers["x-should-retry"]


def test_a_stream_without_end_is_ended_for_a_client_that_stays(front: Front) -> None:
    """By an event that says so, without a forged [DONE]; what was streamed is booked."""
    heard = front.call(CHAT, drip(CHUNKED % b"", chunk(CONTENT % b"a"), NEVER))
    assert (200, ESTIMATED) == (heard.status, front.entry(heard))
    last = heard.body.removesuffix(b"\n\n").rpartition(b"\n\n")[2]
    assert "upstream_timeout" == json.loads(last.removeprefix(b"data: "))["error"]["code"]
    assert b"[DONE]" not in heard.body


def test_an_answer_before_the_request_is_whole(front: Front) -> None:
    """Most of it was never taken, and the upstream says why: its word passes, and nothing is billed."""
    front.attacker.reads = False
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 8_000_000}}
    refusal = whole(b'{"error":"too large"}', b"413 Too Large")
    asked: Any = [image]
    heard = front.call(CHAT, drip(refusal, b"", NEVER), chat(asked))
    assert (413, RELEASED) == (heard.status, front.entry(heard))
    assert "upstream" == heard.headers["x-gateway-error-source"]


SPOOFED = {
    "access-control-allow-origin": "*",
    "authorization": "Bearer of somebody",
    "cookie": "a=1",
    "idempotent-replayed": "true",
    "location": "http://169.254.169.254/",
    "refresh": "0; url=http://example.com/",
    "set-cookie": "a=1",
    "www-authenticate": "Basic",
    "x-api-key": "somebody",
    "x-gateway-budget-remaining-usd": "999.00",
    "x-gateway-cost-usd": "0.07",
    "x-gateway-error-source": "gateway",
    "x-ratelimit-remaining-requests": "999",
    "x-secret": "named by Connection",
}


@pytest.mark.parametrize("answer", [GOOD, whole(b"{}"), whole(b"{}", b"500 Bad")], ids=["stream", "whole", "failure"])
def test_what_is_the_gateways_to_say_is_said_by_nobody_else(front: Front, answer: bytes) -> None:
    """No cookie, no other place to go to, no forged id, limit or cost passes."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in SPOOFED.items())
    lines += "X-Request-Id: forged\r\nConnection: X-Secret\r\n"
    head, _, rest = answer.partition(b"\r\n")
    heard = front.call(CHAT, head + b"\r\n" + lines.encode() + rest)
    assert set() == {name for name, value in SPOOFED.items() if heard.headers.get(name) == value}
    assert "forged" not in heard.request_id
    assert ("upstream" if heard.status == 500 else None) == heard.headers.get("x-gateway-error-source")


def split_key(size: int = 3) -> list[bytes]:
    return [KEY[at : at + size] for at in range(0, len(KEY), size)]


ESCAPED_KEY = b"".join(b"\\u%04x" % byte for byte in KEY)
numbers = itertools.count(1)


def new_job() -> tuple[bytes, dict[str, object]]:
    """The answer to a submission, and how its job is asked about: a pair that was given out before is nobody's."""
    jobid = next(numbers)
    return whole(b'{"status":"success","jobid":%d,"signature":"a"}' % jobid), {"jobid": jobid, "signature": "a"}


ECHOES = {
    "in a header's value": (CHAT, events(USAGE, DONE, headers=b"X-Debug: Bearer " + KEY + b"\r\n")),
    "in a header's name": (CHAT, events(USAGE, DONE, headers=KEY + b": 1\r\n")),
    "in the status line": (CHAT, whole(b"{}", b"500 " + KEY)),
    "in a failure": (CHAT, whole(b'{"error":{"message":"' + KEY + b'"}}', b"400 Bad")),
    "in content": (CHAT, events(CONTENT % KEY, USAGE, DONE)),
    "in content, chunk by chunk": (CHAT, CHUNKED % b"" + b"".join(map(chunk, split_key())) + b"0\r\n\r\n"),
    "in what is no answer": (CHAT, whole(b"<p>" + KEY, headers=b"Content-Type: text/html\r\n")),
    "folded, event by event": (OPENAI_CHAT, events(*(CONTENT % part for part in split_key()), STOP, USAGE, DONE)),
    "folded, behind escapes": (OPENAI_CHAT, events(CONTENT % ESCAPED_KEY, STOP, USAGE, DONE)),
    "in the answer to a submission": (IMAGES, whole(b'{"status":"error","message":"' + KEY + b'"}')),
    "in a failed submission": (OPENAI_IMAGES, whole(KEY, b"500 " + KEY)),
}


@pytest.mark.parametrize(("path", "answer"), ECHOES.values(), ids=ECHOES)
def test_the_key_is_masked_wherever_it_is_echoed(front: Front, path: str, answer: bytes) -> None:
    """An upstream that writes its callers' keys into its errors tells them to nobody."""
    heard = front.call(path, answer)
    everything = heard.body + repr(heard.headers).encode()
    assert KEY not in everything
    assert KEY.lower() not in everything.lower()


URLS = {
    "the key": b"https://example.com/?key=" + KEY,
    "the key, behind escapes": b"https:\\/\\/example.com\\/?key=" + ESCAPED_KEY,
    "metadata": b"http://169.254.169.254/latest/meta-data/",
    "this machine": b"http://127.0.0.1:6379/",
    "a file": b"file:///etc/passwd",
    "a script": b"javascript:alert(1)",
}


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_a_picture_is_not_fetched_from_anywhere(front: Front, url: bytes) -> None:
    """Asked for as base64: what only this machine reaches is not read for anybody, and what is no place is not told."""
    answers = itertools.chain(
        [[new_job()[0]]], itertools.repeat([whole(b'{"status":"success","image_url":"%b"}' % url)])
    )
    front.attacker.answer = lambda: next(answers)
    heard = send(front.gateway.url, OPENAI_IMAGES, {**IMAGE, "response_format": "b64_json"}, front.key)
    assert KEY not in heard.body
    assert b'"b64_json"' not in heard.body
    assert EXACT == front.entry(heard)


FREE = (
    b'"cost":0,"cost_usd":"0.00","cost_nano_usd":0,"price":0,"units":0,"refunded":true,"jobs":[],"message":"[DONE]",'
    b'"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":1},"choices":[],"error":null'
)
"""What a job's answers may say of its cost; its price is that of the list."""


@pytest.mark.parametrize(("path", "asked"), [(IMAGES, {}), (OPENAI_IMAGES, {"n": 2})], ids=["own", "openai"])
def test_an_image_costs_its_price_whatever_its_answers_say(front: Front, path: str, asked: dict[str, int]) -> None:
    """The submission's and the polls': they name a job, its state and its picture, and nothing else of them is read."""
    done = whole(b'{"status":"success","image_url":"https://example.com/a.png",%b}' % FREE)

    def cost(*submissions: tuple[bytes, dict[str, object]]) -> int:
        answers = itertools.chain([[job] for job, _ in submissions], itertools.repeat([done]))
        front.attacker.answer = lambda: next(answers)
        heard = send(front.gateway.url, path, IMAGE | asked, front.key)
        polled = [send(front.gateway.url, JOBS, poll, front.key).status for _, poll in submissions]
        assert (200, {200}, EXACT) == (heard.status, set(polled), front.entry(heard))
        return int(front.admin.ledger(request_id=heard.request_id)[0]["cost_nano_usd"])

    jobs = [new_job() for _ in range(2 * asked.get("n", 1))]
    plain, claiming = jobs[::2], [(with_claims(job), poll) for job, poll in jobs[1::2]]
    assert 0 < cost(*plain) == cost(*claiming)


def with_claims(answer: bytes) -> bytes:
    return whole(answer.rpartition(b"\r\n")[2].removesuffix(b"}") + b"," + FREE + b"}")


POLLS: dict[str, tuple[bytes, int, str | None]] = {
    "a redirect": (whole(KEY, b"302 Found", b"Location: http://169.254.169.254/\r\n"), 502, "upstream_error"),
    "gzip": (whole(gzip.compress(KEY), headers=GZIPPED), 502, "upstream_error"),
    "HTTP/0.9": (KEY, 502, "upstream_error"),
    "the key": (whole(b'{"status":"pending","message":"' + KEY + b'"}'), 200, None),
    "a failure with the key": (whole(KEY, b"500 " + KEY), 500, None),
}


@pytest.mark.parametrize(("answer", "status", "code"), POLLS.values(), ids=POLLS)
def test_a_poll_is_attacked_in_vain(front: Front, answer: bytes, status: int, code: str | None) -> None:
    """The same for what is asked about a job: its charge stays as it is."""
    job, poll = new_job()
    submitted = front.call(IMAGES, job)
    heard = front.call(JOBS, answer, poll)
    assert (status, code) == (heard.status, code_of(heard))
    assert KEY not in heard.body + repr(heard.headers).encode()
    assert EXACT == front.entry(submitted)


def test_a_slow_poll_ends(front: Front) -> None:
    """Nobody waits for it longer than for any answer."""
    job, poll = new_job()
    front.call(IMAGES, job)
    heard = front.call(JOBS, drip(b"HTTP/1.1 200 OK\r\n\r\n{", b" ", NEVER), poll)
    assert (502, "upstream_error") == (heard.status, code_of(heard))
