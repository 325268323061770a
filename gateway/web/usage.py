"""A usage report as it is answered: JSON or CSV, made piece by piece, for one of every key, model and day is long."""

import asyncio
import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from gateway.billing.money import format_usd
from gateway.store.cells import TAG, Measures
from gateway.wire.strictjson import encode

Row = tuple[tuple[str, ...], Measures]
"""Where a row stands in its groups, and what it adds up."""

_ROWS_AT_ONCE = 200
_COUNTS = ("requests", "prompt_tokens", "completion_tokens", "images", "cost_nano_usd", "estimated_nano_usd")
_COLUMNS = (*_COUNTS, "cost_usd")
_TOTALS = ("requests", "cost_nano_usd", "cost_usd", "estimated_nano_usd")


async def joined(pieces: Iterable[bytes]) -> bytes:
    """All pieces as one; between any two the calls on this loop have their turn."""
    made = []
    for piece in pieces:
        made.append(piece)
        await asyncio.sleep(0)
    return b"".join(made)


def usage_json(groups: Sequence[str], rows: Sequence[Row]) -> Iterator[bytes]:
    """One object a row, and the total: null over tags, for a call counts under each of its own."""
    total = Measures()
    yield b'{"data":['
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        piece = rows[begin : begin + _ROWS_AT_ONCE]
        total = sum((measures for _, measures in piece), total)
        objects = [_group_json(groups, place) | _measures_json(measures) for place, measures in piece]
        yield b"," * (begin > 0) + encode(objects)[1:-1]
    values = _measures_json(total)
    yield b'],"total":' + encode(None if TAG in groups else {name: values[name] for name in _TOTALS}) + b"}"


def usage_csv(groups: Sequence[str], rows: Sequence[Row]) -> Iterator[bytes]:
    """The same rows below a header."""
    yield _csv([[*groups, *_COLUMNS]])
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        piece = rows[begin : begin + _ROWS_AT_ONCE]
        yield _csv([*place, *_measures_json(measures).values()] for place, measures in piece)


def _group_json(groups: Sequence[str], place: Sequence[str]) -> dict[str, object]:
    return {group: value or None for group, value in zip(groups, place, strict=True)}


def _measures_json(measures: Measures) -> dict[str, object]:
    """In the order of `_COLUMNS`. `flagged` is left out: it is counted for reconciliation, a report tells what rests
    on estimates in money."""
    counts: dict[str, object] = {name: getattr(measures, name) for name in _COUNTS}
    return counts | {"cost_usd": format_usd(measures.cost_nano_usd)}


def _csv(rows: Iterable[Sequence[object]]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()
