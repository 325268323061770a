"""The control plane: the organisation, teams, users and keys. Reports and books are in `web.books`.

One resource class serves all kinds of scope; what differs is in their settings (`wire.scopes`). What a change does is
in `web.scope_changes`.
"""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute, Who
from gateway.billing.budget import Calendar
from gateway.billing.errors import InvalidRequest
from gateway.billing.principal import SCOPE_ID, Scope, ScopeKind
from gateway.store.scopes import Scopes
from gateway.web.auth import Authenticator, Caller
from gateway.web.http import (
    Handler,
    answered,
    guarded,
    json_fields,
    json_response,
    limit_of,
    own_org,
    query,
    refuse_fields,
)
from gateway.web.idempotency import key_sent
from gateway.web.reached import ReachedScopes
from gateway.web.scope_answers import scope_json
from gateway.web.scope_changes import ScopeChanges
from gateway.wire.wish import COLLECTIONS

READ_BY: Mapping[ScopeKind, Who] = {"organisation": "reader", "team": "viewer", "user": "viewer", "key": "viewer"}
CHANGED_BY: Mapping[ScopeKind, Who] = {"organisation": "writer", "team": "writer", "user": "manager", "key": "manager"}


def scope_routes(auth: Authenticator, scopes: Scopes, calendar: Calendar) -> list[RuledRoute]:
    """Routes of all four kinds of scope."""
    return [
        route
        for kind, name in COLLECTIONS.items()
        for route in ScopeResource(kind, auth, scopes, calendar).routes(f"/admin/v1/{name}")
    ]


class ScopeResource:
    """POST, GET (one, page), PATCH, block, unblock; for keys also revoke (DELETE is the same)."""

    def __init__(self, kind: ScopeKind, auth: Authenticator, scopes: Scopes, calendar: Calendar) -> None:
        self._kind: ScopeKind = kind
        self._auth = auth
        self._scopes = scopes
        self._changes = ScopeChanges(scopes, calendar)

    def routes(self, path: str) -> list[RuledRoute]:
        one, read_by, changed_by = path + "/{id}", READ_BY[self._kind], CHANGED_BY[self._kind]
        actions = [
            guarded("POST", f"{one}/block", self._auth, changed_by, self._set(blocked=True)),
            guarded("POST", f"{one}/unblock", self._auth, changed_by, self._set(blocked=False)),
        ]
        if self._kind == "key":
            actions += [
                guarded("POST", f"{one}/revoke", self._auth, changed_by, self._revoke),
                guarded("DELETE", one, self._auth, changed_by, self._revoke),
            ]
        return [
            guarded("GET", path, self._auth, read_by, self._page),
            guarded("POST", path, self._auth, changed_by, self._create),
            *actions,
            guarded("GET", one, self._auth, read_by, self._get),
            guarded("PATCH", one, self._auth, changed_by, self._patch),
        ]

    async def _create(self, request: Request, caller: Caller) -> Response:
        fields = await json_fields(request)
        return answered(await self._changes.create(self._kind, fields, key_sent(request), caller))

    async def _page(self, request: Request, caller: Caller) -> Response:
        params = query(request, {"cursor": "", "limit": "100", "org": caller.org})
        own_org(params["org"], caller)
        limit = limit_of(params["limit"])
        rows = await self._reached(caller).page(self._kind, after=params["cursor"], limit=limit)
        spans = await self._changes.spans()
        last = rows[-1][0].id if len(rows) == limit else None
        return json_response({"data": [scope_json(*row, spans) for row in rows], "next_cursor": last})

    async def _get(self, request: Request, caller: Caller) -> Response:
        stored = await self._reached(caller).read(self._scope(request))
        return json_response(scope_json(stored.settings, stored.state, await self._changes.spans()))

    async def _patch(self, request: Request, caller: Caller) -> Response:
        return answered(await self._changes.change(self._scope(request), await json_fields(request), caller))

    def _set(self, *, blocked: bool) -> Handler:
        async def handler(request: Request, caller: Caller) -> Response:
            await refuse_fields(request)
            return answered(await self._changes.block(self._scope(request), caller, blocked=blocked))

        return handler

    async def _revoke(self, request: Request, caller: Caller) -> Response:
        await refuse_fields(request)
        return answered(await self._changes.revoke(id_of(request), caller))

    def _reached(self, caller: Caller) -> ReachedScopes:
        return ReachedScopes(self._scopes, caller.reach)

    def _scope(self, request: Request) -> Scope:
        return Scope(self._kind, id_of(request))


def id_of(request: Request) -> str:
    """The id in the path. Raises InvalidRequest: it is none."""
    scope_id: str = request.path_params["id"]
    if not SCOPE_ID.fullmatch(scope_id):
        raise InvalidRequest("An id is 1 to 40 of a-z, 0-9 and '-'.", param="id")
    return scope_id
