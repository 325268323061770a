"""An invented text-to-speech endpoint: what MiniToolAI may document next is one table of fields."""

import json
from typing import Any

import pytest

from gateway.billing.errors import InvalidRequest, ModelNotFound, UnsupportedParameter
from gateway.billing.prices import PriceList
from gateway.billing.usage import Usage
from gateway.wire.call import Call, Meter, Outcome
from gateway.wire.flat import FlatField, FlatMeter, FlatRules, inspect_flat

SPEECH = FlatRules(
    kind="speech",
    fields={
        "model": FlatField("string", required=True),
        "input": FlatField("string", required=True),
        "speed": FlatField("number"),
        "voice": FlatField("integer"),
        "loud": FlatField("boolean"),
    },
    characters_of="input",
)
BY_THE_CALL = FlatRules(kind="speech", fields={"input": FlatField("string", required=True)}, model="voice")


def request(**fields: Any) -> dict[str, Any]:
    return {"model": "voice", "input": "Xin chào 😀", **fields}


def test_a_character_is_a_unit(prices: PriceList) -> None:
    """Characters, not bytes: Vietnamese costs what English costs."""
    call = inspect_flat(request(speed=1.5, voice=3, loud=True), SPEECH, prices)
    assert ("speech", "voice") == (call.kind, call.model)
    assert Usage(units=10) == call.bound == call.usage_max
    assert request(speed=1.5, voice=3, loud=True) == json.loads(call.body)
    assert 10 * 15_000 == prices.of("voice", "speech").cost_of(call.bound)


def test_a_call_is_a_unit(prices: PriceList) -> None:
    """With a fixed model the request need not name one."""
    assert Usage(units=1) == inspect_flat({"input": "long text"}, BY_THE_CALL, prices).bound


def test_null_is_absent_where_a_field_is_optional(prices: PriceList) -> None:
    """As everywhere in MiniToolAI's own tables."""
    call = inspect_flat(request(speed=None, voice=None, loud=None), SPEECH, prices)
    assert Usage(units=10) == call.bound


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": "x"}, "model"),
        ({"model": "voice"}, "input"),
        (request(input=""), "input"),
        (request(input=None), "input"),
        (request(input=7), "input"),
        (request(speed="1"), "speed"),
        (request(speed=True), "speed"),
        (request(voice=1.0), "voice"),
        (request(loud=1), "loud"),
    ],
)
def test_a_wrong_field_is_refused_by_name(prices: PriceList, fields: dict[str, Any], param: str) -> None:
    """An empty text would be a call of no units, and free."""
    with pytest.raises(InvalidRequest) as refused:
        inspect_flat(fields, SPEECH, prices)
    assert param == refused.value.param


def test_an_unknown_field_is_refused(prices: PriceList) -> None:
    """Default-deny, here as in chat."""
    with pytest.raises(UnsupportedParameter):
        inspect_flat(request(format="mp3"), SPEECH, prices)


def test_a_model_of_another_kind_is_not_found(prices: PriceList) -> None:
    """Never free."""
    with pytest.raises(ModelNotFound):
        inspect_flat(request(model="realvision"), SPEECH, prices)


def test_the_meter_charges_the_bound_whatever_the_answer_holds() -> None:
    """Sound has no usage event: the price is known before the call."""
    bound = Usage(units=10)
    meter: Meter = FlatMeter(Call(kind="speech", model="voice", body=b"{}", bound=bound, usage_max=bound))
    meter.feed(b"\xff\xfbsound")
    assert meter.done
    assert Outcome(usage=bound, began=True) == meter.outcome()
