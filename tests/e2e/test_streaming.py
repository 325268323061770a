"""Streams through the gateway: every byte, at once, and every way a stream can end."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

from tests.e2e.client import CHAT, send, stream
from tests.e2e.waiting import until
from tests.stack import UPSTREAM_KEY, Admin, Process, Stack, bearer, chat

CONNECTIONS_MAX = 4

SHAPES = [
    "crlf",
    "cr",
    "one_byte",
    "split=7",
    "split=1000;crlf",
    "u2028",
    "u2028;one_byte",
    "comment",
    "usage_twice",
    "usage_zero",
    "usage_negative",
    "usage_huge",
    "usage_bool",
    "usage_float",
    "usage_string",
    "no_usage",
    "no_done",
    "no_usage;no_done",
    "broken_event",
    "big_event=300000",
    "tokens=300",
    "delay=0.01;gap=0.001",
]

PROMPTS = ["Hello", "Xin chào Việt Nam", "שלום עולם", '👨‍👩‍👧‍👦 \u2028 \u0000 \\ "', " ", "long " * 20_000]


@dataclass(frozen=True)
class Serving:
    """A gateway of this module and a key that may spend anything."""

    stack: Stack
    gateway: Process
    admin: Admin
    key: str

    def entry(self, request_id: str) -> dict[str, object]:
        """The one entry of a call, once it is written."""
        entries = until(lambda: self.admin.ledger(request_id=request_id))
        assert 1 == len(entries)
        return entries[0]

    def bill_line(self, request_id: str) -> dict[str, object]:
        """The emulator's line of a call."""
        lines = [line for line in self.stack.bill()["lines"] if line["request_id"] == request_id]
        assert 1 == len(lines)
        line: dict[str, object] = lines[0]
        return line

    def log_line(self, request_id: str) -> dict[str, object] | None:
        """What the gateway logged about a call, if it has."""
        lines = [json.loads(line) for line in self.gateway.output.splitlines() if request_id in line]
        return lines[0] if lines else None

    def wait_until_nothing_is_held(self) -> None:
        until(lambda: self.admin.get("/holds")["data"] == [])


@pytest.fixture(scope="module")
def serving(stack: Stack) -> Iterator[Serving]:
    """A gateway with few upstream connections and a short drain, so that a leak shows."""
    gateway = stack.gateway(
        upstream_connections_max=str(CONNECTIONS_MAX),
        upstream_connect_timeout_s="1",
        drain_s="2",
        client_write_timeout_s="0.3",
    )
    admin = Admin(gateway.url)
    yield Serving(stack, gateway, admin, admin.key("streams", "an")["key"])
    admin.http.close()


@pytest.mark.parametrize("fault", SHAPES)
def test_every_shape_of_stream_passes_byte_for_byte(serving: Serving, fault: str) -> None:
    """Whatever the upstream writes is the client's; a meter must never edit what it reads."""
    body = chat(f"Tell me something. [[fault:{fault}]]")
    expected = send(serving.stack.emulator_url, CHAT, body, UPSTREAM_KEY)
    actual = send(serving.gateway.url, CHAT, body, serving.key)
    assert (expected.status, expected.body) == (actual.status, actual.body)
    assert expected.headers["content-type"] == actual.headers["content-type"]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_every_prompt_reaches_the_upstream_as_it_was_sent(serving: Serving, prompt: str) -> None:
    """The emulator's answer depends on every character of the request, so equal answers prove an equal request."""
    body = chat(prompt, "gpt-4.1-nano", temperature=0.7, max_completion_tokens=40)
    expected = send(serving.stack.emulator_url, CHAT, body, UPSTREAM_KEY)
    actual = send(serving.gateway.url, CHAT, body, serving.key)
    assert (200, expected.body) == (actual.status, actual.body)
    assert serving.bill_line(actual.request_id)["claimed_nano_usd"] == serving.entry(actual.request_id)["cost_nano_usd"]


def test_the_first_chunk_arrives_while_the_second_is_withheld(serving: Serving) -> None:
    """Nothing is gathered on the way: an event is with the client before the next one exists."""
    body = chat("Slowly, please. [[fault:withhold_after=1]]")
    with stream(serving.gateway.url, CHAT, body, serving.key) as answer:
        first = answer.read_event()
        assert 1 == serving.stack.emulator.get("/__withheld", params={"at_least": "1"}).json()["withheld"]
        serving.stack.emulator.post("/__release")
        answer.read_rest()
    assert first.startswith(b"data: {")
    assert answer.received.endswith(b"data: [DONE]\n\n")


def test_who_sees_the_end_of_a_stream_sees_its_bill(serving: Serving) -> None:
    """The end of the body waits for the settlement, so no hold is open when the client has read it."""
    answer = send(serving.gateway.url, CHAT, chat("And the bill?"), serving.key)
    entries = serving.admin.ledger(request_id=answer.request_id)
    assert [("capture", [])] == [(entry["type"], entry["flags"]) for entry in entries]


def test_a_client_that_leaves_is_billed_exactly(serving: Serving) -> None:
    """The upstream is read on to its usage, so the books agree with its bill to the nano-dollar."""
    body = chat("I will not wait. [[fault:gap=0.01;tokens=30]]")
    with stream(serving.gateway.url, CHAT, body, serving.key) as answer:
        answer.read_event()
    entry, line = serving.entry(answer.request_id), serving.bill_line(answer.request_id)
    assert ("capture", "upstream", []) == (entry["type"], entry["usage_source"], entry["flags"])
    assert (line["claimed_nano_usd"], 30) == (entry["cost_nano_usd"], entry["completion_tokens"])
    assert line["claimed_nano_usd"] == line["generated_nano_usd"]
    logged = until(lambda: serving.log_line(answer.request_id))
    assert logged
    assert logged["client_left"]


def test_a_client_that_leaves_before_its_answer_is_billed_exactly(serving: Serving) -> None:
    """The request is on its way and will be billed, whether or not anybody waits."""
    body = chat("Nobody waits [[fault:withhold]]")
    with pytest.raises(TimeoutError), stream(serving.gateway.url, CHAT, body, serving.key, timeout_s=0.2):
        pass
    assert 1 == serving.stack.emulator.get("/__withheld", params={"at_least": "1"}).json()["withheld"]
    (hold,) = serving.admin.get("/holds")["data"]
    serving.stack.emulator.post("/__release")
    entry, line = serving.entry(hold["request_id"]), serving.bill_line(hold["request_id"])
    assert ([], line["claimed_nano_usd"]) == (entry["flags"], entry["cost_nano_usd"])
    assert line["claimed_nano_usd"] == line["generated_nano_usd"]


def test_a_client_that_does_not_read_counts_as_gone(serving: Serving) -> None:
    """It cannot hold a connection, memory and money for ever: past the write time-out it is treated as one that left,
    so the answer is read on without it, and billed exactly."""
    body = chat("Too much [[fault:big_event=20000000]]", max_completion_tokens=20)
    with stream(serving.gateway.url, CHAT, body, serving.key) as answer:
        serving.wait_until_nothing_is_held()
        entry, line = serving.entry(answer.request_id), serving.bill_line(answer.request_id)
    assert ("capture", [], line["claimed_nano_usd"]) == (entry["type"], entry["flags"], entry["cost_nano_usd"])


def test_a_drain_is_bounded_and_leaks_no_connection(serving: Serving) -> None:
    """Clients leave more often than there are upstream connections, and the upstream never goes on: each call ends
    as an estimate within the drain time, its connection is free again, and its hold is gone."""

    def leave(number: int) -> str:
        body = chat(f"Goodbye {number} [[fault:withhold_after=1]]")
        with stream(serving.gateway.url, CHAT, body, serving.key) as answer:
            answer.read_event()
        return answer.request_id

    request_ids: list[str] = []
    with ThreadPoolExecutor(CONNECTIONS_MAX) as pool:
        for _ in range(2):
            request_ids += pool.map(leave, range(CONNECTIONS_MAX))
            serving.wait_until_nothing_is_held()
    for request_id in request_ids:
        entry = serving.entry(request_id)
        assert ("capture", ["estimated"]) == (entry["type"], entry["flags"])
        assert serving.bill_line(request_id)["generated_nano_usd"] == entry["cost_nano_usd"]
    assert 200 == send(serving.gateway.url, CHAT, chat("Still there?"), serving.key).status
    assert 0 == serving.stack.emulator.get("/__withheld").json()["withheld"]


def test_an_endless_stream_costs_no_more_than_its_hold(serving: Serving) -> None:
    """An upstream that never stops is left when the drain is over; the estimate is bounded by what was held."""
    body = chat("For ever [[fault:endless]]", max_completion_tokens=20)
    with stream(serving.gateway.url, CHAT, body, serving.key) as answer:
        answer.read_event()
        held = serving.admin.get("/holds")["data"][0]["hold_nano_usd"]
    entry = serving.entry(answer.request_id)
    assert (["estimated"], 20) == (entry["flags"], entry["completion_tokens"])
    assert int(str(entry["cost_nano_usd"])) <= held


@pytest.mark.parametrize("fault", ["reset_at=3", "reset_byte=900"])
def test_an_upstream_that_breaks_off_ends_in_an_error_event(serving: Serving, fault: str) -> None:
    """Clients take a missing [DONE] for success, so they are told; and a [DONE] is never forged."""
    body = chat(f"Break off. [[fault:{fault};tokens=50]]")
    whole = send(serving.stack.emulator_url, CHAT, chat("Break off. [[fault:tokens=50]]"), UPSTREAM_KEY).body
    actual = send(serving.gateway.url, CHAT, body, serving.key)
    *_, before, last = actual.body.split(b"data: ")
    error = json.loads(last)["error"]
    assert (200, "upstream_error", "upstream_error") == (actual.status, error["type"], error["code"])
    assert b"[DONE]" not in actual.body
    assert before.endswith(b"\n\n"), "the error event must stand apart from a line that was cut in half"
    assert actual.body.endswith(b"\n\n")
    assert len(whole) > len(actual.body) > 0
    entry, line = serving.entry(actual.request_id), serving.bill_line(actual.request_id)
    assert ("capture", "estimated", ["estimated"]) == (entry["type"], entry["usage_source"], entry["flags"])
    assert int(str(entry["cost_nano_usd"])) <= int(str(line["generated_nano_usd"]))


def test_one_connection_carries_call_after_call(serving: Serving) -> None:
    """Refused, failed and finished calls leave a kept-alive connection as it should be, whatever their bodies."""
    bodies: list[tuple[object, str, int]] = [
        (chat("x" * 1_000_000), "sk-mt-default-guessed", 401),
        (chat("First"), serving.key, 200),
        (chat("x" * 1_000_000, "gpt-5"), serving.key, 404),
        (chat("[[fault:status=500]]"), serving.key, 500),
        (chat("[[fault:reset]]"), serving.key, 502),
        (chat("[[fault:reset_at=2]]"), serving.key, 200),
        (chat("Last"), serving.key, 200),
    ]
    with httpx.Client(base_url=serving.gateway.url) as client:
        statuses = [client.post(CHAT, json=body, headers=bearer(key)).status_code for body, key, _ in bodies]
        last = client.post(CHAT, json=chat("Last"), headers=bearer(serving.key)).content
    assert [status for _, _, status in bodies] == statuses
    assert send(serving.stack.emulator_url, CHAT, chat("Last"), UPSTREAM_KEY).body == last


def test_an_upstream_that_resets_before_its_answer_is_booked_as_an_estimate(serving: Serving) -> None:
    """The request left whole and may have been billed (the emulator bills its prompt): 502, not to be repeated."""
    answer = send(serving.gateway.url, CHAT, chat("Anybody? [[fault:reset]]"), serving.key)
    assert (502, "upstream_error", "false") == (answer.status, answer.error["code"], answer.headers["x-should-retry"])
    entry, line = serving.entry(answer.request_id), serving.bill_line(answer.request_id)
    assert ["estimated", "unanswered"] == entry["flags"]
    assert line["generated_nano_usd"] == entry["cost_nano_usd"]
