"""OpenAI's chat path: streams with and without their usage, streams folded into one object, and what both cost."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.client import CHAT, Answer, send
from tests.e2e.waiting import until
from tests.stack import UPSTREAM_KEY, Admin, Process, Stack, chat

OPENAI_CHAT = "/v1/chat/completions"
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
    """Everything else is the upstream's, byte for byte."""
    expected = serving.upstream("Hello")
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
