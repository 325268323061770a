"""The inspection of chat requests: every field, default, range, role and part type, and the bound."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.billing.errors import InvalidRequest, ModelNotFound, UnsupportedParameter
from gateway.billing.prices import ModelPrice, PriceList
from gateway.billing.usage import Usage
from gateway.wire.call import Call
from gateway.wire.chat import ChatRules, inspect_chat
from gateway.wire.tokens import count_prompt
from tests.wire.test_tokens import SCRIPTS

RULES = ChatRules()
HELLO: dict[str, Any] = {"role": "user", "content": "Hello"}
IMAGE: dict[str, Any] = {"type": "image_url", "image_url": {"url": "https://example.com/image.jpg"}}
SCHEMA: dict[str, Any] = {"name": "answer", "schema": {"type": "object", "properties": {"x": {"type": "string"}}}}


def request(**fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [HELLO], **fields}


def with_content(content: Any) -> dict[str, Any]:
    return request(messages=[{"role": "user", "content": content}])


def with_image(**image: Any) -> dict[str, Any]:
    return with_content([{"type": "image_url", "image_url": {"url": "https://example.com/a.png", **image}}])


def with_schema(**described: Any) -> dict[str, Any]:
    return request(response_format={"type": "json_schema", "json_schema": {**SCHEMA, **described}})


def sent(call: Call) -> Any:
    return json.loads(call.body)


def test_the_seeds_own_sample_passes(prices: PriceList) -> None:
    """Source: seed 000_…, the Python sample with an image."""
    sample: dict[str, Any] = {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "developer", "content": "You are a helpful assistant."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What's in this image?"},
                    {"type": "image_url", "image_url": {"url": "https://example.com/image.jpg", "detail": "auto"}},
                ],
            },
        ],
        "temperature": 0.7,
        "max_completion_tokens": 300,
    }
    call = inspect_chat(sample, RULES, prices)
    texts = ("developer", "You are a helpful assistant.", "user", "What's in this image?")
    extra_tokens = 3 + 2 * 3 + 48_169
    assert sample == sent(call)
    assert ("chat", "gpt-4o-mini") == (call.kind, call.model)
    assert call.prompt is not None
    assert (texts, extra_tokens) == (call.prompt.texts, call.prompt.extra_tokens)
    assert Usage(prompt_tokens=sum(map(len, texts)) + extra_tokens, completion_tokens=300) == call.bound
    assert Usage(prompt_tokens=128_000, completion_tokens=16_384) == call.usage_max


@pytest.mark.parametrize(
    ("fields", "max_completion_tokens"),
    [
        ({}, 1000),
        ({"max_completion_tokens": None}, 1000),
        ({"max_completion_tokens": None, "max_tokens": None}, 1000),
        ({"max_completion_tokens": 1}, 1),
        ({"max_tokens": 7}, 7),
        ({"max_tokens": 7, "max_completion_tokens": None}, 7),
        ({"max_tokens": 7, "max_completion_tokens": 7}, 7),
        ({"stream": True}, 1000),
        ({"stream": False}, 1000),
        ({"stream": None}, 1000),
    ],
)
def test_what_is_sent_always_carries_its_bound(
    prices: PriceList, fields: dict[str, Any], max_completion_tokens: int
) -> None:
    """The hold is a true upper bound only if the upstream is told it; `stream` is not forwarded."""
    call = inspect_chat(request(**fields), RULES, prices)
    assert request(max_completion_tokens=max_completion_tokens) == sent(call)
    assert max_completion_tokens == call.bound.completion_tokens


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_completion_tokens": 300, "n": None}, 300),
        ({"max_completion_tokens": 300, "n": 1}, 300),
        ({"max_completion_tokens": 300, "n": 128}, 300 * 128),
        ({"max_completion_tokens": 1_000_000}, 16_384),
        ({"max_completion_tokens": 1_000_000, "n": 2}, 2 * 16_384),
    ],
)
def test_output_is_bound_by_choices_and_by_the_model(prices: PriceList, fields: dict[str, Any], expected: int) -> None:
    """Each of n choices may be as long as the caller's maximum, and none longer than the model's."""
    call = inspect_chat(request(**fields), RULES, prices)
    assert expected == call.bound.completion_tokens == call.completion_tokens_max
    assert (fields.get("n") or 1) * 16_384 == call.usage_max.completion_tokens


def test_a_prompt_is_bound_by_the_context_window(prices: PriceList) -> None:
    """What does not fit is refused by the upstream, so it can never be billed."""
    assert 128_000 == inspect_chat(with_content("x" * 200_000), RULES, prices).bound.prompt_tokens


@pytest.mark.parametrize(
    ("message", "texts", "extra_tokens"),
    [
        (HELLO, ("user", "Hello"), 3),
        ({**HELLO, "name": "an"}, ("user", "an", "Hello"), 4),
        ({**HELLO, "name": None}, ("user", "Hello"), 3),
        ({"role": "system", "content": ""}, ("system", ""), 3),
        ({"role": "assistant", "content": "שלום"}, ("assistant", "שלום"), 3),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE, {"type": "text", "text": "b"}]},
            ("user", "a", "b"),
            3 + 48_169,
        ),
    ],
)
def test_the_prompt_is_what_the_model_reads(
    prices: PriceList, message: dict[str, Any], texts: tuple[str, ...], extra_tokens: int
) -> None:
    """3 tokens a message, 1 a name, 3 for the reply, and the bound of each image."""
    call = inspect_chat(request(messages=[message]), RULES, prices)
    assert call.prompt is not None
    assert (texts, 3 + extra_tokens) == (call.prompt.texts, call.prompt.extra_tokens)
    assert sum(len(text.encode()) for text in texts) + 3 + extra_tokens == call.bound.prompt_tokens


@pytest.mark.parametrize(
    ("image", "tokens"),
    [({}, 48_169), ({"detail": "auto"}, 48_169), ({"detail": "high"}, 48_169), ({"detail": "low"}, 2_833)],
)
def test_an_image_is_bound_by_its_detail_and_not_by_its_bytes(
    prices: PriceList, image: dict[str, Any], tokens: int
) -> None:
    """`auto` may turn out to be high; a data URL of a megabyte is no text."""
    for url in ("http://example.com/a", "HTTPS://EXAMPLE.COM/a.webp", "data:image/gif;base64," + "A" * 1_000_000):
        call = inspect_chat(with_image(url=url, **image), RULES, prices)
        assert len("user") + 3 + 3 + tokens == call.bound.prompt_tokens


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"temperature": 2.0},
        {"temperature": None},
        {"top_p": 0},
        {"top_p": 1},
        {"stop": "end"},
        {"stop": ["a", "b", "c", "d"]},
        {"seed": -(2**63)},
        {"seed": 2**63 - 1},
        {"frequency_penalty": -2},
        {"presence_penalty": 2.0},
        {"logit_bias": {"50256": -100, "0": 100}},
        {"logprobs": False},
        {"logprobs": True, "top_logprobs": 20},
        {"user": "an"},
        {"metadata": {f"{number}": "x" * 512 for number in range(16)}},
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "json_object"}},
        {"top_p": None, "stop": None, "seed": None, "metadata": None, "response_format": None, "n": None},
    ],
    ids=str,
)
def test_an_option_in_its_range_is_forwarded_for_free(prices: PriceList, fields: dict[str, Any]) -> None:
    """None of these can raise the price beyond the hold."""
    call = inspect_chat(request(**fields), RULES, prices)
    assert request(**fields, max_completion_tokens=1000) == sent(call)
    assert inspect_chat(request(), RULES, prices).bound == call.bound


def test_a_schema_adds_twice_its_bytes(prices: PriceList) -> None:
    """It is shown to the model, rewritten by a rule that nobody published."""
    plain = inspect_chat(request(), RULES, prices)
    call = inspect_chat(with_schema(strict=True), RULES, prices)
    schema_bytes = len(json.dumps({**SCHEMA, "strict": True}, separators=(",", ":")))
    assert plain.bound.prompt_tokens + 2 * schema_bytes == call.bound.prompt_tokens


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"messages": [HELLO]}, "model"),
    (request(model=None), "model"),
    (request(model=["gpt-4o-mini"]), "model"),
    ({"model": "gpt-4o-mini"}, "messages"),
    (request(messages=None), "messages"),
    (request(messages="Hello"), "messages"),
    (request(messages=[]), "messages"),
    (request(messages=["Hello"]), "messages[0]"),
    (request(messages=[HELLO, {}]), "messages[1].role"),
    (request(messages=[{**HELLO, "role": "tool"}]), "messages[0].role"),
    (request(messages=[{**HELLO, "role": ["user"]}]), "messages[0].role"),
    (request(messages=[{"role": "user"}]), "messages[0].content"),
    (request(messages=[{**HELLO, "name": ""}]), "messages[0].name"),
    (request(messages=[{**HELLO, "name": 7}]), "messages[0].name"),
    (request(messages=[{**HELLO, "name": "x" * 65}]), "messages[0].name"),
    (with_content(None), "messages[0].content"),
    (with_content(7), "messages[0].content"),
    (with_content({}), "messages[0].content"),
    (with_content([]), "messages[0].content"),
    (with_content(["Hello"]), "messages[0].content[0]"),
    (with_content([{"text": "Hello"}]), "messages[0].content[0].type"),
    (with_content([{"type": "input_audio"}]), "messages[0].content[0].type"),
    (with_content([{"type": "file"}]), "messages[0].content[0].type"),
    (with_content([{"type": ["text"]}]), "messages[0].content[0].type"),
    (with_content([{"type": "text"}]), "messages[0].content[0].text"),
    (with_content([{"type": "text", "text": None}]), "messages[0].content[0].text"),
    (with_content([IMAGE, {"type": "image_url"}]), "messages[0].content[1].image_url"),
    (with_content([{"type": "image_url", "image_url": "https://a"}]), "messages[0].content[0].image_url"),
    (with_image(url=None), "messages[0].content[0].image_url.url"),
    (with_image(url=""), "messages[0].content[0].image_url.url"),
    (with_image(url="https://"), "messages[0].content[0].image_url.url"),
    (with_image(url="file:///etc/passwd"), "messages[0].content[0].image_url.url"),
    (with_image(url="x https://a"), "messages[0].content[0].image_url.url"),
    (with_image(url="data:image/svg+xml;base64,AA"), "messages[0].content[0].image_url.url"),
    (with_image(url="data:image/png,AA"), "messages[0].content[0].image_url.url"),
    (with_image(url="data:image/png;base64,"), "messages[0].content[0].image_url.url"),
    (with_image(detail="ultra"), "messages[0].content[0].image_url.detail"),
    (with_image(detail=None), "messages[0].content[0].image_url.detail"),
    (request(temperature=-0.1), "temperature"),
    (request(temperature=2.1), "temperature"),
    (request(temperature=True), "temperature"),
    (request(temperature="1"), "temperature"),
    (request(max_completion_tokens=0), "max_completion_tokens"),
    (request(max_completion_tokens=-1), "max_completion_tokens"),
    (request(max_completion_tokens=2**31), "max_completion_tokens"),
    (request(max_tokens=10**300), "max_tokens"),
    (request(max_completion_tokens=1.0), "max_completion_tokens"),
    (request(max_completion_tokens=True), "max_completion_tokens"),
    (request(max_completion_tokens="1"), "max_completion_tokens"),
    (request(max_tokens=0), "max_tokens"),
    (request(max_tokens=True), "max_tokens"),
    (request(max_tokens=1, max_completion_tokens=2), "max_tokens"),
    (request(stream=1), "stream"),
    (request(stream="true"), "stream"),
    (request(n=0), "n"),
    (request(n=129), "n"),
    (request(n=1.0), "n"),
    (request(n=True), "n"),
    (request(top_p=1.01), "top_p"),
    (request(top_p=-0.01), "top_p"),
    (request(stop=[]), "stop"),
    (request(stop=["a"] * 5), "stop"),
    (request(stop=[1]), "stop[0]"),
    (request(stop=1), "stop"),
    (request(seed=1.5), "seed"),
    (request(seed=2**63), "seed"),
    (request(frequency_penalty=2.1), "frequency_penalty"),
    (request(presence_penalty=-2.1), "presence_penalty"),
    (request(logit_bias=[]), "logit_bias"),
    (request(logit_bias={"word": 1}), "logit_bias"),
    (request(logit_bias={"7": 101}), "logit_bias.7"),
    (request(logprobs=1), "logprobs"),
    (request(top_logprobs=5), "top_logprobs"),
    (request(logprobs=True, top_logprobs=21), "top_logprobs"),
    (request(user=7), "user"),
    (request(metadata=[]), "metadata"),
    (request(metadata={f"{number}": "" for number in range(17)}), "metadata"),
    (request(metadata={"k" * 65: ""}), "metadata"),
    (request(metadata={"k": 1}), "metadata.k"),
    (request(metadata={"k": "x" * 513}), "metadata.k"),
    (request(response_format="json"), "response_format"),
    (request(response_format={}), "response_format.type"),
    (request(response_format={"type": "grammar"}), "response_format.type"),
    (request(response_format={"type": "json_schema"}), "response_format.json_schema"),
    (with_schema(name=None), "response_format.json_schema.name"),
    (with_schema(name="two words"), "response_format.json_schema.name"),
    (with_schema(strict=1), "response_format.json_schema.strict"),
    (with_schema(description=7), "response_format.json_schema.description"),
    (with_schema(schema=[]), "response_format.json_schema.schema"),
    (with_schema(schema={"anyOf": [{"$ref": "#/$defs/x"}]}), "response_format.json_schema.schema"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED)
def test_what_is_out_of_range_is_refused_by_name(prices: PriceList, fields: dict[str, Any], param: str) -> None:
    """400, and `param` says where to look."""
    with pytest.raises(InvalidRequest) as refused:
        inspect_chat(fields, RULES, prices)
    assert ("invalid_request", param) == (refused.value.code, refused.value.param)
    assert refused.value.message.endswith(".")


UNKNOWN: list[tuple[dict[str, Any], str]] = [
    (request(tools=[]), "tools"),
    (request(tool_choice=None), "tool_choice"),
    (request(stream_options={}), "stream_options"),
    (request(Model="gpt-4o"), "Model"),
    (request(prediction={}), "prediction"),
    (request(messages=[{**HELLO, "tool_calls": []}]), "messages[0].tool_calls"),
    (with_content([{"type": "text", "text": "a", "cache_control": {}}]), "messages[0].content[0].cache_control"),
    (
        with_content([{"type": "text", "text": "a", "image_url": IMAGE["image_url"]}]),
        "messages[0].content[0].image_url",
    ),
    (with_image(format="png"), "messages[0].content[0].image_url.format"),
    (request(response_format={"type": "text", "json_schema": SCHEMA}), "response_format.json_schema"),
    (with_schema(examples=[]), "response_format.json_schema.examples"),
]


@pytest.mark.parametrize(("fields", "param"), UNKNOWN)
def test_what_is_not_known_is_refused_at_every_depth(prices: PriceList, fields: dict[str, Any], param: str) -> None:
    """Whatever nobody has bounded might cost more than the hold."""
    with pytest.raises(UnsupportedParameter, match="leave it out") as refused:
        inspect_chat(fields, RULES, prices)
    assert param == refused.value.param


@pytest.mark.parametrize("model", ["gpt-5", "", "realvision", "gpt-4o-mini "])
def test_a_model_without_a_chat_price_is_not_found(prices: PriceList, model: str) -> None:
    """Never free: an image model is no chat model either."""
    with pytest.raises(ModelNotFound, match="no chat model"):
        inspect_chat(request(model=model), RULES, prices)


def test_which_models_there_are_is_for_the_keys_own_list_to_say(prices: PriceList) -> None:
    """A name in a message might be one that the asking key may not use."""
    for asked in (request(model="gpt-5"), request(model=None)):
        with pytest.raises((InvalidRequest, ModelNotFound)) as refused:
            inspect_chat(asked, RULES, prices)
        assert "GET /v1/models lists those that this key may use" in refused.value.message
        assert [] == [model for model in prices.models() if model in refused.value.message]


def test_a_missing_model_is_told_as_missing(prices: PriceList) -> None:
    """Not as something that is no string."""
    with pytest.raises(InvalidRequest, match="model is missing"):
        inspect_chat({"messages": [HELLO]}, RULES, prices)


def test_roles_and_extra_fields_are_configuration(prices: PriceList) -> None:
    """What MiniToolAI adds tomorrow is a line of configuration; what nobody here can check is bound by its bytes."""
    rules = ChatRules(roles=("user", "critic"), extra_fields=frozenset({"verbosity"}))
    critic = {"role": "critic", "content": "Hello"}
    plain = inspect_chat(request(messages=[critic]), rules, prices)
    call = inspect_chat(request(messages=[critic], verbosity="low"), rules, prices)
    assert plain.bound.prompt_tokens + 2 * len('"low"') == call.bound.prompt_tokens
    for refused in (request(messages=[{**HELLO, "role": "system"}]), request(messages=[critic], n=2)):
        with pytest.raises(InvalidRequest):
            inspect_chat(refused, rules, prices)


@settings(deadline=None)  # the first count loads the ranks
@given(st.lists(st.tuples(st.sampled_from(RULES.roles), SCRIPTS, st.none() | SCRIPTS.filter(bool)), min_size=1))
def test_the_byte_bound_covers_every_count(messages: list[tuple[str, str, str | None]]) -> None:
    """tokens(text) ≤ bytes(text) for each text, so the sums keep the order."""
    price = ModelPrice(model="m", kind="chat", context_tokens_max=10**9, output_tokens_max=10)
    fields = {
        "model": "m",
        "messages": [{"role": role, "content": text, "name": name and name[:64]} for role, text, name in messages],
    }
    call = inspect_chat(fields, RULES, PriceList([price]))  # type: ignore[arg-type]
    assert call.prompt is not None
    assert count_prompt(call.prompt, 10**9) <= call.bound.prompt_tokens


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "text", "user", "low"]),
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "image_url", "url", "schema"]), values)
    ),
    max_leaves=8,
)


@given(st.sampled_from([*RULES.extra_fields, "messages", "model", "temperature", "stream", "max_tokens"]), JUNK)
def test_whatever_is_sent_is_a_call_or_a_refusal(field: str, value: Any) -> None:
    """No shape of a field may end in anything but a 400 or 404 that says so."""
    prices = PriceList([ModelPrice(model="gpt-4o-mini", kind="chat", context_tokens_max=9, output_tokens_max=9)])
    with suppress(InvalidRequest, ModelNotFound):
        inspect_chat(request(**{field: value}), RULES, prices)
