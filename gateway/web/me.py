"""What a key's holder may know: their own key, user and team, and what is left in each budget."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute
from gateway.billing.budget import Calendar
from gateway.billing.limits import RATE_OF_LIMIT
from gateway.billing.money import format_usd
from gateway.billing.prices import PriceList
from gateway.billing.principal import Principal
from gateway.billing.reach import SEE_ORGANISATION
from gateway.store.packed import ScopeState
from gateway.store.prices import PriceBooks
from gateway.store.scopes import Scopes
from gateway.web.auth import Authenticator
from gateway.web.holder import for_holder
from gateway.web.http import json_response
from gateway.web.scope_answers import scope_json


class Me:
    """Handler of `GET /v1/me`."""

    def __init__(self, auth: Authenticator, scopes: Scopes, prices: PriceBooks, calendar: Calendar) -> None:
        self._auth = auth
        self._scopes = scopes
        self._prices = prices
        self._calendar = calendar

    def routes(self) -> list[RuledRoute]:
        return [for_holder("GET", "/v1/me", self._auth, self._me)]

    async def _me(self, _request: Request, principal: Principal) -> Response:
        books = await self._prices.read(principal.org)
        now_ms, prices = books.now_ms, books.schedule.at(books.now_ms)
        spans = self._calendar.spans_at(now_ms)
        rows = [await self._scopes.get(principal.org, scope) for scope in principal.scopes()]
        key, key_state = rows[-1]
        states = [state for _, state in rows]
        # What the whole organisation spends is told only to those who may see it.
        seen = rows if key.role in SEE_ORGANISATION else rows[1:]
        visible = [
            {
                "scope": settings.kind,
                "id": settings.id,
                "budgets": scope_json(settings, state, spans)["budgets"],
                "limits": limits_json(state, now_ms),
            }
            for settings, state in seen
        ]
        return json_response(
            {
                "key": {"id": key.id, "name": key.name, "team": principal.team, "user": principal.user},
                "scopes": visible,
                "models": allowed_models(prices, states),
                "usage": {
                    "today_usd": format_usd(key_state.balance("day", spans).spent_nano_usd),
                    "month_usd": format_usd(key_state.balance("month", spans).spent_nano_usd),
                },
            }
        )


def limits_json(state: ScopeState, now_ms: int) -> dict[str, object]:
    """Each limit with what is left of it now, and after how many milliseconds all of it is back."""
    return {
        name: {"limit": left.limit, "remaining": left.remaining, "reset_ms": left.reset_ms}
        for name, rate in RATE_OF_LIMIT.items()
        if (left := state.left(rate, now_ms)) is not None
    }


def allowed_models(prices: PriceList, states: list[ScopeState]) -> list[str]:
    """Models that have a price and that every scope above a key allows."""
    lists = [set(state.models) for state in states if state.models is not None]
    return [model for model in prices.models() if all(model in allowed for allowed in lists)]
