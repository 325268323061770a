"""OpenAI's shape of an image request, and of the answer that has every picture or says why not."""

import json
from typing import Any

import pytest

from gateway.billing.errors import InvalidRequest, ModelNotFound, UnsupportedParameter
from gateway.billing.prices import PriceList
from gateway.billing.usage import Usage
from gateway.wire.images import ImageRules
from gateway.wire.openai_images import (
    Failure,
    Picture,
    images_answer,
    images_presentation,
    inspect_images,
)

RULES = ImageRules()


def request(**fields: Any) -> dict[str, Any]:
    return {"model": "realvision", "prompt": "a red boat", **fields}


def test_each_submission_is_for_one_image_and_the_bound_is_for_all(prices: PriceList) -> None:
    """What says how many, or how they are shown, goes no further."""
    asked = request(n=4, size="1152x768", response_format="b64_json", user="an", steps=4, negativePrompt="ugly")
    call = inspect_images(asked, RULES, prices)
    assert (Usage(units=4), "image", "realvision") == (call.bound, call.kind, call.model)
    assert request(steps=4, negativePrompt="ugly", width=1152, height=768) == json.loads(call.body)


@pytest.mark.parametrize("asked", [{}, {"n": None, "size": None, "response_format": None}, {"size": "auto"}])
def test_what_is_absent_or_null_is_one_picture_as_minitoolai_makes_it(asked: dict[str, Any], prices: PriceList) -> None:
    """Its sides are the upstream's own."""
    call = inspect_images(request(**asked), RULES, prices)
    assert (Usage(units=1), request()) == (call.bound, json.loads(call.body))
    assert "" == images_presentation(request(**asked), with_cost=False).words


@pytest.mark.parametrize("size", ["256x256", "1344x1344", "256x1344"])
def test_sides_may_be_as_long_as_minitoolai_takes_them(size: str, prices: PriceList) -> None:
    """Both ends of the range included."""
    sides = json.loads(inspect_images(request(size=size), RULES, prices).body)
    assert size == f"{sides['width']}x{sides['height']}"


@pytest.mark.parametrize(
    "size",
    ["255x256", "1344x1345", "1024", "x", "1024x", "1024X768", " 256x256", "256x256\n", "\u0662\u0665\u0666x256", 1024],
)
def test_any_other_size_is_refused_by_its_own_name(size: object, prices: PriceList) -> None:
    """Not as the width or height that nobody sent."""
    with pytest.raises(InvalidRequest) as raised:
        inspect_images(request(size=size), RULES, prices)
    assert "size" == raised.value.param


def test_a_field_that_might_change_the_price_is_refused(prices: PriceList) -> None:
    """As on every path, whatever OpenAI takes."""
    for name in ("quality", "style", "background", "width", "stream"):
        with pytest.raises(UnsupportedParameter) as raised:
            inspect_images(request(**{name: "hd"}), RULES, prices)
        assert name == raised.value.param


def test_a_model_without_a_price_for_images_is_not_found(prices: PriceList) -> None:
    """A chat model is none."""
    with pytest.raises(ModelNotFound):
        inspect_images(request(model="gpt-4o-mini"), RULES, prices)


def test_how_it_is_shown_is_part_of_what_was_asked(prices: PriceList) -> None:
    """Under one Idempotency-Key two of these are two requests, though their submissions are equal."""
    asked: tuple[dict[str, Any], ...] = (
        {},
        {"n": 2},
        {"n": 3},
        {"response_format": "b64_json"},
        {"n": 2, "response_format": "b64_json"},
    )
    words = [images_presentation(request(**each), with_cost=cost).words for each in asked for cost in (False, True)]
    assert 10 == len(set(words))


PICTURES = (
    Picture(0, "https://one.example/0.png", charged_nano_usd=1_500_000),
    Picture(1, failure=Failure("image_failed", "no"), charged_nano_usd=1_500_000, refunded_nano_usd=1_500_000),
    Picture(2, base64="cGljdHVyZQ==", url="https://one.example/2.png", charged_nano_usd=1_500_000),
    Picture(3, "https://one.example/3.png", failure=Failure("image_not_fetched", "far"), charged_nano_usd=1_500_000),
    Picture(4, failure=Failure("upstream_error", "busy")),
)


def test_an_answer_has_what_there_is_and_says_what_there_is_not() -> None:
    """In the order they were asked for; a picture that could not be fetched is among both."""
    assert {
        "id": "req-1",
        "created": 7,
        "data": [
            {"url": "https://one.example/0.png"},
            {"b64_json": "cGljdHVyZQ=="},
            {"url": "https://one.example/3.png"},
        ],
        "failed": [
            {"index": 1, "code": "image_failed", "message": "no", "cost_usd": "0.00", "refunded_usd": "0.0015"},
            {"index": 3, "code": "image_not_fetched", "message": "far", "cost_usd": "0.0015", "refunded_usd": "0.00"},
            {"index": 4, "code": "upstream_error", "message": "busy", "cost_usd": "0.00", "refunded_usd": "0.00"},
        ],
        "usage": {"cost_usd": "0.0045", "cost_nano_usd": 4_500_000},
    } == images_answer("req-1", 7, PICTURES, 4_500_000)


def test_an_answer_without_a_failure_does_not_speak_of_any() -> None:
    """Nor of the cost, unless it is asked for."""
    assert ["id", "created", "data"] == list(images_answer("req-1", 7, PICTURES[:1]))
