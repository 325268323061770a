"""OpenAI's chat path: streams with and without their usage, streams folded into one object, and what both cost."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.client import CHAT, OPENAI_CHAT, Answer, send, stream
from tests.e2e.waiting import until
from tests.stack import UPSTREAM_KEY, Admin, Process, Stack, chat

COST = {"x-gateway-include-cost": "1"}
WHOLE_ANSWER_BYTES_MAX = 20_000
WITH_USAGE: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
DONE = "[DONE]"


@dataclass(frozen=True)
class Serving:
    """A gateway of this module and a key that may spend anything."""

    stack: Stack
    gateway: Process
    admin: Admin
    key: str

    def ask(
        self, text: str, headers: Mapping[str, str] | None = None, path: str = OPENAI_CHAT, **fields: Any
    ) -> Answer:
        return send(self.gateway.url, path, chat(text, **fields), self.key, headers)

    def upstream(self, text: str, **fields: Any) -> list[Any]:
        """What the emulator streams to the same question, asked directly."""
        return events_of(send(self.stack.emulator_url, CHAT, chat(text, **fields), UPSTREAM_KEY).body)

    def entry(self, request_id: str) -> dict[str, Any]:
        """The one entry of a call, once it is written."""
        entries = until(lambda: self.admin.ledger(request_id=request_id))
        assert 1 == len(entries)
        return entries[0]

    def bill_line(self, request_id: str) -> dict[str, Any]:
        (line,) = [line for line in self.stack.bill()["lines"] if line["request_id"] == request_id]
        found: dict[str, Any] = line
        return found


@pytest.fixture(scope="module")
def serving(stack: Stack) -> Iterator[Serving]:
    gateway = stack.gateway(
        whole_answer_bytes_max=str(WHOLE_ANSWER_BYTES_MAX), upstream_answer_timeout_s="1", drain_s="5"
    )
    admin = Admin(gateway.url)
    yield Serving(stack, gateway, admin, admin.key("openai", "an")["key"])
    admin.http.close()


def events_of(body: bytes) -> list[Any]:
    """The data of a stream's events, decoded, but for [DONE]; its comments as they are."""
    blocks = [block for block in body.decode().split("\n\n") if block]
    return [decoded(block.removeprefix("data: ")) for block in blocks]


def decoded(data: str) -> Any:
    return json.loads(data) if data.startswith("{") else data


def is_usage(event: Any) -> bool:
    return isinstance(event, dict) and event.get("choices") == []


def joined(events: list[Any]) -> dict[int, str]:
    """What a reader of a stream puts together, choice by choice."""
    texts: dict[int, str] = {}
    for event in events:
        for choice in event["choices"] if isinstance(event, dict) else []:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["delta"].get("content", "")
    return texts


@pytest.mark.parametrize("path", [OPENAI_CHAT, f"{OPENAI_CHAT}/"])
def test_a_stream_has_its_usage_only_where_it_was_asked_for(serving: Serving, path: str) -> None:
    """Everything else is the upstream's, byte for byte, but for the role in the first event."""
    expected = serving.upstream("Hello")
    expected[0]["choices"][0]["delta"] = {"role": "assistant", **expected[0]["choices"][0]["delta"]}
    without = serving.ask("Hello", path=path, stream=True)
    with_usage = serving.ask("Hello", path=path, **WITH_USAGE)
    assert [event for event in expected if not is_usage(event)] == events_of(without.body)
    assert expected == events_of(with_usage.body)
    assert DONE == events_of(without.body)[-1]
    assert without.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize("fields", [{}, {"stream": False}, {"stream": None, "stream_options": None, "tools": None}])
@pytest.mark.parametrize("choices", [1, 2])
def test_one_object_is_the_stream_put_together(serving: Serving, fields: dict[str, Any], choices: int) -> None:
    """The same ids, names, texts and usage; settled before its headers, which say what it cost."""
    expected = serving.upstream("Fold me", n=choices)
    answer = serving.ask("Fold me", n=choices, **fields)
    assert (200, "application/json") == (answer.status, answer.headers["content-type"])
    first, usage = expected[0], next(event["usage"] for event in expected if is_usage(event))
    assert {
        **{name: first[name] for name in ("id", "created", "model", "service_tier", "system_fingerprint")},
        "object": "chat.completion",
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
            for index, text in sorted(joined(expected).items())
        ],
        "usage": usage,
    } == answer.json
    assert serving.entry(answer.request_id)["cost_usd"] == answer.headers["x-gateway-cost-usd"]


@pytest.mark.parametrize("fault", ["crlf", "cr", "one_byte", "comment", "u2028", "no_done", "usage_twice"])
def test_whatever_the_shape_of_the_stream_the_object_is_the_same(serving: Serving, fault: str) -> None:
    """Line ends and splits are the wire's, and a missing [DONE] takes nothing from an answer that is whole."""
    text = f"In shape [[fault:{fault}]]"
    answer = serving.ask(text)
    expected = events_of(
        send(serving.stack.emulator_url, CHAT, chat(text), UPSTREAM_KEY)
        .body.replace(b"\r\n", b"\n")
        .replace(b"\r", b"\n")
    )
    assert [joined(expected)[0]] == [choice["message"]["content"] for choice in answer.json["choices"]]
    assert [event for event in expected if is_usage(event)][-1]["usage"] == answer.json["usage"]
    assert serving.bill_line(answer.request_id)["claimed_nano_usd"] == serving.entry(answer.request_id)["cost_nano_usd"]


@pytest.mark.parametrize(
    ("fault", "status", "code", "retry", "flags"),
    [
        ("reset", 502, "upstream_error", "false", ["estimated", "unanswered"]),
        ("reset_at=3", 502, "upstream_error", "false", ["estimated"]),
        ("reset_byte=900", 502, "upstream_error", "false", ["estimated"]),
        ("withhold", 504, "upstream_timeout", "false", ["estimated", "unanswered"]),
        ("withhold_after=2", 504, "upstream_timeout", "false", ["estimated"]),
        ("no_usage", 502, "upstream_error", "false", ["estimated"]),
        ("broken_event", 502, "upstream_error", "false", []),
        ("tokens=900;big_event=0;u2028", 200, None, None, []),
        ("tokens=2000", 200, None, None, []),
        ("tokens=6000", 502, "upstream_error", "false", []),
        ("big_event=30000", 502, "upstream_error", "false", []),
        ("gzip", 502, "upstream_error", "false", ["estimated", "unanswered"]),
        ("status=402", 502, "upstream_refused", "false", None),
        ("status=429", 429, "emulated_error", None, None),
        ("status=500", 500, "emulated_error", None, None),
        ("json200", 502, "upstream_error", None, None),
        ("html200", 502, "upstream_error", None, None),
    ],
)
def test_what_is_not_whole_is_an_error_that_says_whether_it_was_billed(
    serving: Serving, fault: str, status: int, code: str | None, retry: str | None, flags: list[str] | None
) -> None:
    """Nothing was sent yet, so each ending has a status; what was or may have been billed is not to be repeated."""
    answer = serving.ask(f"In one piece [[fault:{fault}]]", max_completion_tokens=10_000)
    serving.stack.emulator.post("/__release")
    assert (status, retry) == (answer.status, answer.headers.get("x-should-retry"))
    assert code == (answer.json.get("error") or {}).get("code")
    entry = serving.entry(answer.request_id)
    assert ("release" if flags is None else "capture", flags or []) == (entry["type"], entry["flags"])
    assert entry["cost_usd"] == answer.headers["x-gateway-cost-usd"]
    if not flags:
        assert (serving.bill_line(answer.request_id)["claimed_nano_usd"] or 0) == entry["cost_nano_usd"]


@pytest.mark.parametrize("fault", ["reset_at=3", "reset_byte=900"])
def test_a_stream_that_breaks_off_ends_in_an_error_that_clients_can_read(serving: Serving, fault: str) -> None:
    """Of the event that was cut nothing is sent, so every event is JSON; and a [DONE] is never forged."""
    answer = serving.ask(f"Break off. [[fault:{fault};tokens=50]]", stream=True)
    *events, last = [event for event in events_of(answer.body) if event != ""]
    assert ("upstream_error", "upstream_error") == (last["error"]["type"], last["error"]["code"])
    assert events
    assert all(event["choices"] for event in events)
    assert ["estimated"] == serving.entry(answer.request_id)["flags"]


def test_the_first_chunk_arrives_while_the_second_is_withheld(serving: Serving) -> None:
    """Nothing but half an event is kept back on the way."""
    body = chat("Slowly, please. [[fault:withhold_after=1]]", stream=True)
    with stream(serving.gateway.url, OPENAI_CHAT, body, serving.key, COST) as answer:
        first = answer.read_event()
        assert 1 == serving.stack.emulator.get("/__withheld", params={"at_least": "1"}).json()["withheld"]
        serving.stack.emulator.post("/__release")
        answer.read_rest()
    assert first.startswith(b"data: {")
    assert answer.received.endswith(b"\n\ndata: [DONE]\n\n")


@pytest.mark.parametrize("withheld", ["withhold", "withhold_after=2"])
def test_a_client_that_leaves_before_its_object_is_whole_is_billed_exactly(serving: Serving, withheld: str) -> None:
    """The upstream is read on to its usage, and whoever has the Idempotency-Key may come back for the object."""
    text, headers = f"Nobody waits [[fault:{withheld}]]", {"idempotency-key": withheld}
    with (
        pytest.raises(TimeoutError),
        stream(serving.gateway.url, OPENAI_CHAT, chat(text), serving.key, headers, timeout_s=0.2),
    ):
        pass
    serving.stack.emulator.get("/__withheld", params={"at_least": "1"})
    (hold,) = serving.admin.get("/holds")["data"]
    serving.stack.emulator.post("/__release")
    entry, line = serving.entry(hold["request_id"]), serving.bill_line(hold["request_id"])
    assert ([], line["claimed_nano_usd"]) == (entry["flags"], entry["cost_nano_usd"])
    again = serving.ask(text, headers)
    assert ("true", "chat.completion") == (again.headers["idempotent-replayed"], again.json["object"])


@pytest.mark.parametrize(
    ("path", "fields"), [(CHAT, {}), (OPENAI_CHAT, {"stream": True}), (OPENAI_CHAT, WITH_USAGE), (OPENAI_CHAT, {})]
)
def test_the_cost_is_told_where_it_is_asked_for(serving: Serving, path: str, fields: dict[str, Any]) -> None:
    """As the ledger has it: in a comment before [DONE], and on OpenAI's path in the usage that is sent."""
    answer = serving.ask("How much?", COST, path, **fields)
    entry = serving.entry(answer.request_id)
    cost = {name: entry[name] for name in ("cost_usd", "cost_nano_usd")}
    events = [] if fields == {} and path == OPENAI_CHAT else events_of(answer.body)
    usages = [event["usage"] for event in events if is_usage(event)] if events else [answer.json["usage"]]
    if events:
        assert [f": cost_usd={entry['cost_usd']}", DONE] == events[-2:]
    assert [cost if path == OPENAI_CHAT else {}] * len(usages) == [
        {name: usage[name] for name in cost if name in usage} for usage in usages
    ]
    plain = serving.ask("How much?", {"x-gateway-include-cost": "0"}, path, **fields)
    assert b"cost" not in plain.body


@pytest.mark.parametrize("path", [CHAT, OPENAI_CHAT])
def test_a_wish_that_cannot_be_read_is_refused_before_anything_is_held(serving: Serving, path: str) -> None:
    """It is about money, so it is not ignored."""
    answer = serving.ask("Perhaps", {"x-gateway-include-cost": "maybe"}, path)
    assert (400, "x-gateway-include-cost") == (answer.status, answer.error["param"])
    assert "x-gateway-hold-usd" not in answer.headers


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
def test_a_repeat_gets_the_first_answer_as_it_was_shown(serving: Serving, fields: dict[str, Any]) -> None:
    """The same bytes, billed once; shown in another way it is another request, which the key does not stand for."""
    headers = {"idempotency-key": f"shown-{len(fields)}", **COST}
    first, again = (serving.ask("Once only", headers, **fields) for _ in range(2))
    assert (first.body, first.headers["content-type"]) == (again.body, again.headers["content-type"])
    assert ("true", first.headers.get("x-gateway-cost-usd")) == (
        again.headers["idempotent-replayed"],
        again.headers.get("x-gateway-cost-usd"),
    )
    others = [
        serving.ask("Once only", headers, stream=not fields),
        serving.ask("Once only", headers, **WITH_USAGE),
        serving.ask("Once only", {**headers, "x-gateway-include-cost": "0"}, **fields),
    ]
    assert [(409, "idempotency_conflict", "false")] * 3 == [
        (other.status, other.error["code"], other.headers["x-should-retry"]) for other in others
    ]


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
def test_a_budget_that_is_used_up_refuses_before_anything_is_sent(serving: Serving, fields: dict[str, Any]) -> None:
    """With what keeps the SDKs from trying again."""
    key = serving.admin.key("poor", budgets=[{"window": "total", "limit_usd": "0.00"}])["key"]
    before = len(serving.stack.bill()["lines"])
    answer = send(serving.gateway.url, OPENAI_CHAT, chat("Too poor", **fields), key)
    assert (402, "budget_exceeded", "false") == (
        answer.status,
        answer.error["code"],
        answer.headers["x-should-retry"],
    )
    assert before == len(serving.stack.bill()["lines"])


def test_calls_count_under_the_path_they_came_by(serving: Serving) -> None:
    """In the log, and so in metrics, which are fed from the same record."""
    answer = serving.ask("Count me")
    line = until(lambda: [line for line in serving.gateway.output.splitlines() if answer.request_id in line])[0]
    assert OPENAI_CHAT == json.loads(line)["endpoint"]
    wrong = serving.admin.http.get(OPENAI_CHAT)
    assert (405, f"Send POST to {OPENAI_CHAT}.") == (wrong.status_code, wrong.json()["error"]["message"])
