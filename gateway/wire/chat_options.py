"""The fields of a chat request that MiniToolAI does not document and OpenAI does.

Each is known not to raise the price beyond the hold, or says by how much. `OPTIONS` is a table
from name to check; a check raises InvalidRequest or returns the prompt tokens the option may add.
An option that configuration allows and this table does not know passes unread, and twice its bytes
are added to the bound, as for a schema.
Source: OpenAI's API reference, "Create chat completion"; upstream-contract.md, "Left open".
"""

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from gateway.billing.errors import InvalidRequest
from gateway.wire.fields import (
    array_of,
    boolean_of,
    choice_of,
    integer_of,
    number_of,
    object_of,
    refuse_unknown,
    string_of,
)
from gateway.wire.strictjson import JSON, JSONObject, encode

CHOICES_MAX = 128
_SCHEMA_TOKENS_PER_BYTE = 2
_REFERENCES = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
_SCHEMA_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_TOKEN_ID = re.compile(r"[0-9]{1,7}", re.ASCII)


def option_tokens(name: str, value: JSON) -> int:
    """Check one option; return the most prompt tokens it may add.

    Raises InvalidRequest naming the field. null means absent, as it does to OpenAI.
    """
    if value is None:
        return 0
    check = OPTIONS.get(name)
    return _bound_of(value) if check is None else check(name, value)


def _bound_of(value: JSON) -> int:
    """A schema is shown to the model rewritten, by a rule nobody published: twice its bytes cover it."""
    return _SCHEMA_TOKENS_PER_BYTE * len(encode(value))


def _choices(name: str, value: JSON) -> int:
    integer_of(value, name, 1, CHOICES_MAX)
    return 0


def _fraction(name: str, value: JSON) -> int:
    number_of(value, name, 0, 1)
    return 0


def _penalty(name: str, value: JSON) -> int:
    number_of(value, name, -2, 2)
    return 0


def _seed(name: str, value: JSON) -> int:
    integer_of(value, name, -(2**63), 2**63 - 1)
    return 0


def _flag(name: str, value: JSON) -> int:
    boolean_of(value, name)
    return 0


def _top_logprobs(name: str, value: JSON) -> int:
    integer_of(value, name, 0, 20)
    return 0


def _user(name: str, value: JSON) -> int:
    string_of(value, name)
    return 0


def _stop(name: str, value: JSON) -> int:
    if isinstance(value, str):
        return 0
    if not isinstance(value, list):
        raise InvalidRequest(f"{name} must be a string or an array of 1 to 4 strings.", param=name)
    for index, sequence in enumerate(array_of(value, name, 4)):
        string_of(sequence, f"{name}[{index}]")
    return 0


def _logit_bias(name: str, value: JSON) -> int:
    for token_id, bias in object_of(value, name).items():
        if not _TOKEN_ID.fullmatch(token_id):
            raise InvalidRequest(f"{name} must map token ids to numbers.", param=name)
        number_of(bias, f"{name}.{token_id}", -100, 100)
    return 0


def _metadata(name: str, value: JSON) -> int:
    pairs = object_of(value, name)
    if len(pairs) > 16 or any(len(key) > 64 for key in pairs):
        raise InvalidRequest(f"{name} must have at most 16 keys of at most 64 characters.", param=name)
    for key, text in pairs.items():
        string_of(text, f"{name}.{key}", characters_max=512)
    return 0


def _response_format(name: str, value: JSON) -> int:
    form = object_of(value, name)
    kind = choice_of(form.get("type"), f"{name}.type", ("text", "json_object", "json_schema"))
    if kind != "json_schema":
        refuse_unknown(form, {"type"}, f"{name}.")
        return 0
    refuse_unknown(form, {"type", "json_schema"}, f"{name}.")
    where = f"{name}.json_schema"
    described = object_of(form.get("json_schema"), where)
    _check_schema(described, where)
    return _bound_of(described)


def _check_schema(described: JSONObject, where: str) -> None:
    refuse_unknown(described, {"name", "description", "schema", "strict"}, f"{where}.")
    if not _SCHEMA_NAME.fullmatch(string_of(described.get("name"), f"{where}.name")):
        raise InvalidRequest(
            f"{where}.name must be 1 to 64 letters, digits, dashes and underscores.", param=f"{where}.name"
        )
    if described.get("description") is not None:
        string_of(described["description"], f"{where}.description")
    if described.get("strict") is not None:
        boolean_of(described["strict"], f"{where}.strict")
    if described.get("schema") is not None:
        schema = object_of(described["schema"], f"{where}.schema")
        if any(_REFERENCES.intersection(member) for member in _objects_in(schema)):
            raise InvalidRequest(
                f"{where}.schema must not use $ref: what it expands to has no bound. Write it out.",
                param=f"{where}.schema",
            )


def _objects_in(value: JSON) -> Iterator[JSONObject]:
    """Every object in a value, itself included, at any depth."""
    open_values = [value]
    while open_values:
        value = open_values.pop()
        if isinstance(value, dict):
            yield value
            open_values.extend(value.values())
        elif isinstance(value, list):
            open_values.extend(value)


OPTIONS: Mapping[str, Callable[[str, JSON], int]] = MappingProxyType(
    {
        "frequency_penalty": _penalty,
        "logit_bias": _logit_bias,
        "logprobs": _flag,
        "metadata": _metadata,
        "n": _choices,
        "presence_penalty": _penalty,
        "response_format": _response_format,
        "seed": _seed,
        "stop": _stop,
        "top_logprobs": _top_logprobs,
        "top_p": _fraction,
        "user": _user,
    }
)
