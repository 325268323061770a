"""The official Python client against the gateway, as its users have it but for URL and key."""

import asyncio
import base64
import logging
import re
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from tests.e2e.client import stream
from tests.e2e.openai_face import MODEL, NOTHING_KEPT, Face, asking, text_of
from tests.pictures import data_url, png
from tests.stack import UPSTREAM_KEY, bearer, chat

BRIEF: Any = {"model": MODEL, "max_tokens": 40}


def test_a_whole_answer(face: Face) -> None:
    """Every field is where the client's types have it, and what it says it used is what was billed and charged."""
    answer = face.client().chat.completions.create(messages=asking("Who are you?"), **BRIEF)
    (choice,) = answer.choices
    assert ("chat.completion", "gpt-4o-mini-2024-07-18") == (answer.object, answer.model)
    assert ("assistant", "stop", 0) == (choice.message.role, choice.finish_reason, choice.index)
    assert choice.message.content
    assert answer.usage is not None
    assert answer.usage.prompt_tokens + answer.usage.completion_tokens == answer.usage.total_tokens
    assert face.last_bill() == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    charge = face.last_charge()
    assert (answer._request_id, *face.last_bill()) == (
        charge["request_id"], charge["prompt_tokens"], charge["completion_tokens"],
    )  # fmt: skip


@pytest.mark.parametrize("choices", [1, 3])
def test_a_stream_says_what_the_whole_answer_says(face: Face, choices: int) -> None:
    """Folding loses and adds nothing: ids, texts, finish reasons, usage."""
    client, request = face.client(), {**BRIEF, "messages": asking("Tell me more."), "n": choices}
    whole = client.chat.completions.create(**request)
    chunks = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **request))
    said, finished = [""] * choices, [""] * choices
    for chunk in chunks:
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
            finished[choice.index] = choice.finish_reason or ""
    assert said == [choice.message.content for choice in whole.choices]
    assert finished == [choice.finish_reason for choice in whole.choices]
    assert {(whole.id, whole.model, whole.created)} == {(chunk.id, chunk.model, chunk.created) for chunk in chunks}
    assert [whole.usage] == [chunk.usage for chunk in chunks if chunk.usage]
    assert [] == chunks[-1].choices


def test_without_include_usage_no_chunk_has_usage_and_the_charge_is_exact(face: Face) -> None:
    """Clients index into `choices` without looking; the gateway reads the usage all the same."""
    chunks = list(face.client().chat.completions.create(messages=asking("Briefly?"), stream=True, **BRIEF))
    assert {(1, None)} == {(len(chunk.choices), chunk.usage) for chunk in chunks}
    charge = face.last_charge()
    assert (*face.last_bill(), "upstream") == (
        charge["prompt_tokens"], charge["completion_tokens"], charge["usage_source"],
    )  # fmt: skip


def test_only_the_models_that_a_key_may_use_are_listed(face: Face) -> None:
    """Each is retrieved under its name; another's name is not found."""
    client = face.client(face.key(models=["gpt-4o", "realvision"]))
    listed = client.models.list().data
    assert ["gpt-4o", "realvision"] == sorted(model.id for model in listed)
    for model in listed:
        assert model == client.models.retrieve(model.id)
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("gpt-4.1")
    assert "model_not_found" == raised.value.code


def test_a_conversation_goes_on_with_what_was_answered(face: Face) -> None:
    """Programs append the answer's message as it came, with its null members."""
    client = face.client()
    system: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be kind.", "name": "dev"},
    ]
    messages = [*system, *asking("Who are you?")]
    first = client.chat.completions.create(messages=messages, **BRIEF)
    messages = [*messages, first.choices[0].message, *asking("And who am I?")]
    second = client.chat.completions.create(messages=messages, **BRIEF)
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.prompt_tokens > first.usage.prompt_tokens + first.usage.completion_tokens


@pytest.mark.parametrize("choices", [1, 2])
def test_its_helper_puts_a_stream_together_and_goes_on_with_what_it_made(face: Face, choices: int) -> None:
    """It takes the role from the first chunk of each choice; a message without one cannot be sent back."""
    client, messages = face.client(), asking("Who are you?")
    with client.chat.completions.stream(messages=messages, n=choices, model=MODEL) as answer:
        first = answer.get_final_completion()
    whole = client.chat.completions.create(messages=messages, n=choices, model=MODEL)
    assert [("assistant", choice.message.content) for choice in whole.choices] == [
        (choice.message.role, choice.message.content) for choice in first.choices
    ]
    history: Any = [*messages, first.choices[0].message, *asking("And who am I?")]
    with client.chat.completions.stream(messages=history, model=MODEL) as answer:
        assert "assistant" == answer.get_final_completion().choices[0].message.role


@pytest.mark.parametrize("url", ["https://example.com/image.jpg", data_url("png", png(300, 200))])
@pytest.mark.parametrize("detail", ["auto", "low"])
def test_an_image_in_a_chat(face: Face, url: str, detail: str) -> None:
    """By its URL and as data; both are billed by the upstream's own count."""
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": url, "detail": detail}},
    ]
    answer = face.client().chat.completions.create(messages=asking(parts), **BRIEF)
    assert answer.usage is not None
    assert face.last_bill() == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert [] == face.last_charge()["flags"]


def test_the_first_chunk_is_read_while_the_second_is_withheld(face: Face) -> None:
    """Nothing is gathered on the way to the program that reads."""
    messages = asking("Slowly, please. [[fault:withhold_after=1]]")
    chunks = face.client().chat.completions.create(messages=messages, stream=True, **BRIEF)
    first = next(chunks)
    assert 1 == face.stack.emulator.get("/__withheld", params={"at_least": "1"}).json()["withheld"]
    face.stack.emulator.post("/__release")
    rest = list(chunks)
    assert rest[-1].choices[0].finish_reason
    assert first.id == rest[-1].id


def test_the_async_client(face: Face) -> None:
    """Whole and streamed, each chunk as it comes."""
    key, request = face.key(), {**BRIEF, "messages": asking("Slowly. [[fault:withhold_after=1]]")}

    async def run() -> tuple[str | None, str]:
        http = openai.DefaultAsyncHttpxClient(limits=NOTHING_KEPT)
        async with openai.AsyncOpenAI(base_url=face.base_url, api_key=key, http_client=http) as client:
            chunks: list[ChatCompletionChunk] = []
            async for chunk in await client.chat.completions.create(stream=True, **request):
                chunks.append(chunk)
                if len(chunks) == 1:
                    face.stack.emulator.get("/__withheld", params={"at_least": "1"})
                    face.stack.emulator.post("/__release")
            whole = asyncio.create_task(client.chat.completions.create(**request))
            await asyncio.to_thread(face.stack.emulator.get, "/__withheld", params={"at_least": "1"})
            await asyncio.to_thread(face.stack.emulator.post, "/__release")
            return (await whole).choices[0].message.content, text_of(chunks)

    folded, streamed = asyncio.run(run())
    assert folded == streamed


def test_an_upstream_that_breaks_off_is_raised(face: Face) -> None:
    """Not taken for an end: what came before is there, then the client raises."""
    chunks = face.client().chat.completions.create(
        messages=asking("Break off. [[fault:reset_at=3]]"), stream=True, **BRIEF
    )
    read = []
    with pytest.raises(openai.APIError) as raised:
        read.extend(chunks)
    assert type(raised.value) is openai.APIError
    assert ("upstream_error", "upstream_error") == (raised.value.code, raised.value.type)


def test_several_images_at_once(face: Face) -> None:
    """Each is there at its URL, and one entry has paid for all."""
    answer = face.client().images.generate(model="dreamshaper", prompt="A lake", n=3, size="512x768")
    assert answer.data is not None
    pictures = [face.stack.emulator.get(image.url or "", headers=bearer(UPSTREAM_KEY)) for image in answer.data]
    assert [b"\x89PNG"] * 3 == [picture.content[:4] for picture in pictures]
    charge = face.last_charge()
    assert (3, 3 * 1_500_000, answer._request_id) == (charge["images"], charge["cost_nano_usd"], charge["request_id"])


def test_an_image_in_the_answer_itself(face: Face) -> None:
    """For who cannot fetch it: the same picture as at its URL."""
    answer = face.client().images.generate(model="dreamshaper", prompt="A lake", response_format="b64_json")
    assert answer.data is not None
    (picture,) = answer.data
    assert b"\x89PNG" == base64.b64decode(picture.b64_json or "")[:4]
    assert picture.url is None


def test_an_image_that_cannot_be_is_raised_with_the_field_that_is_wrong(face: Face) -> None:
    """Before anything is held or sent."""
    with pytest.raises(openai.BadRequestError) as raised:
        face.client().images.generate(model="dreamshaper", prompt="A lake", size="64x64")
    assert "size" == raised.value.param


def test_images_that_all_fail_are_raised_and_not_bought_again(face: Face) -> None:
    """Their price was given back, but another try is another purchase: that is for the user to decide."""
    statuses: list[int] = []
    client = face.client(heard=statuses.append)
    with pytest.raises(openai.InternalServerError) as raised:
        client.images.generate(model="dreamshaper", prompt="A lake [[fault:job_fails]]", n=2)
    assert ("upstream_error", [502]) == (raised.value.code, statuses)


REFUSALS: dict[str, tuple[Any, Any, type[openai.APIStatusError], int, str | None]] = {
    "a wrong key": ({}, {}, openai.AuthenticationError, 401, "invalid_api_key"),
    "another model's key": ({"models": ["gpt-4o"]}, {}, openai.PermissionDeniedError, 403, "model_not_allowed"),
    "no such model": ({}, {"model": "gpt-2"}, openai.NotFoundError, 404, "model_not_found"),
    "a field nobody knows": ({}, {"store": True}, openai.BadRequestError, 400, "unsupported_parameter"),
    "no money": (
        {"budgets": [{"window": "total", "limit_usd": "0.00"}]}, {}, openai.APIStatusError, 402, "budget_exceeded",
    ),
    "above its own maximum": (
        {}, {"extra_headers": {"x-gateway-max-cost-usd": "0.000001"}}, openai.APIStatusError, 402, "max_cost_exceeded",
    ),
    "an upstream that fails": ({}, {"fault": "status=500"}, openai.InternalServerError, 500, None),
    "an upstream that refuses us": ({}, {"fault": "status=401"}, openai.InternalServerError, 502, "upstream_refused"),
    "an upstream that rejects it": ({}, {"fault": "status=400"}, openai.BadRequestError, 400, None),
}  # fmt: skip


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("reason", REFUSALS)
def test_each_refusal_is_raised_as_its_class(face: Face, reason: str, streamed: bool) -> None:
    """With status, code and a message that says what to do; a program can tell them apart."""
    settings, changed, kind, status, code = REFUSALS[reason]
    key = "sk-wrong" if reason == "a wrong key" else face.key(**settings)
    request = {**BRIEF, "stream": streamed, **changed}
    request["messages"] = asking(f"Please. [[fault:{request.pop('fault')}]]" if "fault" in request else "Please.")
    with pytest.raises(openai.APIStatusError) as raised:
        face.client(key, max_retries=0).chat.completions.create(**request)
    assert (kind, status) == (type(raised.value), raised.value.status_code)
    assert code is None or code == raised.value.code


def test_a_blocked_key_is_raised_as_no_permission(face: Face) -> None:
    """From the next call on."""
    made = face.admin.key("clients")
    face.admin.post(f"/keys/{made['id']}/block")
    with pytest.raises(openai.PermissionDeniedError, match="block"):
        face.client(made["key"]).chat.completions.create(messages=asking("Please."), **BRIEF)


def test_another_body_under_the_same_idempotency_key_is_a_conflict(face: Face) -> None:
    """And is not repeated: no repeat would end otherwise."""
    statuses: list[int] = []
    client = face.client(heard=statuses.append)
    under: Any = {"extra_headers": {"Idempotency-Key": "conflict-1"}}
    first = client.chat.completions.create(messages=asking("One."), **BRIEF, **under)
    again = client.chat.completions.create(messages=asking("One."), **BRIEF, **under)
    assert first == again
    with pytest.raises(openai.ConflictError) as raised:
        client.chat.completions.create(messages=asking("Two."), **BRIEF, **under)
    assert "idempotency_conflict" == raised.value.code
    assert [200, 200, 409] == statuses


@pytest.mark.parametrize(
    ("prompt", "budget_usd", "statuses"),
    [
        ("Too dear.", "0.00", [402]),
        ("Perhaps billed. [[fault:reset]]", "1.00", [502]),
        ("Refused. [[fault:status=402]]", "1.00", [502]),
        ("Broken. [[fault:status=500]]", "1.00", [500, 500]),
    ],
)
def test_what_is_repeated_and_what_is_not(
    face: Face, caplog: pytest.LogCaptureFixture, prompt: str, budget_usd: str, statuses: list[int]
) -> None:
    """No repeat, and no waiting for one, where it is of no use or may cost twice; else as often as the user allows."""
    key, heard = face.key(budgets=[{"window": "total", "limit_usd": budget_usd}]), list[int]()
    client = face.client(key, heard=heard.append, max_retries=1)
    with caplog.at_level(logging.INFO, "openai"), pytest.raises(openai.APIStatusError):
        client.chat.completions.create(messages=asking(prompt), **BRIEF)
    assert statuses == heard
    assert len(statuses) - 1 == len(waits_in(caplog))
    assert (0 if statuses == [402] else len(statuses)) == face.calls_upstream(prompt)


def test_too_many_calls_at_once_wait_as_long_as_they_are_told(face: Face, caplog: pytest.LogCaptureFixture) -> None:
    """The client obeys Retry-After: one second, not its own half, and then it is served."""
    key, statuses = face.key(limits={"concurrent_requests": 1}), list[int]()
    running = chat("Run. [[fault:withhold_after=1]]", stream=True)
    with stream(face.gateway.url, "/v1/chat/completions", running, key) as first:
        first.read_event()

        def heard(status: int) -> None:
            statuses.append(status)
            if status == 429:
                face.stack.emulator.post("/__release")
                first.read_rest()

        client = face.client(key, heard=heard)
        with caplog.at_level(logging.INFO, "openai"):
            client.chat.completions.create(messages=asking("Wait."), **BRIEF)
    assert ([429, 200], [1.0]) == (statuses, waits_in(caplog))


def test_a_rate_limit_is_raised_once_the_tries_are_used_up(face: Face) -> None:
    """With what OpenAI's own headers say about the limit."""
    client = face.client(face.key(limits={"requests_per_minute": 1}), max_retries=0)
    first = client.chat.completions.with_raw_response.create(messages=asking("One."), **BRIEF)
    assert ("1", "0") == tuple(first.headers[f"x-ratelimit-{name}-requests"] for name in ("limit", "remaining"))
    with pytest.raises(openai.RateLimitError) as raised:
        client.chat.completions.create(messages=asking("Two."), **BRIEF)
    assert "rate_limit_exceeded" == raised.value.code
    assert 0 < int(raised.value.response.headers["retry-after"]) <= 60


def waits_in(caplog: pytest.LogCaptureFixture) -> list[float]:
    """How long the client waited before each of its repeats (seconds), as it says itself."""
    lines = [re.match(r"Retrying request in ([\d.]+) seconds", record.getMessage()) for record in caplog.records]
    return [float(line[1]) for line in lines if line]
