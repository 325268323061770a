"""The models a key may use, in OpenAI's shape, each with its price and its sizes."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute
from gateway.billing.errors import ModelNotFound
from gateway.billing.price_schedule import EnteredPrice
from gateway.billing.principal import Principal
from gateway.store.packed import ScopeState
from gateway.store.prices import PriceBooks, Prices
from gateway.store.scopes import Scopes
from gateway.web.auth import Authenticator
from gateway.web.holder import for_holder
from gateway.web.http import json_response
from gateway.web.me import allowed_models
from gateway.wire.prices import model_json


class Models:
    """Handlers of `GET /v1/models` and `GET /v1/models/{id}`."""

    def __init__(self, auth: Authenticator, scopes: Scopes, prices: PriceBooks) -> None:
        self._auth = auth
        self._scopes = scopes
        self._prices = prices

    def routes(self) -> list[RuledRoute]:
        return [
            for_holder("GET", "/v1/models", self._auth, self._list),
            # A model's name may hold whatever a path may, slashes too.
            for_holder("GET", "/v1/models/{model:path}", self._auth, self._one),
        ]

    async def _list(self, _request: Request, principal: Principal) -> Response:
        models = await self._allowed(principal)
        return json_response({"object": "list", "data": [model_json(entry) for entry in models.values()]})

    async def _one(self, request: Request, principal: Principal) -> Response:
        name = request.path_params["model"]
        entry = (await self._allowed(principal)).get(name)
        if entry is None:
            raise ModelNotFound(
                f"There is no model {name[:80]!r} that this key may use; GET /v1/models lists those it may.",
                param="model",
            )
        return json_response(model_json(entry))

    async def _allowed(self, principal: Principal) -> dict[str, EnteredPrice]:
        """The price in force of each model that every scope above a key allows, by its name."""
        books = await self._prices.read(principal.org)
        states, _ = await self._scopes.look(principal)
        return models_of(books, [state for state in states if state is not None])


def models_of(books: Prices, states: list[ScopeState]) -> dict[str, EnteredPrice]:
    """Models that have a price and that all these scopes allow, in the order of the alphabet."""
    in_force = {
        entry.dated.model: entry
        for entry, state in zip(books.entries, books.schedule.states(books.now_ms), strict=True)
        if state == "current"
    }
    return {model: in_force[model] for model in allowed_models(books.schedule.at(books.now_ms), states)}
