"""Image submissions, their answers, and the polls for their jobs."""

import json
from typing import Any

import pytest

from gateway.billing.errors import InvalidRequest, ModelNotFound, UnsupportedParameter
from gateway.billing.prices import PriceList
from gateway.billing.usage import Usage
from gateway.wire.call import Call, Outcome
from gateway.wire.images import (
    ANSWER_BYTES_MAX,
    FAULT_CHARACTERS_MAX,
    ImageMeter,
    ImageRules,
    PollState,
    fault_of,
    inspect_image,
    inspect_poll,
    poll_state,
)

RULES = ImageRules()
ONE_IMAGE = Usage(units=1)
CALL = Call(kind="image", model="realvision", body=b"{}", bound=ONE_IMAGE, usage_max=ONE_IMAGE)
ACCEPTED = b'{"status":"success","jobid":12345678,"signature":"abcxyz123"}'


def request(**fields: Any) -> dict[str, Any]:
    return {"model": "realvision", "prompt": "a red boat", **fields}


def test_the_seeds_own_sample_is_one_image(prices: PriceList) -> None:
    """Source: seed 000_…, "Chuyển mô tả thành hình ảnh". It is sent as it came."""
    sample = request(negativePrompt="ugly drawn", scheduler="DPM++ SDE", steps=4, cfgScale=2.0, width=1152, height=768)
    call = inspect_image(sample, RULES, prices)
    assert ("image", "realvision", ONE_IMAGE) == (call.kind, call.model, call.bound)
    assert sample == json.loads(call.body)
    assert call.prompt is None


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"negativePrompt": ""},
        {"steps": 1},
        {"steps": 8},
        {"cfgScale": 1},
        {"cfgScale": 7.0},
        {"width": 256, "height": 1344},
        dict.fromkeys(("negativePrompt", "scheduler", "steps", "cfgScale", "width", "height")),
        *({"scheduler": scheduler} for scheduler in RULES.schedulers),
    ],
    ids=str,
)
def test_every_documented_value_passes(prices: PriceList, fields: dict[str, Any]) -> None:
    """Both ends of each range, null for what is optional, and all 18 schedulers."""
    assert request(**fields) == json.loads(inspect_image(request(**fields), RULES, prices).body)


def test_there_are_eighteen_schedulers() -> None:
    """Source: the seeds."""
    assert 18 == len(set(RULES.schedulers))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": "a red boat"}, "model"),
        (request(model=7), "model"),
        ({"model": "realvision"}, "prompt"),
        (request(prompt=None), "prompt"),
        (request(prompt=""), "prompt"),
        (request(prompt=["a"]), "prompt"),
        (request(negativePrompt=7), "negativePrompt"),
        (request(scheduler="euler"), "scheduler"),
        (request(scheduler=["Euler"]), "scheduler"),
        (request(steps=0), "steps"),
        (request(steps=9), "steps"),
        (request(steps=4.0), "steps"),
        (request(steps=True), "steps"),
        (request(steps="4"), "steps"),
        (request(cfgScale=0.99), "cfgScale"),
        (request(cfgScale=7.01), "cfgScale"),
        (request(cfgScale=True), "cfgScale"),
        (request(width=255), "width"),
        (request(width=1345), "width"),
        (request(width=512.0), "width"),
        (request(height=255), "height"),
        (request(height=1345), "height"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(prices: PriceList, fields: dict[str, Any], param: str) -> None:
    """400, and `param` says where to look."""
    with pytest.raises(InvalidRequest) as refused:
        inspect_image(fields, RULES, prices)
    assert ("invalid_request", param) == (refused.value.code, refused.value.param)


@pytest.mark.parametrize("name", ["n", "seed", "Steps", "negative_prompt"])
def test_an_unknown_field_is_refused(prices: PriceList, name: str) -> None:
    """An undocumented `n` might be four images at the price of one."""
    with pytest.raises(UnsupportedParameter) as refused:
        inspect_image(request(**{name: 4}), RULES, prices)
    assert name == refused.value.param


@pytest.mark.parametrize("model", ["gpt-4o-mini", "unknown"])
def test_a_model_without_an_image_price_is_not_found(prices: PriceList, model: str) -> None:
    """Never free."""
    with pytest.raises(ModelNotFound, match="no image model"):
        inspect_image(request(model=model), RULES, prices)


@pytest.mark.parametrize(
    ("body", "job", "outcome"),
    [
        (ACCEPTED, ("12345678", "abcxyz123"), Outcome(usage=ONE_IMAGE, began=True)),
        (b' {"status":"success","jobid":"7","signature":"s","more":1}\n', ("7", "s"), Outcome(ONE_IMAGE, began=True)),
        (b'{"status":"error","jobid":null,"signature":null}', None, Outcome()),
        (b'{"status":"error","jobid":7,"signature":"s"}', None, Outcome()),
        (b'{"status":"success","jobid":null,"signature":"s"}', None, Outcome(anomaly=True, began=True)),
        (b'{"status":"success","jobid":true,"signature":"s"}', None, Outcome(anomaly=True, began=True)),
        (b'{"status":"success","jobid":7,"signature":""}', None, Outcome(anomaly=True, began=True)),
        (b'{"jobid":7,"signature":"s"}', None, Outcome()),
        (b"", None, Outcome()),
        (b"<html>", None, Outcome()),
        (b"[1]", None, Outcome()),
        (b"[" * 100_000, None, Outcome()),
        (b"\xff", None, Outcome()),
        (ACCEPTED[:-1], None, Outcome()),
        (b" " * ANSWER_BYTES_MAX + ACCEPTED, None, Outcome()),
    ],
    ids=lambda value: value[:30] if isinstance(value, bytes) else None,
)
def test_an_accepted_job_is_one_image(body: bytes, job: tuple[str, str] | None, outcome: Outcome) -> None:
    """Charged when accepted; an error, or no answer of this kind, is nothing."""
    for size in (len(body) or 1, 4096 if len(body) > 4096 else 1):
        meter = ImageMeter(CALL)
        for at in range(0, len(body), size):
            meter.feed(body[at : at + size])
        assert job == meter.job
        assert outcome == meter.outcome()
        assert (job is not None) == meter.done


@pytest.mark.parametrize("jobid", ["12345678", 12345678])
def test_a_poll_names_its_job_by_number_or_digits(jobid: Any) -> None:
    """The submission answers an integer, the documented poll sends a string."""
    poll = inspect_poll({"jobid": jobid, "signature": "abcxyz123"})
    assert ("12345678", "abcxyz123") == (poll.jobid, poll.signature)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "jobid"),
        ({"jobid": None, "signature": "s"}, "jobid"),
        ({"jobid": "", "signature": "s"}, "jobid"),
        ({"jobid": True, "signature": "s"}, "jobid"),
        ({"jobid": 1.0, "signature": "s"}, "jobid"),
        ({"jobid": "1" * 201, "signature": "s"}, "jobid"),
        ({"jobid": 1}, "signature"),
        ({"jobid": 1, "signature": 7}, "signature"),
        ({"jobid": 1, "signature": ""}, "signature"),
        ({"jobid": 1, "signature": "s", "wait": True}, "wait"),
    ],
)
def test_a_poll_without_a_job_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    """No upstream call is made for it."""
    with pytest.raises(InvalidRequest) as refused:
        inspect_poll(fields)
    assert param == refused.value.param


@pytest.mark.parametrize(
    ("body", "state"),
    [
        (b'{"status":"success","image_url":"https://i/1.png","message":"success"}', "success"),
        (b'{"status":"success","image_url":null}', "success"),
        (b'{"status":"error","message":"failed"}', "error"),
        (b'{"status":"processing","image_url":null}', "pending"),
        (b'{"status":null}', "pending"),
        (b"{}", "pending"),
        (b"<html>", "pending"),
        (b"[]", "pending"),
    ],
)
def test_what_is_neither_success_nor_error_is_pending(body: bytes, state: PollState) -> None:
    """The pending state is not documented; a job must not be refunded for a word nobody knows."""
    assert state == poll_state(body)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b'{"error":{"message":"too  lewd\\n"}}', "too lewd"),
        (b'{"error":"too lewd"}', "too lewd"),
        (b'{"status":"error","message":"too \\u0007lewd"}', "too lewd"),
        (b'{"error":{"message":""},"message":"too lewd"}', ""),
        (b'{"error":{"message":7}}', ""),
        (b'{"error":[1],"message":"too lewd"}', ""),
        (b'{"status":"error","jobid":null,"signature":null}', ""),
        (b"<html>too lewd</html>", ""),
        (b'{"message":"' + b"x" * 1000 + b'"}', "x" * FAULT_CHARACTERS_MAX),
    ],
    ids=lambda value: value[:30] if isinstance(value, bytes) else None,
)
def test_what_an_answer_says_is_wrong_is_found_where_errors_have_it(body: bytes, fault: str) -> None:
    """It becomes part of a message of ours: one line, of bounded length, and never a page for people."""
    assert fault == fault_of(body)


def test_a_secret_is_masked_however_it_is_written() -> None:
    """Escaped in the JSON, or across the bound."""
    escaped = b'{"error":"it was \\u0073k-secret' + b" x" * FAULT_CHARACTERS_MAX + b'"}'
    assert fault_of(escaped, b"sk-secret").startswith("it was ********* x")
    across = b'{"error":"' + b"x" * (FAULT_CHARACTERS_MAX - 3) + b'sk-secret"}'
    assert fault_of(across, b"sk-secret").endswith("x***")
