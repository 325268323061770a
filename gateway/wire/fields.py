"""Reading one field of a decoded request, with the error a caller can act on.

Each function takes the value, the name of the field as `param` shall show it, and its bounds.
A boolean is never a number here, and 4.0 is no integer, though Python and JSON might let both pass.
"""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from typing import get_args

from gateway.billing.errors import InvalidRequest, UnknownField, UnsupportedParameter
from gateway.billing.money import parse_usd
from gateway.billing.principal import SCOPE_ID, ScopeKind
from gateway.wire.strictjson import JSON, JSONObject

_NOTE_CHARS_MAX = 500


def refuse_unknown(fields: JSONObject, known: AbstractSet[str], where: str = "") -> None:
    """Default-deny: whatever is not known might raise the price beyond the hold.

    `where` is the path of the object with its dot ("messages[0]."), empty at the top.
    """
    if fields.keys() <= known:
        return
    for name in fields:
        if name not in known:
            param = f"{where}{name[:80]}"
            raise UnsupportedParameter(
                f"{param} is not supported here; leave it out. Supported: {', '.join(sorted(known))}.",
                param=param,
            )


def refuse_unknown_fields(fields: Mapping[str, object], known: Collection[str], what: str) -> None:
    """The same on the control plane: what is accepted must mean something. `what` begins the message ("A credit")."""
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise UnknownField(
            f"{what} has no field {unknown[0][:80]!r}. Known are {', '.join(known)}.", param=unknown[0][:80]
        )


def string_of(value: JSON, param: str, *, characters_max: int | None = None, empty: bool = True) -> str:
    """A string, by default of any length."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{param} must be a string.", param=param)
    if not value and not empty:
        raise InvalidRequest(f"{param} must not be empty.", param=param)
    if characters_max is not None and len(value) > characters_max:
        raise InvalidRequest(f"{param} must have at most {characters_max} characters.", param=param)
    return value


def model_of(fields: JSONObject) -> str:
    """The model a call names; whether there is one of this name is for the price list to say."""
    if fields.get("model") is None:
        raise InvalidRequest("model is missing; GET /v1/models lists those that this key may use.", param="model")
    return string_of(fields["model"], "model")


def choice_of(value: JSON, param: str, choices: Collection[str]) -> str:
    """One of the listed strings."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidRequest(f"{param} must be one of: {', '.join(choices)}.", param=param)
    return value


def boolean_of(value: JSON, param: str) -> bool:
    """true or false, and nothing that merely resembles them."""
    if not isinstance(value, bool):
        raise InvalidRequest(f"{param} must be true or false.", param=param)
    return value


def integer_of(value: JSON, param: str, least: int, most: int | None = None) -> int:
    """An integer from `least` to `most`, both included."""
    if not isinstance(value, int) or isinstance(value, bool) or not _within(value, least, most):
        raise InvalidRequest(f"{param} must be an integer {_range(least, most)}.", param=param)
    return value


def number_of(value: JSON, param: str, least: float, most: float) -> float:
    """A number from `least` to `most`, both included."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not _within(value, least, most):
        raise InvalidRequest(f"{param} must be a number {_range(least, most)}.", param=param)
    return value


def amount_of(value: JSON, param: str, least: int = 0) -> int:
    """A decimal string of dollars as nano-USD, `least` or more (0 or 1)."""
    try:
        amount_nano_usd = parse_usd(value)
    except ValueError as error:
        raise InvalidRequest(f"{param}: {error}.", param=param) from None
    if amount_nano_usd < least:
        raise InvalidRequest(f"{param} must be above zero.", param=param)
    return amount_nano_usd


def scope_kind_of(value: JSON) -> ScopeKind:
    """The kind of a scope, as the member `scope` names it."""
    named = choice_of(value, "scope", get_args(ScopeKind))
    return next(kind for kind in get_args(ScopeKind) if kind == named)


def scope_id_of(value: JSON, param: str) -> str:
    """The id of a scope."""
    if not isinstance(value, str) or not SCOPE_ID.fullmatch(value):
        raise InvalidRequest(f"{param} must be the id of a scope: 1 to 40 of a-z, 0-9 and '-'.", param=param)
    return value


def note_of(value: JSON) -> str:
    """A remark on one line; absent or null is none."""
    text = "" if value is None else value
    if not isinstance(text, str) or len(text) > _NOTE_CHARS_MAX or any(ord(char) < 32 for char in text):
        raise InvalidRequest(f"note must be text of at most {_NOTE_CHARS_MAX} characters on one line.", param="note")
    return text


def object_of(value: JSON, param: str) -> JSONObject:
    """An object, with whatever members."""
    if not isinstance(value, dict):
        raise InvalidRequest(f"{param} must be an object.", param=param)
    return value


def array_of(value: JSON, param: str, most: int | None = None) -> list[JSON]:
    """An array of at least one and at most `most` values."""
    if not isinstance(value, list) or not _within(len(value), 1, most):
        size = "one or more" if most is None else f"1 to {most}"
        raise InvalidRequest(f"{param} must be an array of {size} entries.", param=param)
    return value


def _within(value: float, least: float, most: float | None) -> bool:
    return least <= value and (most is None or value <= most)


def _range(least: float, most: float | None) -> str:
    return f"of at least {least}" if most is None else f"from {least} to {most}"
