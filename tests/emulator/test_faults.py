"""Every fault does what its explanation says, seen by a client on a real socket."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import struct
import threading
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from gateway.emulator.faults import FAULTS
from tests.emulator.driver import KEY, Emulator, chat_body, content, events

PROMPT_TOKENS = 15


def usage_claims(answer: httpx.Response) -> list[dict[str, Any]]:
    return [event["usage"] for event in events(answer) if event["usage"] is not None]


def test_every_fault_is_explained(emulator: Emulator) -> None:
    """GET /__faults is the manual."""
    listed = emulator.client.get("/__faults").json()["faults"]
    assert set(FAULTS) == set(listed)
    assert all(listed.values())


@pytest.mark.parametrize("fault", ["nothing", "status", "status=abc", "status=99", "reset=1", "split=0", "gap=-1"])
def test_a_fault_that_does_not_exist_is_refused(emulator: Emulator, fault: str) -> None:
    """A test with a typing error must not pass for want of the fault."""
    assert "unknown_fault" == emulator.chat(fault).json()["error"]["code"]
    assert 400 == emulator.client.post("/__faults", json={"fault": fault}).status_code


def test_a_marker_in_the_prompt_asks_for_faults(emulator: Emulator) -> None:
    """For calls whose headers do not reach the emulator."""
    assert 418 == emulator.chat(text="Hello [[fault:status=418]] there").status_code
    assert 418 == emulator.image(prompt="A lake [[fault:status=418]]").status_code


def test_queued_faults_last_for_their_count(emulator: Emulator) -> None:
    """In order, for calls that ask for none themselves; polls are left alone unless named."""
    emulator.client.post("/__faults", json={"fault": "status=500", "count": 2})
    emulator.client.post("/__faults", json={"fault": "status=502", "kind": "poll"})
    statuses = [emulator.chat().status_code, emulator.chat("status=429").status_code]
    statuses += [emulator.image().status_code, emulator.chat().status_code]
    assert [500, 429, 500, 200] == statuses
    poll = emulator.client.post("/api/texttoimage/jobs/", json={"jobid": "1", "signature": "x"})
    assert 502 == poll.status_code


@pytest.mark.parametrize("order", [{"fault": 1}, {"fault": "reset", "count": 0}, {"fault": "reset", "kind": "x"}, []])
def test_a_bad_order_is_refused(emulator: Emulator, order: object) -> None:
    """400, and nothing is queued."""
    assert 400 == emulator.client.post("/__faults", json=order).status_code
    assert [] == emulator.client.get("/__faults").json()["queued"]


@pytest.mark.parametrize(
    ("fault", "status", "content_type", "text"),
    [
        ("status=500", 500, "application/json", "emulated status 500"),
        ("status=503;body=html", 503, "text/html; charset=utf-8", "<h1>Error 503</h1>"),
        ("json200", 200, "application/json", "emulated error"),
        ("html200", 200, "text/html; charset=utf-8", "<h1>Maintenance</h1>"),
        ("echo_key", 500, "application/json", f"Bearer {KEY}"),
        ("redirect", 307, "text/html; charset=utf-8", ""),
    ],
)
def test_an_answer_can_be_replaced(emulator: Emulator, fault: str, status: int, content_type: str, text: str) -> None:
    """Then nothing is generated, and nothing billed."""
    answer = emulator.chat(fault)
    line = emulator.line()
    assert (status, content_type) == (answer.status_code, answer.headers["content-type"])
    assert text in answer.text
    assert (0, None, fault) == (line["generated_nano_usd"], line["claimed"], line["fault"])


@pytest.mark.parametrize(
    ("fault", "claims"),
    [
        ("no_usage", []),
        ("usage_twice", [(15, 5, 20), (15, 10, 25)]),
        ("usage_more=7", [(15, 17, 32)]),
        ("usage_zero", [(0, 0, 0)]),
        ("usage_negative", [(-15, -10, -25)]),
        ("usage_huge", [(10**18, 10**18, 2 * 10**18)]),
        ("usage_bool", [(True, True, True)]),
        ("usage_float", [(15.5, 10.5, 25.5)]),
        ("usage_string", [("15", "10", "25")]),
    ],
)
def test_usage_can_be_wrong(emulator: Emulator, fault: str, claims: list[tuple[object, ...]]) -> None:
    """What was truly generated stays on the bill; what was claimed stands beside it."""
    answer = emulator.chat(f"{fault};tokens=10")
    usages = usage_claims(answer)
    line = emulator.line()
    assert claims == [(u["prompt_tokens"], u["completion_tokens"], u["total_tokens"]) for u in usages]
    assert (usages[-1] if usages else None) == line["claimed"]
    assert {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": 10} == line["generated"]
    assert PROMPT_TOKENS * 150 + 10 * 600 == line["generated_nano_usd"]


@pytest.mark.parametrize("fault", ["usage_negative", "usage_bool", "usage_float", "usage_string", "no_usage"])
def test_what_cannot_be_priced_has_no_claimed_amount(emulator: Emulator, fault: str) -> None:
    """Null, not a number that looks right."""
    emulator.chat(fault)
    assert emulator.line()["claimed_nano_usd"] is None


def test_done_can_be_missing(emulator: Emulator) -> None:
    """The body ends properly, after the usage."""
    whole = emulator.chat("tokens=4").text
    assert whole.removesuffix("data: [DONE]\n\n") == emulator.chat("no_done;tokens=4").text


@pytest.mark.parametrize(("fault", "end"), [("crlf", "\r\n"), ("cr", "\r")])
def test_line_ends_can_differ(emulator: Emulator, fault: str, end: str) -> None:
    """Every line, and nothing else."""
    assert emulator.chat().text.replace("\n", end) == emulator.chat(fault).text


def test_line_separators_stand_raw_in_the_json(emulator: Emulator) -> None:
    """Clients that split lines the Unicode way break here; the JSON is valid all the same."""
    answer = emulator.chat("u2028")
    assert "\u2028".encode() in answer.content
    assert content(answer).startswith("A\u2028B\u2029C")


def test_an_event_can_be_broken(emulator: Emulator) -> None:
    """One event more, which is no JSON; the rest is whole."""
    whole, broken = emulator.chat().text.split("\n\n"), emulator.chat("broken_event").text.split("\n\n")
    (extra,) = [event for event in broken if event not in whole]
    assert len(whole) + 1 == len(broken)
    with pytest.raises(json.JSONDecodeError):
        json.loads(extra.removeprefix("data: "))


def test_comments_stand_between_events(emulator: Emulator) -> None:
    """Comment lines, as servers send them to keep connections open."""
    answer = emulator.chat("comment").text
    assert answer.count(": the emulator is still here\n\n") == emulator.chat().text.count("data: ")
    assert emulator.chat().text == answer.replace(": the emulator is still here\n\n", "")


def test_an_event_can_be_big(emulator: Emulator) -> None:
    """Padding in a field nobody reads: same tokens, same text."""
    answer = emulator.chat("big_event=300000")
    assert max(len(line) for line in answer.text.splitlines()) > 300_000
    assert content(emulator.chat()) == content(answer)


@pytest.mark.parametrize(("fault", "size"), [("one_byte", 1), ("split=7", 7), ("split=1000", 1000)])
def test_bytes_can_go_out_in_pieces(emulator: Emulator, emulator_url: str, fault: str, size: int) -> None:
    """Each piece is a chunk of the body on its own, across event borders; together they are the answer."""
    chunks = chunked_body(raw_answer(emulator_url, f"{fault};tokens=4"))
    assert {size} == {len(chunk) for chunk in chunks[:-1]}
    assert emulator.chat("tokens=4").content == b"".join(chunks)


def test_gzip_can_come_unasked(emulator: Emulator, emulator_url: str) -> None:
    """Though the request said identity."""
    head, _, _ = raw_answer(emulator_url, "gzip").partition(b"\r\n\r\n")
    body = gzip.decompress(b"".join(chunked_body(raw_answer(emulator_url, "gzip"))))
    assert b"content-encoding: gzip" in head
    assert emulator.chat().content == body


@pytest.mark.parametrize("kind", ["chat", "image", "poll"])
def test_a_connection_can_be_reset_before_any_byte(emulator: Emulator, kind: str) -> None:
    """The call was received whole, so its prompt, or its image, is billed: the caller cannot know."""
    paths = {"chat": "chat-completions", "image": "texttoimage", "poll": "texttoimage/jobs"}
    image = {"model": "realvision", "prompt": "A lake"}
    bodies = {"chat": chat_body(), "image": image, "poll": {"jobid": "1", "signature": "x"}}
    with pytest.raises(httpx.ReadError, match="reset"):
        emulator.client.post(f"/api/{paths[kind]}/", json=bodies[kind], headers={"x-emulator-fault": "reset"})
    lines = emulator.bill()["lines"]
    costs = {"chat": [PROMPT_TOKENS * 150], "image": [1_500_000], "poll": []}
    assert costs[kind] == [line["generated_nano_usd"] for line in lines]
    assert not any(line["finished"] or line["client_left"] for line in lines)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_connection_can_break_after_some_events(emulator: Emulator, count: int) -> None:
    """Exactly those events arrive, then the body ends unfinished; the tokens of those events are billed."""
    expected = b"".join(event + b"\n\n" for event in emulator.chat("tokens=9").content.split(b"\n\n")[:count])
    assert expected == broken_body(emulator, f"reset_at={count};tokens=9")
    line = emulator.line()
    assert (False, False, len(expected)) == (line["finished"], line["client_left"], line["sent_bytes"])
    assert count <= line["generated"]["completion_tokens"] < 9


@pytest.mark.parametrize("count", [0, 1, 500])
@pytest.mark.parametrize("pace", ["", ";one_byte"])
def test_a_connection_can_break_after_some_bytes(emulator: Emulator, count: int, pace: str) -> None:
    """Exactly those bytes arrive, wherever in an event they end."""
    assert emulator.chat("tokens=9").content[:count] == broken_body(emulator, f"reset_byte={count};tokens=9{pace}")


@pytest.mark.parametrize("fault", ["reset_at=5000", "reset_byte=5000000"])
def test_a_break_beyond_the_end_leaves_the_body_unfinished(emulator: Emulator, fault: str) -> None:
    """All bytes, [DONE] included, but no proper end."""
    assert emulator.chat().content == broken_body(emulator, fault)


def test_an_answer_can_be_withheld(emulator: Emulator) -> None:
    """Not even headers before the release; one waits for the count, so no test sleeps."""
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(emulator.chat("withhold"))) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert 5 == emulator.client.get("/__withheld", params={"at_least": 5}).json()["withheld"]
    assert [] == answers
    assert 5 == emulator.client.post("/__release").json()["released"]
    for thread in threads:
        thread.join()
    assert [200] * 5 == [answer.status_code for answer in answers]
    assert 0 == emulator.client.get("/__withheld").json()["withheld"]


def test_hundreds_of_answers_can_be_withheld_at_once(emulator: Emulator, emulator_url: str) -> None:
    """As many as a test needs to show that exactly k of them were admitted."""
    with contextlib.ExitStack() as connections:
        for _ in range(300):
            connections.enter_context(leaving(emulator_url, "withhold"))
        assert 300 == emulator.client.get("/__withheld", params={"at_least": 300}).json()["withheld"]
        assert 300 == emulator.client.get("/__bill").json()["running"]
    assert 300 * PROMPT_TOKENS * 150 == emulator.bill()["totals"]["generated_nano_usd"]


def test_the_rest_of_an_answer_can_be_withheld(emulator: Emulator) -> None:
    """The first events arrive while the others wait: this shows that a proxy does not buffer."""
    fault = {"x-emulator-fault": "withhold_after=2"}
    with emulator.client.stream("POST", "/api/chat-completions/", json=chat_body(), headers=fault) as answer:
        chunks = answer.iter_raw()
        first = b""
        while first.count(b"\n\n") < 2:
            first += next(chunks)
        assert 1 == emulator.client.get("/__withheld", params={"at_least": 1}).json()["withheld"]
        emulator.client.post("/__release")
        rest = b"".join(chunks)
    assert 2 == first.count(b"\n\n")
    assert emulator.chat().content == first + rest


def test_delays_and_gaps_change_no_byte(emulator: Emulator) -> None:
    """Pacing is about time only."""
    assert emulator.chat("tokens=3").content == emulator.chat("delay=0.01;gap=0.01;tokens=3").content


def test_an_answer_that_ignores_its_maximum_is_billed_whole(emulator: Emulator) -> None:
    """What a gateway held for it is then too little: claimed and generated are the same, and above the maximum."""
    emulator.client.post(
        "/api/chat-completions/", json=chat_body(max_completion_tokens=3), headers={"x-emulator-fault": "past_max=4"}
    )
    line = emulator.line()
    assert 7 == line["claimed"]["completion_tokens"] == line["generated"]["completion_tokens"]


@pytest.mark.parametrize("fault", ["endless", "gap=30", "withhold_after=3"])
def test_a_client_that_leaves_stops_generation(emulator: Emulator, emulator_url: str, fault: str) -> None:
    """Generated counts only what was produced until then, and the line says who left."""
    with leaving(emulator_url, fault) as connection:
        assert connection.recv(64).startswith(b"HTTP/1.1 200")
    line = emulator.line()
    assert (True, False, None) == (line["client_left"], line["finished"], line["claimed"])
    assert line["generated"]["prompt_tokens"] == PROMPT_TOKENS
    cost = PROMPT_TOKENS * 150 + line["generated"]["completion_tokens"] * 600
    assert cost == line["generated_nano_usd"]


def test_a_client_that_leaves_before_the_headers_pays_the_prompt(emulator: Emulator, emulator_url: str) -> None:
    """The call was accepted, so the model read it."""
    with leaving(emulator_url, "withhold"):
        emulator.client.get("/__withheld", params={"at_least": 1})
    line = emulator.line()
    assert (True, PROMPT_TOKENS * 150, 0) == (
        line["client_left"],
        line["generated_nano_usd"],
        line["sent_bytes"],
    )


def broken_body(emulator: Emulator, fault: str) -> bytes:
    """The body up to where the connection broke."""
    received: list[bytes] = []
    path, headers = "/api/chat-completions/", {"x-emulator-fault": fault}
    with (
        emulator.client.stream("POST", path, json=chat_body(), headers=headers) as answer,
        pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"),
    ):
        received.extend(answer.iter_raw())
    return b"".join(received)


def leaving(url: str, fault: str) -> socket.socket:
    """A connection with a chat call on it, closed by the caller's `with`, at once and whatever is unread."""
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname, address.port or 80), timeout=20)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    body = json.dumps(chat_body()).encode()
    head = f"POST /api/chat-completions/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Accept-Encoding: identity\r\nX-Emulator-Fault: {fault}\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def raw_answer(url: str, fault: str) -> bytes:
    """Everything the server writes until the end of its chunked body."""
    with leaving(url, fault) as connection:
        received = b""
        while not received.endswith(b"\r\n0\r\n\r\n"):
            received += connection.recv(65_536)
        return received


def chunked_body(answer: bytes) -> list[bytes]:
    """The chunks of a chunked body."""
    rest = answer.partition(b"\r\n\r\n")[2]
    chunks: list[bytes] = []
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if int(size, 16) == 0:
            return chunks
        chunks.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
