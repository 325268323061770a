"""What MiniToolAI documents: a request body becomes a typed request, or a `BadRequest` naming the field.

Strategy: everything documented is checked (type, range, list of values); the OpenAI fields that are known to
be harmless are accepted unread; any other field is refused, so that a client which sends what was never
documented hears of it here and not in production.

Source: MiniToolAI's documentation, sections "API ChatGPT" and "Chuyển mô tả thành hình ảnh" (text to image).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

DATED_MODELS = {
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano": "gpt-4.1-nano-2025-04-14",
}
"""Chat models and the dated name that answers carry."""

ROLES = ("developer", "user", "assistant", "system")
MAX_COMPLETION_TOKENS_DEFAULT = 1_000
CHOICES_MAX = 128

CHAT_FIELDS = frozenset(
    (
        "messages", "model", "temperature", "max_completion_tokens", "max_tokens", "stream", "n", "top_p",
        "stop", "seed", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs",
        "response_format", "user", "metadata",
    )
)  # fmt: skip

IMAGE_MODELS = (
    "realvision", "juggernaut", "autismmix", "dreamshaper", "valhalla", "mixrealistic", "campursari",
    "reality", "extrarealistic", "realism", "realgirls", "realityreborn", "amigo", "simplemix",
    "beautifulrealistic",
)  # fmt: skip
SCHEDULERS = (
    "Euler a", "Euler", "LMS", "Heun", "DPM2", "DPM2 a", "DPM++ 2S a", "DPM++ 2M", "DPM++ SDE",
    "DPM++ 2M SDE", "DPM fast", "LMS Karras", "DPM2 Karras", "DPM2 a Karras", "DPM++ 2S a Karras",
    "DPM++ 2M Karras", "DPM++ SDE Karras", "DPM++ 2M SDE Karras",
)  # fmt: skip
IMAGE_FIELDS = frozenset(("model", "prompt", "negativePrompt", "scheduler", "steps", "cfgScale", "width", "height"))


class BadRequest(Exception):
    """The body breaks the contract: answered 400. `param` names the field, None when it is the whole body."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


@dataclass(frozen=True, slots=True)
class ImagePart:
    """One image of a message; `detail` is auto, high or low."""

    url: str
    detail: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message: the texts and the images of its content, in order."""

    role: str
    name: str | None
    texts: tuple[str, ...]
    images: tuple[ImagePart, ...]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A valid chat request; `digest` is equal for bodies that ask for the same thing in other words."""

    model: str
    messages: tuple[Message, ...]
    max_completion_tokens: int
    choices: int
    digest: bytes

    @property
    def last_text(self) -> str:
        return "\n".join(self.messages[-1].texts)


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """A valid image request; sizes in pixels."""

    model: str
    prompt: str
    width: int
    height: int
    digest: bytes


def parse_chat(raw: bytes) -> ChatRequest:
    """Read a chat body. Raises BadRequest."""
    body = _object(raw, CHAT_FIELDS)
    model = _one_of(body, "model", DATED_MODELS, default=None)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list with at least one message", "messages")
    parsed = tuple(_message(message, f"messages[{index}]") for index, message in enumerate(messages))
    temperature = _number(body, "temperature", 1, 0, 2)
    tokens_max = _tokens_max(body)
    choices = _integer(body, "n", 1, 1, CHOICES_MAX)
    if not isinstance(body.get("stream", True), bool | None):
        raise BadRequest("stream must be true or false", "stream")

    # What is left out means its default and `stream` changes nothing, so neither may change the answer.
    meaning = {
        name: value for name, value in body.items() if name not in {"stream", "max_tokens"} and value is not None
    }
    meaning |= {"temperature": float(temperature), "max_completion_tokens": tokens_max, "n": choices}
    return ChatRequest(model, parsed, tokens_max, choices, _digest(meaning))


def parse_image(raw: bytes) -> ImageRequest:
    """Read the body of an image submission. Raises BadRequest."""
    body = _object(raw, IMAGE_FIELDS)
    model = _one_of(body, "model", IMAGE_MODELS, default=None)
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise BadRequest("prompt must be a string that is not empty", "prompt")
    if not isinstance(body.get("negativePrompt"), str | None):
        raise BadRequest("negativePrompt must be a string or null", "negativePrompt")
    _one_of(body, "scheduler", SCHEDULERS, default="DPM++ SDE")
    _integer(body, "steps", 4, 1, 8)
    _number(body, "cfgScale", 2, 1, 7)
    width = _integer(body, "width", 1_024, 256, 1_344)
    height = _integer(body, "height", 1_024, 256, 1_344)
    return ImageRequest(model, prompt, width, height, _digest(body))


def parse_poll(raw: bytes) -> tuple[str, str]:
    """Read (jobid, signature) of a poll; the jobid may be a string or an integer. Raises BadRequest."""
    body = _object(raw, frozenset({"jobid", "signature"}))
    job_id, signature = body.get("jobid"), body.get("signature")
    if isinstance(job_id, bool) or not isinstance(job_id, str | int):
        raise BadRequest("jobid must be a string or an integer", "jobid")
    if not isinstance(signature, str):
        raise BadRequest("signature must be a string", "signature")
    return str(job_id), signature


def _object(raw: bytes, fields: frozenset[str]) -> dict[str, Any]:
    try:
        body = json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    for name in body:
        if name not in fields:
            raise BadRequest(f"unknown field {name}", name)
    return body


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _message(message: object, where: str) -> Message:
    if not isinstance(message, dict) or not message.keys() <= {"role", "content", "name"}:
        raise BadRequest(f"{where} must be an object with role, content and perhaps name", where)
    role, name, content = message.get("role"), message.get("name"), message.get("content")
    if role not in ROLES:
        raise BadRequest(f"{where}.role must be one of {', '.join(ROLES)}", f"{where}.role")
    if not isinstance(name, str | None):
        raise BadRequest(f"{where}.name must be a string", f"{where}.name")
    if isinstance(content, str):
        return Message(role, name, (content,), ())
    if not isinstance(content, list) or not content:
        raise BadRequest(f"{where}.content must be a string or a list of parts", f"{where}.content")
    parts = [_part(part, f"{where}.content[{index}]") for index, part in enumerate(content)]
    texts = tuple(part for part in parts if isinstance(part, str))
    images = tuple(part for part in parts if isinstance(part, ImagePart))
    return Message(role, name, texts, images)


def _part(part: object, where: str) -> str | ImagePart:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    if not isinstance(part, dict) or part.get("type") != "image_url" or not isinstance(part.get("image_url"), dict):
        raise BadRequest(f"{where} must be a text or an image_url part", where)
    image = part["image_url"]
    url, detail = image.get("url"), image.get("detail", "auto")
    if not isinstance(url, str) or not url:
        raise BadRequest(f"{where}.image_url.url must be a string", f"{where}.image_url.url")
    if detail not in ("auto", "high", "low"):
        raise BadRequest(f"{where}.image_url.detail must be auto, high or low", f"{where}.image_url.detail")
    return ImagePart(url, detail)


def _tokens_max(body: dict[str, Any]) -> int:
    """max_completion_tokens, or OpenAI's older name for it; both must agree."""
    ceiling = 1_000_000
    older = _integer(body, "max_tokens", MAX_COMPLETION_TOKENS_DEFAULT, 1, ceiling)
    tokens_max = _integer(body, "max_completion_tokens", older, 1, ceiling)
    if body.get("max_tokens") is not None and older != tokens_max:
        raise BadRequest("max_tokens and max_completion_tokens differ", "max_tokens")
    return tokens_max


def _one_of(body: dict[str, Any], name: str, values: Iterable[str], default: str | None) -> str:
    value = body.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or value not in values:
        raise BadRequest(f"{name} must be one of {', '.join(values)}", name)
    return value


def _integer(body: dict[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = _number(body, name, default, low, high)
    if not isinstance(value, int):
        raise BadRequest(f"{name} must be an integer from {low} to {high}", name)
    return value


def _number(body: dict[str, Any], name: str, default: int, low: int, high: int) -> int | float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise BadRequest(f"{name} must be a number from {low} to {high}", name)
    return value


def _digest(meaning: dict[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).digest()
