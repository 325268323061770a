"""Is this process alive, may it be sent calls, and what has it counted."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute
from gateway.billing.errors import InvalidAPIKey, LedgerUnavailable
from gateway.fixed_secret import FixedSecret
from gateway.ledger_view import LedgerView
from gateway.web.auth import bearer
from gateway.web.http import json_response, origin_of, raw_header
from gateway.web.services import Services


class Health:
    """`/livez`, `/readyz` and `/metrics`."""

    def __init__(
        self,
        services: Services,
        ready: Callable[[], Awaitable[bool]],
        spool_ready: Callable[[], Awaitable[bool]],
        ledger_view: Callable[[], Awaitable[LedgerView]],
        metrics_token: str,
    ) -> None:
        self._services = services
        self._ready = ready
        self._spool_ready = spool_ready
        self._ledger_view = ledger_view
        self._metrics_token = FixedSecret(metrics_token)

    def routes(self) -> list[RuledRoute]:
        return [
            RuledRoute("GET", "/livez", "anyone", self._livez),
            RuledRoute("GET", "/readyz", "anyone", self._readyz),
            RuledRoute("GET", "/metrics", "scraper", self._metrics),
        ]

    async def _livez(self, _request: Request) -> Response:
        return json_response({"status": "alive"})

    async def _readyz(self, _request: Request) -> Response:
        redis, spool = await self._ready(), await self._spool_ready()
        ready = redis and spool and not self._services.draining
        checks = {"redis": redis, "spool": spool, "draining": self._services.draining}
        return json_response({"status": "ready" if ready else "not ready", **checks}, 200 if ready else 503)

    async def _metrics(self, request: Request) -> Response:
        """For the metrics token or the administrator's key. Answers without Redis, too: alerts need it most then."""
        auth = self._services.auth
        secret = bearer(raw_header(request, "authorization"), None)
        is_token = self._metrics_token.matches(secret)
        proven = auth.is_proven(secret) or (is_token and self._metrics_token.is_beyond_guessing)
        with auth.bad_keys.looking_at(secret, *origin_of(request), proven=proven):
            if not is_token and not auth.is_admin_key(secret):
                raise InvalidAPIKey("GET /metrics takes the metrics token or the administrator's key.")
        try:
            view = await self._ledger_view()
        except LedgerUnavailable:
            view = None
        text = await self._services.metrics.scrape(view)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
