"""Chat as OpenAI's clients ask for it: what of their request is the upstream's, and how they want its answer.

Their bodies differ from MiniToolAI's by little. Members whose value is null are as absent, for the SDKs send the
messages they were answered back as they came (`"refusal": null`), and tools write `"tools": null`. `stream` and
`stream_options` say how the answer is presented and go no further. Everything else is read by `inspect_chat`.
"""

import functools

from gateway.billing.errors import InvalidRequest
from gateway.billing.prices import PriceList
from gateway.wire.call import Call
from gateway.wire.chat import ChatRules, inspect_chat, known_fields
from gateway.wire.fields import boolean_of, object_of, refuse_unknown
from gateway.wire.presentation import Presentation
from gateway.wire.strictjson import JSON, JSONObject

_ABOUT_THE_ANSWER = frozenset({"stream", "stream_options"})
_STREAM_OPTIONS = frozenset({"include_usage"})


def inspect_openai_chat(fields: JSONObject, rules: ChatRules, prices: PriceList) -> Call:
    """As `inspect_chat`, which says what it raises."""
    said = _without_nulls(fields)
    refuse_unknown(said, _known_fields(rules.extra_fields))
    asked = {name: value for name, value in said.items() if name not in _ABOUT_THE_ANSWER}
    messages = asked.get("messages")
    if isinstance(messages, list):
        asked["messages"] = [_message_without_nulls(message) for message in messages]
    return inspect_chat(asked, rules, prices)


def openai_presentation(fields: JSONObject, *, with_cost: bool) -> Presentation:
    """A stream where `stream` is true, else one object with everything in it. `fields` were inspected.

    Raises InvalidRequest and UnsupportedParameter: `stream` or `stream_options` is not as OpenAI has it.
    """
    streamed = fields.get("stream") is not None and boolean_of(fields["stream"], "stream")
    options = fields.get("stream_options")
    if options is not None and not streamed:
        raise InvalidRequest('stream_options needs "stream": true beside it.', param="stream_options")
    with_usage = not streamed or (options is not None and _include_usage(options))
    choices = fields.get("n")
    return Presentation(
        folded=not streamed,
        with_usage=with_usage,
        with_cost=with_cost,
        cost_in_usage=with_cost,
        choices=choices if isinstance(choices, int) else 1,
    )


@functools.cache
def _known_fields(extra_fields: frozenset[str]) -> frozenset[str]:
    return known_fields(extra_fields) | _ABOUT_THE_ANSWER


def _include_usage(options: JSON) -> bool:
    asked = object_of(options, "stream_options")
    refuse_unknown(asked, _STREAM_OPTIONS, "stream_options.")
    wanted = asked.get("include_usage")
    return wanted is not None and boolean_of(wanted, "stream_options.include_usage")


def _message_without_nulls(message: JSON) -> JSON:
    if not isinstance(message, dict):
        return message
    kept = _without_nulls(message)
    if kept.get("annotations") == []:
        del kept["annotations"]
    content = kept.get("content")
    if isinstance(content, list):
        kept["content"] = [_part_without_nulls(part) for part in content]
    return kept


def _part_without_nulls(part: JSON) -> JSON:
    if not isinstance(part, dict):
        return part
    return {name: _without_nulls(value) if isinstance(value, dict) else value for name, value in _said(part)}


def _without_nulls(fields: JSONObject) -> JSONObject:
    return dict(_said(fields))


def _said(fields: JSONObject) -> list[tuple[str, JSON]]:
    return [(name, value) for name, value in fields.items() if value is not None]
