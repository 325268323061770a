"""Images: a submission costs one image, whatever its size; its answer names a job that is polled.

Source: upstream-contract.md, "Images" and "Image jobs".
"""

from dataclasses import dataclass
from typing import Literal

import msgspec

from gateway.billing.errors import InvalidRequest
from gateway.billing.prices import PriceList
from gateway.billing.usage import Usage
from gateway.wire.call import Call, Outcome
from gateway.wire.fields import choice_of, integer_of, model_of, number_of, refuse_unknown, string_of
from gateway.wire.headers import mask
from gateway.wire.strictjson import JSON, JSONObject, encode

KIND = "image"
ANSWER_BYTES_MAX = 1024 * 1024
SIDES = ("width", "height")
JOB_CHARACTERS_MAX = 200
URL_CHARACTERS_MAX = 4096
FAULT_CHARACTERS_MAX = 500

PollState = Literal["success", "error", "pending"]


@dataclass(frozen=True, slots=True)
class ImageRules:
    """The documented ranges, both ends included. New schedulers are configuration."""

    schedulers: tuple[str, ...] = (
        "Euler a",
        "Euler",
        "LMS",
        "Heun",
        "DPM2",
        "DPM2 a",
        "DPM++ 2S a",
        "DPM++ 2M",
        "DPM++ SDE",
        "DPM++ 2M SDE",
        "DPM fast",
        "LMS Karras",
        "DPM2 Karras",
        "DPM2 a Karras",
        "DPM++ 2S a Karras",
        "DPM++ 2M Karras",
        "DPM++ SDE Karras",
        "DPM++ 2M SDE Karras",
    )
    steps_max: int = 8
    cfg_scale_max: int = 7
    side_pixels_min: int = 256
    side_pixels_max: int = 1344


def inspect_image(fields: JSONObject, rules: ImageRules, prices: PriceList) -> Call:
    """Validate a submission: one image of a model that has a price.

    Raises InvalidRequest and UnsupportedParameter (400, `param` names the field) and ModelNotFound (404).
    """
    refuse_unknown(fields, _FIELDS)
    price = prices.of(model_of(fields), KIND)
    string_of(fields.get("prompt"), "prompt", empty=False)
    given = {name: value for name, value in fields.items() if value is not None}
    if "negativePrompt" in given:
        string_of(given["negativePrompt"], "negativePrompt")
    if "scheduler" in given:
        choice_of(given["scheduler"], "scheduler", rules.schedulers)
    if "steps" in given:
        integer_of(given["steps"], "steps", 1, rules.steps_max)
    if "cfgScale" in given:
        number_of(given["cfgScale"], "cfgScale", 1, rules.cfg_scale_max)
    for side in SIDES:
        if side in given:
            integer_of(given[side], side, rules.side_pixels_min, rules.side_pixels_max)
    one = Usage(units=1)
    return Call(kind=KIND, model=price.model, body=encode(fields), bound=one, usage_max=one)


class ImageMeter:
    """Reads the answer to a submission: accepted means one image is owed. See `wire.call.Meter`."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._body = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes; what is above 1 MiB is no answer of this kind and is not kept."""
        self._body += chunk[: ANSWER_BYTES_MAX + 1 - len(self._body)]

    @property
    def done(self) -> bool:
        """The whole answer is here: it names a job."""
        return self.job is not None

    @property
    def job(self) -> tuple[str, str] | None:
        """The accepted job, (jobid, signature), as a poll will name it; None before or without one."""
        answer = _object_of(self._body)
        if answer is None or answer.get("status") != "success":
            return None
        try:
            return _job_of(answer)
        except InvalidRequest:
            return None

    def outcome(self) -> Outcome:
        """One image if a job was accepted; an anomaly if the upstream said so but named none."""
        if self.job is not None:
            return Outcome(usage=self._call.bound, began=True)
        answer = _object_of(self._body)
        accepted = answer is not None and answer.get("status") == "success"
        return Outcome(anomaly=accepted, began=accepted)


@dataclass(frozen=True, slots=True)
class Poll:
    """A question about one job. Both are strings, as documented, though the submission answers an integer."""

    jobid: str
    signature: str


def inspect_poll(fields: JSONObject) -> Poll:
    """Validate a poll; `jobid` may be the integer of the submission's answer or its digits.

    Raises InvalidRequest and UnsupportedParameter (400, `param` names the field).
    """
    refuse_unknown(fields, {"jobid", "signature"})
    return Poll(*_job_of(fields))


def poll_state(body: bytes) -> PollState:
    """What an answer to a poll says; whatever is neither success nor error is pending."""
    status = (_object_of(body) or {}).get("status")
    if status == "success":
        return "success"
    return "error" if status == "error" else "pending"


def image_url_of(body: bytes, secret: bytes = b"") -> str:
    """Where the picture is, by an answer to a poll; "" where it names no place that a browser could go to, or holds
    `secret`, be it behind escapes."""
    url = (_object_of(body) or {}).get("image_url")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")) or len(url) > URL_CHARACTERS_MAX:
        return ""
    return "" if secret and secret.decode("latin-1") in url else url


def fault_of(body: bytes, secret: bytes = b"") -> str:
    """What an answer says is wrong, on one line, `secret` masked, bounded; "" where it says nothing that can be shown.

    MiniToolAI's errors are not documented: the places are OpenAI's and those of an answer to a poll.
    """
    answer = _object_of(body) or {}
    error = answer.get("error")
    said = error.get("message") if isinstance(error, dict) else error or answer.get("message")
    words = "".join(char if char.isprintable() else " " for char in said).split() if isinstance(said, str) else []
    return mask(" ".join(words).encode(), secret).decode()[:FAULT_CHARACTERS_MAX]


_FIELDS = frozenset(
    {
        "model",
        "prompt",
        "negativePrompt",
        "scheduler",
        "steps",
        "cfgScale",
        "width",
        "height",
    }
)


def _job_of(fields: JSONObject) -> tuple[str, str]:
    jobid = fields.get("jobid")
    if isinstance(jobid, int) and not isinstance(jobid, bool):
        jobid = str(jobid)
    return _name_of(jobid, "jobid"), _name_of(fields.get("signature"), "signature")


def _name_of(value: JSON, param: str) -> str:
    return string_of(value, param, characters_max=JOB_CHARACTERS_MAX, empty=False)


def _object_of(body: bytes | bytearray) -> JSONObject | None:
    """The answer as an object; None for whatever else a broken upstream sends."""
    if len(body) > ANSWER_BYTES_MAX:
        return None
    try:
        answer: JSON = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None
