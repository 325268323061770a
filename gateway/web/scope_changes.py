"""Changes of scopes: what the control plane's routes and the dashboard's forms both run, so that they decide alike."""

import secrets
import string
import time
from collections.abc import Callable
from dataclasses import replace

from gateway.billing.budget import Calendar, Spans
from gateway.billing.errors import (
    AlreadyExists,
    GatewayError,
    IdempotencyUnreplayable,
    InvalidRequest,
    PreconditionFailed,
)
from gateway.billing.principal import SECRET_CHARS, Scope, ScopeKind, digest_of, make_sub_key
from gateway.billing.scope import ScopeSettings
from gateway.store.scopes import Asked, Scopes
from gateway.web.auth import Caller
from gateway.web.http import Done, own_org
from gateway.web.idempotency import asked_once
from gateway.web.reached import ReachedScopes
from gateway.web.scope_answers import scope_json
from gateway.wire.scopes import changed_settings, new_settings
from gateway.wire.strictjson import JSONObject

_LETTERS = string.ascii_letters + string.digits


class ScopeChanges:
    """Each change is made within the caller's reach, and answers the scope as it is then. Whether the caller's role may
    make it at all is for whoever calls to see to, as is writing it down.
    """

    def __init__(self, scopes: Scopes, calendar: Calendar) -> None:
        self._scopes = scopes
        self._calendar = calendar

    async def create(self, kind: ScopeKind, fields: JSONObject, key: str | None, caller: Caller) -> Done:
        """Make a scope of these fields, once for an Idempotency-Key; a key's secret is in this answer alone.

        Raises InvalidRequest or UnknownField naming the field; NotFound, AlreadyExists, PermissionDenied;
        IdempotencyConflict, IdempotencyUnreplayable.
        """
        org = fields.get("org")
        own_org(caller.org if org is None else org, caller)
        default_id = f"key-{secrets.token_hex(6)}" if kind == "key" else ""
        settings = new_settings(kind, fields, default_id=default_id)
        if kind == "organisation":
            raise _no_further_organisation(settings.id, caller.org)
        self._reached(caller).check_new(settings)
        settings = replace(settings, created_at_ms=await self._scopes.now_ms())
        asked = asked_once(kind, key, fields, caller)
        if kind == "key":
            await self._refuse_foreign_user(caller, settings)
            return await self._create_key(caller.org, settings, asked)
        repeated = await self._scopes.create(caller.org, settings, asked=asked) is not None
        return Done(await self._answer(caller.org, settings.scope), 201, repeated)

    async def change(
        self, scope: Scope, fields: JSONObject, caller: Caller, decided_by: ScopeSettings | None = None
    ) -> Done:
        """Set what the fields name. `decided_by`: the settings that the fields were made from.

        Raises InvalidRequest or UnknownField naming the field; NotFound, PermissionDenied; PreconditionFailed: the
        settings are others by now.
        """

        def changed(settings: ScopeSettings) -> ScopeSettings:
            if decided_by is not None and settings != decided_by:
                raise PreconditionFailed(f"Somebody else changed {scope.kind} {scope.id} meanwhile; look at it again.")
            return changed_settings(settings, fields)

        return await self._change(scope, caller, changed)

    async def block(self, scope: Scope, caller: Caller, *, blocked: bool) -> Done:
        """Refuse all calls of a scope from now on, or allow them again. Raises NotFound, PermissionDenied."""
        return await self._change(scope, caller, lambda settings: replace(settings, blocked=blocked))

    async def revoke(self, key_id: str, caller: Caller) -> Done:
        """End a key for good; once more changes nothing. Raises NotFound, PermissionDenied."""
        now_ms = time.time_ns() // 1_000_000
        return await self._change(
            Scope("key", key_id),
            caller,
            lambda settings: replace(settings, revoked_at_ms=settings.revoked_at_ms or now_ms),
        )

    async def _create_key(self, org: str, settings: ScopeSettings, asked: Asked | None) -> Done:
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
        return Done({**await self._answer(org, settings.scope), "key": secret}, 201)

    async def _refuse_foreign_user(self, caller: Caller, settings: ScopeSettings) -> None:
        if settings.user is None:
            return
        user = (await self._reached(caller).read(Scope("user", settings.user))).settings
        if user.team != settings.team:
            raise InvalidRequest(f"User {user.id} is in team {user.team}, not in {settings.team}.", param="user")

    async def _change(self, scope: Scope, caller: Caller, change: Callable[[ScopeSettings], ScopeSettings]) -> Done:
        await self._reached(caller).change(scope, change)
        return Done(await self._answer(caller.org, scope))

    async def _answer(self, org: str, scope: Scope) -> dict[str, object]:
        settings, state = await self._scopes.get(org, scope)
        return scope_json(settings, state, await self.spans())

    async def spans(self) -> Spans:
        """The windows of this moment."""
        return self._calendar.spans_at(await self._scopes.now_ms())

    def _reached(self, caller: Caller) -> ReachedScopes:
        return ReachedScopes(self._scopes, caller.reach)


def new_sub_key(org: str) -> str:
    """A secret that nobody has seen."""
    return make_sub_key(org, "".join(secrets.choice(_LETTERS) for _ in range(SECRET_CHARS)))


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
