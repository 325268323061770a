"""Prices on the control plane: what is in force, what is to come, what was; and a price from a day on."""

from collections.abc import Collection
from typing import get_args

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute
from gateway.billing.budget import Calendar, instant
from gateway.billing.errors import InvalidRequest
from gateway.billing.price_schedule import PriceState
from gateway.billing.prices import PriceListError
from gateway.store.audit import position
from gateway.store.prices import NotPriced, PriceBooks, Prices
from gateway.web.auth import Authenticator, Caller
from gateway.web.books import stream_cursor
from gateway.web.http import guarded, json_fields, json_response, limit_of, own_org, query
from gateway.web.idempotency import answer_once, idempotent_id, key_sent, used_for_another
from gateway.web.periods import border_ms
from gateway.wire.prices import change_of, price_json

_STATES: tuple[PriceState, ...] = get_args(PriceState)
_SHOWN = "current,upcoming"


class PriceDesk:
    """Handlers of `/admin/v1/prices`. `kinds`: of the endpoints that there are; no other kind of price is of use."""

    def __init__(self, auth: Authenticator, books: PriceBooks, calendar: Calendar, kinds: Collection[str]) -> None:
        self._auth = auth
        self._books = books
        self._calendar = calendar
        self._kinds = kinds

    def routes(self) -> list[RuledRoute]:
        return [
            guarded("GET", "/admin/v1/prices", self._auth, "reader", self._page),
            guarded("POST", "/admin/v1/prices", self._auth, "writer", self._enter),
        ]

    async def _enter(self, request: Request, caller: Caller) -> Response:
        change_id = idempotent_id("price", key_sent(request), caller)
        fields = await json_fields(request)
        own_org(fields.get("org") or caller.org, caller)
        change = change_of(fields, change_id, caller.author, kinds=self._kinds, from_ms_of=self._from_ms)
        try:
            entered = await self._books.enter(caller.org, change)
        except PriceListError as error:
            raise InvalidRequest(f"{error}.", param=error.field or None) from None
        if isinstance(entered, NotPriced):
            if entered.reason == "conflict":
                raise used_for_another("price")
            raise InvalidRequest(
                f"effective_from must be still to come; it is {instant(entered.now_ms)} now. What is or was in force "
                "never changes.",
                param="effective_from",
            )
        entry, repeated = entered
        return answer_once(price_json(entry), repeated=repeated)

    async def _page(self, request: Request, caller: Caller) -> Response:
        params = query(request, {"state": _SHOWN, "model": "", "limit": "100", "cursor": "", "org": caller.org})
        own_org(params["org"], caller)
        limit, cursor = limit_of(params["limit"]), stream_cursor(params["cursor"])
        books = await self._books.read(caller.org)
        rows = _rows(books, _states(params["state"]), params["model"], cursor)
        change_ms = books.schedule.next_change_ms(books.now_ms)
        return json_response(
            {
                "data": rows[:limit],
                "next_cursor": rows[limit - 1]["price"] if len(rows) > limit else None,
                "at": instant(books.now_ms),
                "version": books.schedule.at(books.now_ms).version,
                "next_change_at": None if change_ms is None else instant(change_ms),
            }
        )

    def _from_ms(self, text: str) -> int:
        return border_ms(text, "effective_from", self._calendar)


def _rows(books: Prices, states: Collection[str], model: str, after: str | None) -> list[dict[str, object]]:
    """Entries behind `after`, oldest first, each with what it is now."""
    return [
        price_json(entry) | {"state": state}
        for entry, state in zip(books.entries, books.schedule.states(books.now_ms), strict=True)
        if state in states
        and model in ("", entry.dated.model)
        and (after is None or position(entry.id) > position(after))
    ]


def _states(text: str) -> tuple[str, ...]:
    states = tuple(text.split(","))
    if not set(states) <= set(_STATES):
        raise InvalidRequest(f"state takes {', '.join(_STATES)}, separated by commas.", param="state")
    return states
