"""LangChain's ChatOpenAI against the gateway, with nothing changed but URL and key."""

import asyncio
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr, ValidationError

from tests.e2e.openai_face import MODEL, Face
from tests.pictures import data_url, png


def chat_model(face: Face, key: str | None = None, **options: Any) -> ChatOpenAI:
    given: Any = {"model": MODEL, "base_url": face.base_url, "api_key": key or face.key(), "max_tokens": 40}
    return ChatOpenAI(**given, **options)


def usage_of(message: AIMessage) -> tuple[int, int]:
    assert message.usage_metadata is not None
    return message.usage_metadata["input_tokens"], message.usage_metadata["output_tokens"]


def test_it_is_asked_and_goes_on_with_what_it_answered(face: Face) -> None:
    """What it says it used is what was billed."""
    model = chat_model(face)
    asked = [SystemMessage("Be brief."), HumanMessage("Who are you?")]
    first = model.invoke(asked)
    assert face.last_bill() == usage_of(first)
    second = model.invoke([*asked, first, HumanMessage("And who am I?")])
    assert second.content
    assert usage_of(second)[0] > sum(usage_of(first))


def test_it_streams_what_it_would_say_at_once(face: Face) -> None:
    """With its usage, which it asks for by itself or where it is told to."""
    model = chat_model(face, stream_usage=True)
    whole = model.invoke("Tell me more.")
    chunks = list(model.stream("Tell me more."))
    assert whole.content == "".join(str(chunk.content) for chunk in chunks)
    together = sum(chunks[1:], start=chunks[0])
    assert isinstance(together, AIMessageChunk)
    assert usage_of(whole) == usage_of(together) == face.last_bill()


class Place(BaseModel):
    """Where something is."""

    town: str


class Journey(BaseModel):
    """From one place to another."""

    there: Place


def test_structured_output_is_asked_for_by_a_schema_and_not_by_tools(face: Face) -> None:
    """As docs/clients.md says. What the emulator answers is no object, and that is all that is wrong."""
    model = ChatOpenAI(model=MODEL, base_url=face.base_url, api_key=SecretStr(face.key()))
    with pytest.raises(ValidationError):
        model.with_structured_output(Place, method="json_schema").invoke("Where are you?")
    for schema, method, param in (
        (Place, "function_calling", "parallel_tool_calls"),
        (Journey, "json_schema", "response_format"),
    ):
        refused: Any = model.with_structured_output(schema, method=method)  # type: ignore[arg-type]
        with pytest.raises(openai.BadRequestError) as raised:
            refused.invoke("Where are you?")
        assert str(raised.value.param).startswith(param)


def test_it_reads_the_first_chunk_while_the_second_is_withheld(face: Face) -> None:
    """Nothing is gathered on the way to the program that reads."""
    chunks = chat_model(face).stream("Slowly, please. [[fault:withhold_after=2]]")
    first = next(chunks)
    assert 1 == face.stack.emulator.get("/__withheld", params={"at_least": "1"}).json()["withheld"]
    face.stack.emulator.post("/__release")
    assert first.id == list(chunks)[-1].id


def test_its_async_side(face: Face) -> None:
    """Whole and streamed."""

    async def run() -> tuple[object, str]:
        model = chat_model(face)
        streamed = [str(chunk.content) async for chunk in model.astream("Tell me more.")]
        return (await model.ainvoke("Tell me more.")).content, "".join(streamed)

    whole, streamed = asyncio.run(run())
    assert whole == streamed


def test_it_shows_an_image(face: Face) -> None:
    """In the parts of a message, as LangChain's users write them."""
    image = {"type": "image_url", "image_url": {"url": data_url("png", png(64, 64))}}
    answer = chat_model(face).invoke([HumanMessage([{"type": "text", "text": "What is it?"}, image])])
    assert face.last_bill() == usage_of(answer)


@pytest.mark.parametrize(
    ("settings", "kind", "code"),
    [
        ({"budgets": [{"window": "total", "limit_usd": "0.00"}]}, openai.APIStatusError, "budget_exceeded"),
        ({"models": ["gpt-4o"]}, openai.PermissionDeniedError, "model_not_allowed"),
    ],
)
def test_a_refusal_is_raised_as_the_clients_own(
    face: Face, settings: dict[str, Any], kind: type[openai.APIStatusError], code: str
) -> None:
    """What LangChain's programs catch already."""
    with pytest.raises(kind) as raised:
        chat_model(face, face.key(**settings)).invoke("Please.")
    assert code == raised.value.code
