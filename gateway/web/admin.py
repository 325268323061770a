"""The control plane: the organisation, teams, users and keys. Reports and books are in `web.books`.

One resource class serves all kinds of scope; what differs is in their settings (`wire.scopes`).
"""

import secrets
import string
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute, Who
from gateway.billing.budget import Budget, Calendar, Spans, instant
from gateway.billing.errors import (
    AlreadyExists,
    GatewayError,
    IdempotencyUnreplayable,
    InvalidRequest,
    PermissionDenied,
)
from gateway.billing.money import format_usd
from gateway.billing.principal import (
    SCOPE_ID,
    SECRET_CHARS,
    Scope,
    ScopeKind,
    digest_of,
    make_sub_key,
)
from gateway.billing.scope import ScopeSettings
from gateway.store.packed import ScopeState
from gateway.store.scopes import Asked, Scopes
from gateway.web.auth import Authenticator, Caller
from gateway.web.http import Handler, guarded, json_fields, json_response, limit_of, query, refuse_fields
from gateway.web.idempotency import answer_once, asked_once
from gateway.web.reached import ReachedScopes
from gateway.wire.scopes import budget_json, changed_settings, new_settings, settings_json

_LETTERS = string.ascii_letters + string.digits
READ_BY: Mapping[ScopeKind, Who] = {"organisation": "reader", "team": "viewer", "user": "viewer", "key": "viewer"}
CHANGED_BY: Mapping[ScopeKind, Who] = {"organisation": "writer", "team": "writer", "user": "manager", "key": "manager"}


def scope_routes(auth: Authenticator, scopes: Scopes, calendar: Calendar) -> list[RuledRoute]:
    """Routes of all four kinds of scope."""
    kinds: dict[str, ScopeKind] = {"organisations": "organisation", "teams": "team", "users": "user", "keys": "key"}
    return [
        route
        for name, kind in kinds.items()
        for route in ScopeResource(kind, auth, scopes, calendar).routes(f"/admin/v1/{name}")
    ]


class ScopeResource:
    """POST, GET (one, page), PATCH, block, unblock; for keys also revoke (DELETE is the same)."""

    def __init__(self, kind: ScopeKind, auth: Authenticator, scopes: Scopes, calendar: Calendar) -> None:
        self._kind: ScopeKind = kind
        self._auth = auth
        self._scopes = scopes
        self._calendar = calendar

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
        org = fields.get("org")
        own_org(caller.org if org is None else org, caller)
        default_id = f"key-{secrets.token_hex(6)}" if self._kind == "key" else ""
        settings = new_settings(self._kind, fields, default_id=default_id)
        if self._kind == "organisation":
            raise _no_further_organisation(settings.id, caller.org)
        self._reached(caller).check_new(settings)
        settings = replace(settings, created_at_ms=await self._scopes.now_ms())
        asked = asked_once(self._kind, request, fields, caller)
        if self._kind == "key":
            await self._refuse_foreign_user(caller, settings)
            return await self._create_key(caller.org, settings, asked)
        repeated = await self._scopes.create(caller.org, settings, asked=asked) is not None
        return answer_once(await self._answer(caller.org, settings.scope), repeated=repeated)

    async def _create_key(self, org: str, settings: ScopeSettings, asked: Asked | None) -> Response:
        """Its secret is in this answer and nowhere else: who lost it hears which key to revoke, and gets no other."""
        secret = new_sub_key(org)
        first = await self._scopes.create(org, settings, secret_digest=digest_of(secret), asked=asked)
        if first is not None:
            raise IdempotencyUnreplayable(
                f"Key {first} was created by the first request with this Idempotency-Key; its secret was in that "
                "answer and is not kept. If that answer is lost, revoke the key and create another under a new "
                "Idempotency-Key.",
                param="Idempotency-Key",
                details={"scope": "key", "id": first},
            )
        return json_response({**await self._answer(org, settings.scope), "key": secret}, 201)

    async def _refuse_foreign_user(self, caller: Caller, settings: ScopeSettings) -> None:
        if settings.user is None:
            return
        user = (await self._reached(caller).read(Scope("user", settings.user))).settings
        if user.team != settings.team:
            raise InvalidRequest(f"User {user.id} is in team {user.team}, not in {settings.team}.", param="user")

    async def _page(self, request: Request, caller: Caller) -> Response:
        params = query(request, {"cursor": "", "limit": "100", "org": caller.org})
        own_org(params["org"], caller)
        limit = limit_of(params["limit"])
        rows = await self._reached(caller).page(self._kind, after=params["cursor"], limit=limit)
        spans = await self._spans()
        last = rows[-1][0].id if len(rows) == limit else None
        return json_response({"data": [scope_json(*row, spans) for row in rows], "next_cursor": last})

    async def _get(self, request: Request, caller: Caller) -> Response:
        stored = await self._reached(caller).read(self._scope(request))
        return json_response(scope_json(stored.settings, stored.state, await self._spans()))

    async def _patch(self, request: Request, caller: Caller) -> Response:
        fields = await json_fields(request)
        return await self._change(request, caller, lambda settings: changed_settings(settings, fields))

    def _set(self, *, blocked: bool) -> Handler:
        async def handler(request: Request, caller: Caller) -> Response:
            await refuse_fields(request)
            return await self._change(request, caller, lambda settings: replace(settings, blocked=blocked))

        return handler

    async def _revoke(self, request: Request, caller: Caller) -> Response:
        await refuse_fields(request)
        now_ms = time.time_ns() // 1_000_000
        return await self._change(
            request,
            caller,
            lambda settings: replace(settings, revoked_at_ms=settings.revoked_at_ms or now_ms),
        )

    async def _change(
        self, request: Request, caller: Caller, change: Callable[[ScopeSettings], ScopeSettings]
    ) -> Response:
        scope = self._scope(request)
        await self._reached(caller).change(scope, change)
        return json_response(await self._answer(caller.org, scope))

    async def _answer(self, org: str, scope: Scope) -> dict[str, object]:
        settings, state = await self._scopes.get(org, scope)
        return scope_json(settings, state, await self._spans())

    async def _spans(self) -> Spans:
        return self._calendar.spans_at(await self._scopes.now_ms())

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


def new_sub_key(org: str) -> str:
    """A secret that nobody has seen."""
    return make_sub_key(org, "".join(secrets.choice(_LETTERS) for _ in range(SECRET_CHARS)))


def scope_json(settings: ScopeSettings, state: ScopeState, spans: Spans) -> dict[str, object]:
    """A scope as answers show it: its settings, and for each budget what is spent, held and left."""
    return settings_json(settings) | {"budgets": [_budget_json(budget, state, spans) for budget in settings.budgets]}


def _budget_json(budget: Budget, state: ScopeState, spans: Spans) -> dict[str, object]:
    balance = state.balance(budget.window, spans)
    prepaid = budget.window == "prepaid"
    limit = state.credit.paid_in_nano_usd if prepaid else budget.limit_nano_usd
    amounts = {"paid_in": limit} if prepaid else {}
    amounts |= {
        "spent": balance.spent_nano_usd,
        "held": balance.held_nano_usd,
        "remaining": max(0, limit - balance.spent_nano_usd - balance.held_nano_usd),
    }
    return (
        budget_json(budget)
        | {f"{name}_usd": format_usd(amount) for name, amount in amounts.items()}
        | {f"{name}_nano_usd": amount for name, amount in amounts.items()}
        | {
            "starts_at": None if balance.span.end_ms is None else instant(balance.span.start_ms),
            "resets_at": None if balance.span.end_ms is None else instant(balance.span.end_ms),
        }
    )


def _no_further_organisation(wanted: str, served: str) -> GatewayError:
    """Each organisation needs a key of its own at MiniToolAI, and a deployment is given one."""
    if wanted == served:
        return AlreadyExists(
            f"The organisation {served} exists: the gateway's first start made it; change it with PATCH.", param="id"
        )
    return InvalidRequest(
        f"This deployment serves the one organisation {served}, with the key in MINITOOLAI_API_KEY. For another one "
        "start a gateway with that one's key and a Redis of its own; to split budgets within this one, create teams.",
        param="id",
    )


def own_org(org: object, caller: Caller) -> None:
    """Raises PermissionDenied: it is another organisation, and one caller has one."""
    if org != caller.org:
        raise PermissionDenied(f"This deployment serves the organisation {caller.org}.", param="org")
