"""The words that schemas are made of: amounts, ids, instants, and closed objects."""

from collections.abc import Mapping

Schema = dict[str, object]

ANY: Schema = {}
TEXT: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
INTEGER: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
INSTANT: Schema = {"type": "string", "format": "date-time", "description": "RFC 3339, with its offset"}
USD: Schema = {
    "type": "string",
    "pattern": r"^[0-9]{1,10}(\.[0-9]{1,9})?$",
    "description": "dollars as a decimal string, never a float",
}
SIGNED_USD: Schema = {**USD, "pattern": r"^-?[0-9]{1,10}(\.[0-9]{1,9})?$"}
PRICE_USD: Schema = {**USD, "pattern": r"^[0-9]{1,7}(\.[0-9]{1,12})?$"}
ID: Schema = {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,39}$"}
NOTE: Schema = {"type": "string", "maxLength": 500, "pattern": r"^[^\x00-\x1f]*$"}


def within(least: int, most: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


def between(least: float, most: float) -> Schema:
    return {"type": "number", "minimum": least, "maximum": most}


def one_of(*values: object) -> Schema:
    return {"enum": list(values)}


def array(items: Schema, **bounds: int) -> Schema:
    return {"type": "array", "items": items, **bounds}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(schema: Schema) -> Schema:
    """The same or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def closed(members: Mapping[str, Schema], *optional: str) -> Schema:
    """An object with these members and no other, of which the `optional` may be absent."""
    required = [name for name in members if name not in optional]
    return {"type": "object", "properties": dict(members), "required": required, "additionalProperties": False}


def asked(members: Mapping[str, Schema], *required: str) -> Schema:
    """A body: of these members only the `required` must be there."""
    return closed(members, *(name for name in members if name not in required))


def dollars(*names: str, signed: bool = False) -> dict[str, Schema]:
    """Amounts as answers have them: each as `…_usd` and as `…_nano_usd`."""
    text, number = (SIGNED_USD, INTEGER) if signed else (USD, COUNT)
    return {f"{name}_usd": text for name in names} | {f"{name}_nano_usd": number for name in names}


def page_of(item: str, **more: Schema) -> Schema:
    """A list's answer; `next_cursor` is the `cursor` of the page behind it, null at the end."""
    return closed({"data": array(ref(item)), "next_cursor": nullable(TEXT), **more})
