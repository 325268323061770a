"""Chat: what a request may cost, before it is sent. The answer's side is `chat_meter`.

Why the bound holds. Every chat model sold here reads o200k_base, a byte-level BPE: each of its
tokens stands for one byte or more, so a text has at most as many tokens as UTF-8 bytes, however it
is cut. Around the texts a prompt has 3 tokens a message, 1 more for a name, and 3 that prime the
answer (OpenAI cookbook, "How to count tokens with tiktoken"). An image has a published upper bound
by its detail, and a lower one where its size is known (`vision`); its URL and its bytes are not text.
A JSON schema counts as twice its bytes. Nothing else can reach the prompt, because nothing else is
let through: unknown fields, message keys, part types and their keys are refused at every depth.

Output is at most n × `max_completion_tokens`, which is always sent, each choice at most the
model's own maximum; a prompt is at most the model's context window.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.billing.errors import InvalidRequest
from gateway.billing.prices import ModelPrice, PriceList
from gateway.billing.usage import Usage
from gateway.wire.call import Call, PromptText
from gateway.wire.chat_meter import ChatMeter
from gateway.wire.chat_options import OPTIONS, option_tokens
from gateway.wire.fields import (
    array_of,
    boolean_of,
    choice_of,
    integer_of,
    model_of,
    number_of,
    object_of,
    refuse_unknown,
    string_of,
)
from gateway.wire.strictjson import JSON, JSONObject, encode
from gateway.wire.vision import ImageBounds

__all__ = ["KIND", "ChatMeter", "ChatRules", "inspect_chat", "known_fields"]

KIND = "chat"
COMPLETION_TOKENS_MAX = 2**31 - 1
"""Far above any model's own maximum, which bounds the hold; above it a number is no count of tokens."""


@dataclass(frozen=True, slots=True)
class ChatRules:
    """What an installation lets through. Defaults: upstream-contract.md, "Stated" and "Left open".

    `extra_fields` are undocumented fields to forward (`chat_options`). `*_tokens` are the overheads
    around texts that the module's docstring derives.
    """

    roles: tuple[str, ...] = ("developer", "system", "user", "assistant")
    extra_fields: frozenset[str] = frozenset(OPTIONS)
    max_completion_tokens_default: int = 1000
    message_tokens: int = 3
    name_tokens: int = 1
    reply_tokens: int = 3


def inspect_chat(fields: JSONObject, rules: ChatRules, prices: PriceList) -> Call:
    """Validate a chat request and say what to send and the most it can use.

    Raises InvalidRequest and UnsupportedParameter (400, `param` names the field) and ModelNotFound (404).
    """
    refuse_unknown(fields, known_fields(rules.extra_fields))
    price = prices.of(model_of(fields), KIND)
    prompt = _prompt_of(fields, rules, price)
    completion_tokens = _max_completion_tokens(fields, rules)
    choices = integer_of(fields["n"], "n", 1) if fields.get("n") is not None else 1
    completion_tokens_max = choices * min(completion_tokens, price.output_tokens_max)
    return Call(
        kind=KIND,
        model=price.model,
        body=encode(_forwarded(fields, completion_tokens)),
        bound=Usage(
            prompt_tokens=min(_bound_of(prompt), price.context_tokens_max),
            completion_tokens=completion_tokens_max,
        ),
        usage_max=Usage(
            prompt_tokens=price.context_tokens_max,
            completion_tokens=choices * price.output_tokens_max,
        ),
        prompt=prompt,
        completion_tokens_max=completion_tokens_max,
    )


_FIELDS = frozenset({"messages", "model", "temperature", "max_completion_tokens", "max_tokens", "stream"})
_MESSAGE = frozenset({"role", "content", "name"})
_NOT_FORWARDED = frozenset({"max_tokens", "stream"})


@functools.cache
def known_fields(extra_fields: frozenset[str]) -> frozenset[str]:
    """Every field of a request that is read, with these beside the documented ones."""
    return _FIELDS | extra_fields


def _forwarded(fields: JSONObject, completion_tokens: int) -> JSONObject:
    kept = {name: value for name, value in fields.items() if name not in _NOT_FORWARDED}
    kept["max_completion_tokens"] = completion_tokens
    return kept


def _max_completion_tokens(fields: JSONObject, rules: ChatRules) -> int:
    """The caller's maximum under either of its names, or the documented default."""
    given = {
        name: integer_of(fields[name], name, 1, COMPLETION_TOKENS_MAX)
        for name in ("max_completion_tokens", "max_tokens")
        if fields.get(name) is not None
    }
    if len(set(given.values())) > 1:
        raise InvalidRequest(
            "max_tokens and max_completion_tokens differ; send only max_completion_tokens.",
            param="max_tokens",
        )
    return next(iter(given.values()), rules.max_completion_tokens_default)


def _bound_of(prompt: PromptText) -> int:
    """At most so many tokens: one for each UTF-8 byte of its texts, plus what is not text."""
    return prompt.extra_tokens + sum(len(text) if text.isascii() else len(text.encode()) for text in prompt.texts)


def _prompt_of(fields: JSONObject, rules: ChatRules, price: ModelPrice) -> PromptText:
    texts: list[str] = []
    extra_tokens = rules.reply_tokens + _option_tokens(fields, rules)
    images: ImageBounds | None = None
    for index, message in enumerate(array_of(fields.get("messages"), "messages")):
        if isinstance(message, dict) and _is_plain(message, rules):
            texts += message.values()  # type: ignore[arg-type]  # both are strings
            extra_tokens += rules.message_tokens
            continue
        images = images or ImageBounds(price)
        read = _message(message, f"messages[{index}]", rules, images)
        texts.extend(read.texts)
        extra_tokens += read.extra_tokens
    return PromptText(tuple(texts), extra_tokens)


def _is_plain(message: JSONObject, rules: ChatRules) -> bool:
    """Whether it is a role and a text, as most messages are: nothing is left to check, and no error to word."""
    return len(message) == 2 and isinstance(message.get("content"), str) and message.get("role") in rules.roles


def _option_tokens(fields: JSONObject, rules: ChatRules) -> int:
    if fields.get("temperature") is not None:
        number_of(fields["temperature"], "temperature", 0, 2)
    if fields.get("stream") is not None:
        boolean_of(fields["stream"], "stream")
    if fields.get("top_logprobs") is not None and fields.get("logprobs") is not True:
        raise InvalidRequest('top_logprobs needs "logprobs": true beside it.', param="top_logprobs")
    options = [name for name in fields if name in rules.extra_fields]
    return sum(option_tokens(name, fields[name]) for name in options) if options else 0


def _message(value: JSON, where: str, rules: ChatRules, images: ImageBounds) -> PromptText:
    message = object_of(value, where)
    refuse_unknown(message, _MESSAGE, f"{where}.")
    texts = [choice_of(message.get("role"), f"{where}.role", rules.roles)]
    extra_tokens = rules.message_tokens
    if message.get("name") is not None:
        texts.append(string_of(message["name"], f"{where}.name", characters_max=64, empty=False))
        extra_tokens += rules.name_tokens
    for part in _content(message.get("content"), f"{where}.content", images):
        if isinstance(part, str):
            texts.append(part)
        else:
            extra_tokens += part
    return PromptText(tuple(texts), extra_tokens)


def _content(value: JSON, where: str, images: ImageBounds) -> Iterator[str | int]:
    """The texts of a message and the token bounds of its images, in their order."""
    if isinstance(value, str):
        yield value
        return
    if not isinstance(value, list):
        raise InvalidRequest(f"{where} must be a string or an array of parts.", param=where)
    for index, entry in enumerate(array_of(value, where)):
        part_where = f"{where}[{index}]"
        part = object_of(entry, part_where)
        kind = choice_of(part.get("type"), f"{part_where}.type", ("text", "image_url"))
        refuse_unknown(part, {"type", kind}, f"{part_where}.")
        if kind == "text":
            yield string_of(part.get("text"), f"{part_where}.text")
        else:
            yield images.tokens_max(part.get("image_url"), f"{part_where}.image_url")
