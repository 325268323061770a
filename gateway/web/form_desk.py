"""Changes that people ask for on the dashboard: made as the control plane's own routes make them, and written down so.

`dashboard` knows this as its `ControlPlane` and nothing else of `web`.
"""

from collections.abc import Mapping
from functools import partial

from gateway.access import Who
from gateway.billing.errors import GatewayError
from gateway.billing.principal import Role, Scope, ScopeKind
from gateway.billing.reach import Reach
from gateway.billing.scope import ScopeSettings
from gateway.store.changes import Change, Outcome
from gateway.store.scopes import Scopes
from gateway.web.admin import CHANGED_BY
from gateway.web.auth import Authenticator, Caller
from gateway.web.credits import PAID_BY, CreditDesk
from gateway.web.http import ROLES, Done, check_role
from gateway.web.reached import ReachedScopes
from gateway.web.rotation import KeyRotation
from gateway.web.scope_changes import ScopeChanges
from gateway.web.trail import kept, recorded
from gateway.wire.fields import scope_id_of
from gateway.wire.strictjson import encode
from gateway.wire.wish import COLLECTIONS, KIND_OF, Action, Resource, Wish

_OF_A_SCOPE: tuple[Action, ...] = ("change", "block", "unblock")
_OF_A_KEY: tuple[Action, ...] = ("rotate", "revoke")
_BELOW: Mapping[ScopeKind, tuple[Resource, ...]] = {
    "organisation": ("teams",),
    "team": ("users", "keys"),
    "user": ("keys",),
    "key": (),
}


class FormDesk:
    def __init__(
        self, auth: Authenticator, scopes: Scopes, changes: ScopeChanges, rotation: KeyRotation, credit: CreditDesk
    ) -> None:
        self._auth = auth
        self._scopes = scopes
        self._changes = changes
        self._rotation = rotation
        self._credit = credit

    async def change(self, org: str, digest: str, wish: Wish, request_id: str) -> Mapping[str, object]:
        """Make a change for the owner of the secret with this digest, as they stand at this moment.

        Returns what the control plane answers: of a new secret this is the one time. Raises what it refuses with:
        AuthenticationError, ScopeBlocked (of the owner); PermissionDenied, NotFound and the rest (of the change);
        RateLimitExceeded: its quota of changes is used up.
        """
        caller = await self._auth.caller_of_digest(org, digest)
        check_role(caller, ROLES[_who(wish)])
        change = _change_of(wish, caller, request_id)
        done = await recorded(self._auth.changes, caller, change, partial(self._make, wish, caller), _outcome_of)
        return done.body

    async def permitted(self, role: Role, reach: Reach, settings: ScopeSettings) -> frozenset[tuple[Resource, Action]]:
        """What is not refused for the role or the reach of whoever looks at one scope: of itself and right below it."""
        found: set[tuple[Resource, Action]] = set()
        if role in ROLES[CHANGED_BY[settings.kind]] and await self._is_changeable(reach, settings.scope):
            actions = _OF_A_SCOPE + (_OF_A_KEY if settings.kind == "key" else ())
            found |= {(COLLECTIONS[settings.kind], action) for action in actions}
        if reach.covers(settings):
            below = _BELOW[settings.kind]
            found |= {(name, "create") for name in below if role in ROLES[CHANGED_BY[KIND_OF[name]]]}
        if role in ROLES[PAID_BY]:
            found.add(("credits", "create"))
        return frozenset(found)

    async def _is_changeable(self, reach: Reach, scope: Scope) -> bool:
        try:
            await ReachedScopes(self._scopes, reach).read_to_change(scope)
        except GatewayError as error:
            if error.status in (403, 404):
                return False
            raise
        return True

    async def _make(self, wish: Wish, caller: Caller) -> Done:
        fields = wish.fields or {}
        if wish.action == "create":
            if wish.resource == "credits":
                return await self._credit.pay(fields, wish.once, caller)
            return await self._changes.create(KIND_OF[wish.resource], fields, wish.once, caller)
        scope = Scope(KIND_OF[wish.resource], scope_id_of(wish.resource_id, "id"))
        match wish.action:
            case "change":
                return await self._changes.change(scope, fields, caller, wish.decided_by)
            case "block" | "unblock":
                return await self._changes.block(scope, caller, blocked=wish.action == "block")
            case "rotate":
                return await self._rotation.rotate(scope.id, fields, wish.once, caller)
            case "revoke":
                return await self._changes.revoke(scope.id, caller)


def _who(wish: Wish) -> Who:
    return PAID_BY if wish.resource == "credits" else CHANGED_BY[KIND_OF[wish.resource]]


def _change_of(wish: Wish, caller: Caller, request_id: str) -> Change:
    fields = None if wish.fields is None else kept(encode(wish.fields))
    named = wish.resource_id or (fields or {}).get("id", "")
    return Change(
        request_id=request_id,
        caller=caller.author,
        role=caller.role,
        action=wish.action,
        resource=wish.resource,
        resource_id=named[:100] if isinstance(named, str) else "",
        fields=fields,
    )


def _outcome_of(done: Done) -> Outcome:
    return Outcome(done.status, resource_id=str(done.body.get("id", "")))
