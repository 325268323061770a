"""The price file, `config/prices.toml`: from the parsed document to a schedule of prices."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

from gateway.billing.budget import Calendar
from gateway.billing.price_rows import check_name, read_price
from gateway.billing.price_schedule import ALWAYS_MS, DatedPrice, PriceChange, PriceSchedule
from gateway.billing.prices import PriceListError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def price_schedule(document: Mapping[str, object], calendar: Calendar) -> PriceSchedule:
    """Read the file.

    Shape: `[chat."<model>"]` with `input_usd_per_million`, `output_usd_per_million` (decimal strings),
    `context_tokens`, `output_tokens`, `image_tokens_low`, `image_tokens_high`, optional `cached_usd_per_million` and
    one of `image_tile_tokens`, `image_patch_percent`;
    `[units.<kind>]` with `usd` and `models` for what is priced by the piece; `[[change]]` with `from`, `model` or
    `models`, and either the new rates or `withdrawn = true`. A table may have a `from`, too: before it there is no
    price. A date begins at midnight by the calendar.

    Raises PriceListError: anything missing, unknown, a float where a decimal string belongs.
    """
    unknown = set(document) - {"source", "date", "chat", "units", "change"}
    if unknown:
        raise PriceListError(f"unknown entry {sorted(unknown)[0]!r}; known are source, date, chat, units, change")
    first = [*_chat_rows(document.get("chat", {}), calendar), *_unit_rows(document.get("units", {}), calendar)]
    seen: dict[str, DatedPrice] = {}
    for dated in first:
        if dated.model in seen:
            raise PriceListError(f"model {dated.model} has two prices; keep one, or give the other a [[change]]")
        seen[dated.model] = dated
    if not first:
        raise PriceListError("the list is empty; without prices every call would be refused")
    changes = sorted(_changes(document.get("change", []), seen, calendar), key=lambda change: change.from_ms)
    return _with_changes(first, changes)


def _with_changes(first: Sequence[DatedPrice], changes: Sequence[PriceChange]) -> PriceSchedule:
    schedule = PriceSchedule(first)
    for change in changes:
        where = f"{change.id}, {change.model}"
        if any((known.model, known.from_ms) == (change.model, change.from_ms) for known in schedule.entered):
            raise PriceListError(f"{where}: there are two prices from the same instant; keep one")
        try:
            schedule = PriceSchedule([*schedule.entered, schedule.dated(change)])
        except PriceListError as error:
            raise PriceListError(f"{where}: {error}") from None
    return schedule


def _chat_rows(table: object, calendar: Calendar) -> Iterator[DatedPrice]:
    for model, value in _table(table, "chat").items():
        where = f"chat.{model}"
        row = dict(_table(value, where))
        from_ms = _from_ms(row.pop("from"), where, calendar) if "from" in row else ALWAYS_MS
        yield DatedPrice(model, "chat", from_ms, read_price(model, "chat", row, where=f"{where}."))


def _unit_rows(table: object, calendar: Calendar) -> Iterator[DatedPrice]:
    for kind, value in _table(table, "units").items():
        if kind == "chat":
            # Chat is billed by its tokens, which such a row would make free.
            raise PriceListError("units.chat cannot be: chat is priced by token, in [chat.<model>]")
        check_name(kind)
        where = f"units.{kind}"
        row = dict(_table(value, where))
        from_ms = _from_ms(row.pop("from"), where, calendar) if "from" in row else ALWAYS_MS
        for model in _models(row.pop("models", None), where):
            yield DatedPrice(model, kind, from_ms, read_price(model, kind, row, where=f"{where}."))


def _changes(tables: object, seen: Mapping[str, DatedPrice], calendar: Calendar) -> Iterator[PriceChange]:
    if not isinstance(tables, list):
        raise PriceListError("change must be a list of tables: write [[change]]")
    for number, value in enumerate(tables, 1):
        where = f"change {number}"
        row = dict(_table(value, where))
        from_ms = _from_ms(row.pop("from", None), where, calendar)
        if ("model" in row) == ("models" in row):
            raise PriceListError(f"{where} must name its model, or several models")
        models = _models([row.pop("model")] if "model" in row else row.pop("models"), where)
        withdrawn = row.pop("withdrawn", False)
        if withdrawn is not False and (withdrawn is not True or row):
            raise PriceListError(f"{where}.withdrawn is true, and then stands for the new rates")
        for model in models:
            if model not in seen:
                raise PriceListError(f"{where}: {model} has no table of its own; a new model gets one, with from")
            yield PriceChange(where, model, seen[model].kind, from_ms, None if withdrawn else row)


def _models(value: object, where: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(m, str) and m for m in value):
        raise PriceListError(f"{where}.models must be a list of model names")
    return value


def _from_ms(value: object, where: str, calendar: Calendar) -> int:
    """A TOML date or instant. One before 1971 would be, or come too near to, ALWAYS_MS."""
    if isinstance(value, date) and 1971 <= value.year < 9000:
        if not isinstance(value, datetime):
            return calendar.midnight_ms(value)
        if value.tzinfo is not None:
            return (value - _EPOCH) // timedelta(milliseconds=1)
    raise PriceListError(
        f"{where}.from must be a date such as 2026-12-01, or an instant with its offset such as 2026-12-01T00:00:00Z, "
        "without quotes, between the years 1971 and 9000"
    )


def _table(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise PriceListError(f"{where} must be a table")
    return value
