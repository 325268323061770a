"""The official npm client against the gateway: what `js/client.mjs` sees with nothing changed but URL and key."""

import base64
import json
import subprocess
from typing import Any

import pytest

from tests.e2e.client import stream
from tests.e2e.npm_client import command, environment, needs_npm_client, scenario
from tests.e2e.openai_face import MODEL, Face, asking
from tests.stack import chat

pytestmark = [needs_npm_client, pytest.mark.debian]

BRIEF: dict[str, Any] = {"model": MODEL, "max_tokens": 40}


def test_a_stream_says_what_the_whole_answer_says(face: Face) -> None:
    """And both what was billed."""
    key, request = face.key(), {**BRIEF, "messages": asking("Who are you?")}
    (whole,), _ = scenario(face.base_url, key, "whole", request)
    chunks, _ = scenario(face.base_url, key, "stream", {**request, "stream_options": {"include_usage": True}})
    (message,) = [choice["message"] for choice in whole["choices"]]
    said = [choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]]
    assert ("assistant", "".join(said)) == (message["role"], message["content"])
    assert [whole["usage"]] == [chunk["usage"] for chunk in chunks if chunk["usage"]]
    assert face.last_bill() == (whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"])


@pytest.mark.parametrize("choices", [1, 2])
def test_its_helper_puts_a_stream_together_and_goes_on_with_what_it_made(face: Face, choices: int) -> None:
    """It raises "missing role" where no chunk names one."""
    request = {**BRIEF, "messages": asking("Who are you?"), "n": choices}
    (first, second), statuses = scenario(face.base_url, face.key(), "conversation", request)
    (whole,), _ = scenario(face.base_url, face.key(), "whole", request)
    assert [200, 200] == statuses
    assert ["assistant"] == [choice["message"]["role"] for choice in second["choices"]]
    assert [("assistant", choice["message"]["content"]) for choice in whole["choices"]] == [
        (choice["message"]["role"], choice["message"]["content"]) for choice in first["choices"]
    ]


def test_the_first_chunk_is_read_while_the_second_is_withheld(face: Face) -> None:
    """The program prints it before the upstream has written another."""
    request = {**BRIEF, "messages": asking("Slowly, please. [[fault:withhold_after=1]]")}
    with subprocess.Popen(
        command("stream", request),
        env=environment(face.base_url, face.key()),
        stdout=subprocess.PIPE,
    ) as program:
        assert program.stdout is not None
        first = json.loads(program.stdout.readline())
        assert 1 == face.stack.emulator.get("/__withheld", params={"at_least": "1"}).json()["withheld"]
        face.stack.emulator.post("/__release")
        rest = [json.loads(line) for line in program.stdout]
    assert 0 == program.returncode
    assert {first["id"]} == {chunk["id"] for chunk in rest}
    assert rest[-1]["choices"][0]["finish_reason"]


def test_the_models_that_a_key_may_use(face: Face) -> None:
    """All of its list, and each under its name."""
    key = face.key(models=["gpt-4o"])
    (listed,), _ = scenario(face.base_url, key, "models")
    (retrieved,), _ = scenario(face.base_url, key, "model", "gpt-4o")
    assert [retrieved] == listed


def test_images(face: Face) -> None:
    """One in the answer itself; two by their URLs, paid for together."""
    key, request = face.key(), {"model": "dreamshaper", "prompt": "A lake"}
    (answer,), _ = scenario(face.base_url, key, "images", {**request, "response_format": "b64_json"})
    assert [b"\x89PNG"] == [base64.b64decode(image["b64_json"])[:4] for image in answer["data"]]
    (answer,), _ = scenario(face.base_url, key, "images", {**request, "n": 2})
    assert [True, True] == [image["url"].startswith("http") for image in answer["data"]]
    assert (2, 2 * 1_500_000) == tuple(face.last_charge()[name] for name in ("images", "cost_nano_usd"))


CLASSES: dict[str, tuple[dict[str, Any], dict[str, Any], str, dict[str, Any], list[int]]] = {
    "no money": (
        {"budgets": [{"window": "total", "limit_usd": "0.00"}]}, {}, "APIError",
        {"status": 402, "code": "budget_exceeded"}, [402],
    ),
    "another model's key": (
        {"models": ["gpt-4o"]}, {}, "PermissionDeniedError", {"status": 403, "code": "model_not_allowed"}, [403],
    ),
    "no such model": (
        {}, {"model": "gpt-2"}, "NotFoundError", {"status": 404, "code": "model_not_found", "param": "model"}, [404],
    ),
    "a field nobody knows": (
        {}, {"store": True}, "BadRequestError",
        {"status": 400, "code": "unsupported_parameter", "param": "store"}, [400],
    ),
    "perhaps billed": (
        {}, {"messages": asking("[[fault:reset]]")}, "InternalServerError",
        {"status": 502, "code": "upstream_error"}, [502],
    ),
    "an upstream that breaks off": (
        {}, {"messages": asking("[[fault:reset_at=3]]")}, "APIError", {"code": "upstream_error"}, [200],
    ),
    "an upstream that fails": (
        {}, {"messages": asking("[[fault:status=503]]")}, "InternalServerError", {"status": 503}, [503, 503, 503],
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", CLASSES)
def test_each_error_is_raised_as_its_class_and_repeated_only_where_that_is_of_use(face: Face, reason: str) -> None:
    """The client's own default is two repeats."""
    settings, changed, kind, expected, statuses = CLASSES[reason]
    request = {**BRIEF, "messages": asking("Please."), **changed}
    (*_, raised), heard = scenario(face.base_url, face.key(**settings), "error", request)
    assert (kind, expected, statuses) == (raised["class"], {name: raised[name] for name in expected}, heard)
    prompt = request["messages"][0]["content"]
    assert prompt == "Please." or len(statuses) == face.calls_upstream(prompt)


def test_a_wrong_key_is_raised_as_such(face: Face) -> None:
    """With the code that says whether it is missing, wrong or too old."""
    (raised,), statuses = scenario(face.base_url, "sk-wrong", "error", {**BRIEF, "messages": asking("Please.")})
    assert ("AuthenticationError", "invalid_api_key", [401]) == (raised["class"], raised["code"], statuses)


def test_a_rate_limit_is_raised_once_the_tries_are_used_up(face: Face) -> None:
    """There are none here: the wait would be a minute."""
    key, request = face.key(limits={"requests_per_minute": 1}), {**BRIEF, "messages": asking("One.")}
    scenario(face.base_url, key, "whole", request)
    (raised,), statuses = scenario(face.base_url, key, "error", request, {"maxRetries": 0})
    assert ("RateLimitError", "rate_limit_exceeded", [429]) == (raised["class"], raised["code"], statuses)


def test_too_many_calls_at_once_are_served_at_the_next_try(face: Face) -> None:
    """What was in the way ends when the first refusal has come."""
    key = face.key(limits={"concurrent_requests": 1})
    running = chat("Run. [[fault:withhold_after=1]]", stream=True)
    request = {**BRIEF, "messages": asking("Wait.")}
    with (
        stream(face.gateway.url, "/v1/chat/completions", running, key) as first,
        subprocess.Popen(
            command("whole", request),
            env=environment(face.base_url, key),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as program,
    ):
        assert program.stderr is not None
        statuses = [int(program.stderr.readline())]
        face.stack.emulator.post("/__release")
        first.read_rest()
        answer, more = program.communicate(timeout=30)
        statuses += [int(line) for line in more.split()]
    assert ([429, 200], "chat.completion") == (statuses, json.loads(answer)["object"])
