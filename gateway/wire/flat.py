"""Endpoints priced by the call or by the character: one row of fields, one price, no code.

This is how text to speech will be added when MiniToolAI documents it: a `FlatRules` for its
fields, a price of its kind, and an `Endpoint` that names both.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from gateway.billing.prices import PriceList
from gateway.billing.usage import Usage
from gateway.wire.call import Call, Outcome
from gateway.wire.fields import boolean_of, integer_of, model_of, number_of, refuse_unknown, string_of
from gateway.wire.strictjson import JSON, JSONObject, encode

FieldType = Literal["string", "integer", "number", "boolean"]


@dataclass(frozen=True, slots=True)
class FlatField:
    """One field of the request; one that is not required may also be null."""

    type: FieldType
    required: bool = False


@dataclass(frozen=True, slots=True)
class FlatRules:
    """A whole endpoint: the kind of its price, its fields, and what is counted.

    `characters_of` names the required string whose characters are the units; None means that the
    call is the unit. `model` is the model whose price applies where the request has no field "model".
    """

    kind: str
    fields: Mapping[str, FlatField]
    characters_of: str | None = None
    model: str | None = None


def inspect_flat(fields: JSONObject, rules: FlatRules, prices: PriceList) -> Call:
    """Validate a request by its table; its bound is its price, for both are known before the call.

    Raises InvalidRequest and UnsupportedParameter (400, `param` names the field) and ModelNotFound (404).
    """
    refuse_unknown(fields, rules.fields.keys())
    for name, field in rules.fields.items():
        if field.required or fields.get(name) is not None:
            _CHECKS[field.type](fields.get(name), name)
    model = rules.model if rules.model is not None else model_of(fields)
    price = prices.of(model, rules.kind)
    usage = Usage(units=_units_of(fields, rules))
    return Call(kind=rules.kind, model=price.model, body=encode(fields), bound=usage, usage_max=usage)


class FlatMeter:
    """Charges the call's own bound: an answer with a 2xx status is the whole service.

    As every meter, it is asked only about such answers; any other is not billed.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    def feed(self, chunk: bytes) -> None:
        """Nothing in the body changes the price."""

    @property
    def done(self) -> bool:
        """The bill is known from the start."""
        return True

    def outcome(self) -> Outcome:
        """The whole bound, exactly."""
        return Outcome(usage=self._call.bound, began=True)


def _units_of(fields: JSONObject, rules: FlatRules) -> int:
    if rules.characters_of is None:
        return 1
    # Empty is refused: a call of no units would be free.
    return len(string_of(fields.get(rules.characters_of), rules.characters_of, empty=False))


_INTEGER_MAX = 2**53 - 1


def _string(value: JSON, param: str) -> None:
    string_of(value, param)


def _integer(value: JSON, param: str) -> None:
    integer_of(value, param, -_INTEGER_MAX, _INTEGER_MAX)


def _number(value: JSON, param: str) -> None:
    number_of(value, param, -_INTEGER_MAX, _INTEGER_MAX)


def _boolean(value: JSON, param: str) -> None:
    boolean_of(value, param)


_CHECKS: Mapping[FieldType, Callable[[JSON, str], None]] = MappingProxyType(
    {"string": _string, "integer": _integer, "number": _number, "boolean": _boolean}
)
