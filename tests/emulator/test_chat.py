"""Chat calls over a real socket: the documented shape, the right bill, an end to the money."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from gateway.emulator import tokens
from gateway.emulator.contract import DATED_MODELS
from gateway.emulator.options import EmulatorOptions
from gateway.emulator.server import running
from tests.emulator.driver import BALANCE_NANO_USD, KEY, Emulator, chat_body, connected, content, events

CONTENT_KEYS = ["id", "object", "created", "model", "service_tier", "system_fingerprint", "choices", "usage"]


@pytest.mark.parametrize("model", DATED_MODELS)
def test_the_stream_has_the_documented_shape(emulator: Emulator, model: str) -> None:
    """Same keys, same order as the documentation's sample, dated model name, usage last."""
    answer = emulator.chat(model=model)
    *contents, finish, usage = events(answer)
    assert "text/event-stream; charset=utf-8" == answer.headers["content-type"]
    assert all(CONTENT_KEYS == list(event) and event["usage"] is None for event in [*contents, finish])
    assert {DATED_MODELS[model]} == {event["model"] for event in [*contents, finish, usage]}
    assert {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"} == finish["choices"][0]
    assert [] == usage["choices"]


def test_the_bytes_are_compact_and_end_like_the_sample(emulator: Emulator) -> None:
    """Byte for byte what the documentation prints, from `choices` on."""
    text = emulator.chat("tokens=3").text
    finish, usage, done, end = text.split("\n\n")[-4:]
    finish_end = '"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}'
    usage_end = (
        '"choices":[],"usage":{"prompt_tokens":15,"completion_tokens":3,"total_tokens":18,'
        '"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":'
        '{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}'
    )
    assert finish_end == finish[-len(finish_end) :]
    assert usage_end == usage[-len(usage_end) :]
    assert ("data: [DONE]", "") == (done, end)


@pytest.mark.parametrize("path", ["/api/chat-completions", "/api/chat-completions/"])
def test_equal_requests_have_equal_bytes(emulator: Emulator, path: str) -> None:
    """Tests compare a gateway's bytes with the emulator's own; another request has another answer."""
    body = emulator.client.post(path, json=chat_body()).content
    assert body == emulator.chat().content
    assert body != emulator.chat(text="Bye").content


@pytest.mark.parametrize("text", [f"question {number}" for number in range(12)])
def test_usage_is_what_tiktoken_counts(emulator: Emulator, text: str) -> None:
    """Claimed tokens are those of the text streamed, in every script, and the bill's line is their price."""
    answer = emulator.chat(text=text)
    usage = events(answer)[-1]["usage"]
    line = emulator.line()
    assert len(tokens.encode(content(answer))) == usage["completion_tokens"]
    assert 3 + (3 + 1 + 3) + (3 + 1 + len(tokens.encode(text))) == usage["prompt_tokens"]
    assert usage == line["claimed"]
    assert {name: usage[name] for name in ("prompt_tokens", "completion_tokens")} == line["generated"]
    assert 150 * usage["prompt_tokens"] + 600 * usage["completion_tokens"] == line["generated_nano_usd"]
    assert line["generated_nano_usd"] == line["claimed_nano_usd"]
    assert (True, False, len(answer.content)) == (line["finished"], line["client_left"], line["sent_bytes"])


def test_answers_speak_several_scripts(emulator: Emulator) -> None:
    """What meters split carelessly must occur: Vietnamese, Hebrew, Chinese, emoji."""
    text = "".join(content(emulator.chat(text=f"question {number}")) for number in range(40))
    assert set("ệש你🚀") <= set(text)


def test_an_answer_stops_at_max_completion_tokens(emulator: Emulator) -> None:
    """finish_reason length, and not a token more."""
    answer = emulator.chat("tokens=50", max_completion_tokens=7)
    *_, finish, usage = events(answer)
    assert "length" == finish["choices"][0]["finish_reason"]
    assert 7 == usage["usage"]["completion_tokens"]


@pytest.mark.parametrize("length", [1, 2, 5, 60, 999])
def test_the_length_of_an_answer_can_be_asked_for(emulator: Emulator, length: int) -> None:
    """Also where the last token is only a part of a character."""
    answer = emulator.chat(f"tokens={length}")
    assert length == events(answer)[-1]["usage"]["completion_tokens"]
    assert length == emulator.line()["generated"]["completion_tokens"]


def test_n_choices_are_all_answered_and_billed(emulator: Emulator) -> None:
    """`n` multiplies the output: each index has its own text and its own end."""
    answer = emulator.chat(n=3)
    texts = [content(answer, index) for index in range(3)]
    finished = [event["choices"][0]["index"] for event in events(answer)[-4:-1]]
    assert sum(len(tokens.encode(text)) for text in texts) == events(answer)[-1]["usage"]["completion_tokens"]
    assert 3 == len(set(texts))
    assert [0, 1, 2] == finished


@pytest.mark.parametrize("authorization", [None, "Bearer sk-other", "Basic c2stdGVzdA==", "Bearer", KEY])
def test_a_wrong_key_is_refused(emulator: Emulator, authorization: str | None) -> None:
    """401 with a JSON error, and no line in the bill."""
    headers = {} if authorization is None else {"authorization": authorization}
    answer = emulator.stranger.post("/api/chat-completions/", json=chat_body(), headers=headers)
    assert 401 == answer.status_code
    assert "invalid_api_key" == answer.json()["error"]["code"]


def test_a_bad_body_is_refused_with_the_field(emulator: Emulator) -> None:
    """400 with a JSON error."""
    answer = emulator.chat(temperature=3)
    assert (400, "temperature") == (answer.status_code, answer.json()["error"]["param"])
    assert [] == emulator.bill()["lines"]


def test_a_body_beyond_the_bound_is_refused() -> None:
    """413, whatever follows the bound."""
    with running(EmulatorOptions(keys=(KEY,), body_bytes_max=1_000)) as url, connected(url) as emulator:
        assert 413 == emulator.chat(text="x" * 1_000).status_code


def test_other_paths_and_methods_are_refused(emulator: Emulator) -> None:
    """404 and 405, not a stack trace."""
    assert 404 == emulator.client.get("/api/nothing").status_code
    assert 405 == emulator.client.get("/api/chat-completions/").status_code


def test_the_balance_runs_out_to_the_nano_dollar() -> None:
    """Room for exactly two calls: the third is 402, and the balance never goes below zero."""
    options = EmulatorOptions(keys=(KEY,), balance_nano_usd=2 * (15 * 150 + 10 * 600) + 1)
    with running(options) as url, connected(url) as emulator:
        assert [200, 200, 402] == [emulator.chat("tokens=10").status_code for _ in range(3)]
        assert 1 == emulator.bill()["balance_nano_usd"]
        assert 402 == emulator.image().status_code


def test_running_calls_hold_their_cost(emulator: Emulator) -> None:
    """Withheld calls count against the balance, or many at once would overspend it."""
    with emulator.client.stream("POST", "/api/chat-completions/", json=chat_body("[[fault:withhold_after=0]]")):
        bill = emulator.client.get("/__bill").json()
        assert 1 == bill["running"]
        assert bill["held_nano_usd"] > 0


def test_totals_are_the_sums_of_the_lines(emulator: Emulator) -> None:
    """balance = opening balance - sum of what was generated."""
    for fault in (None, "usage_zero", "status=500", "reset_at=4"):
        with_error(emulator, fault)
    emulator.image()
    bill = emulator.bill()
    generated = sum(line["generated_nano_usd"] for line in bill["lines"])
    assert (5, generated) == (bill["totals"]["calls"], bill["totals"]["generated_nano_usd"])
    assert BALANCE_NANO_USD - generated == bill["balance_nano_usd"]
    assert (0, 0) == (bill["held_nano_usd"], bill["running"])


def test_a_request_id_is_noted(emulator: Emulator) -> None:
    """So that a ledger entry and a bill line can be matched."""
    emulator.client.post("/api/chat-completions/", json=chat_body(), headers={"x-request-id": "req-1"})
    assert "req-1" == emulator.line()["request_id"]


def test_long_prompts_are_counted(emulator: Emulator) -> None:
    """Counted in a thread, with the same result."""
    answer = emulator.chat("tokens=1", text="hello world " * 20_000)
    assert 40_000 < events(answer)[-1]["usage"]["prompt_tokens"] < 40_040


def test_calls_are_listed_without_the_key(emulator: Emulator) -> None:
    """What arrived can be looked at; the secret cannot."""
    emulator.chat(text=f"my key is {KEY}")
    listed = emulator.client.get("/__requests")
    (call,) = listed.json()["requests"]
    assert ("POST", "/api/chat-completions/", True) == (call["method"], call["path"], call["authorised"])
    assert "my key is [key]" == json.loads(call["body"])["messages"][-1]["content"]
    assert ["authorization", "Bearer [key]"] in call["headers"]
    assert KEY not in listed.text


def with_error(emulator: Emulator, fault: str | None) -> Any:
    try:
        return emulator.chat(fault)
    except httpx.RemoteProtocolError as error:
        return error
