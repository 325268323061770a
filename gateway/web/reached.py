"""The scopes as one caller has them: what is out of reach is not there, and only members are theirs to change."""

from collections.abc import AsyncIterator, Callable

from gateway.billing.errors import PermissionDenied, PreconditionFailed
from gateway.billing.principal import Scope, ScopeKind
from gateway.billing.reach import Reach
from gateway.billing.scope import ScopeSettings
from gateway.store.packed import ScopeState
from gateway.store.scopes import Scopes, Stored, no_parent, no_such

_CHANGE_TRIES = 5


class ReachedScopes:
    """Reads of `Scopes` within a reach, and what may be changed of it."""

    def __init__(self, scopes: Scopes, reach: Reach) -> None:
        self._scopes = scopes
        self._reach = reach

    async def read(self, scope: Scope) -> Stored:
        """Raises NotFound: there is none, or none within reach."""
        stored = await self._scopes.read(self._reach.org, scope)
        if not self._reach.covers(stored.settings):
            raise no_such(scope)
        return stored

    async def read_to_change(self, scope: Scope) -> Stored:
        """The same for who is going to change it. Raises also PermissionDenied: that is for others to do, as is a user
        who has a key of another role than member, since what bars or bounds the user bars or bounds that key."""
        stored = await self.read(scope)
        self.check_change(stored.settings)
        if scope.kind == "user" and not self._reach.is_whole:
            async for key in self._scopes.owned(self._reach.org, "key", team=stored.settings.team, user=scope.id):
                settings, _ = await self._scopes.get(self._reach.org, key)
                if not settings.revoked_at_ms:
                    self.check_change(settings)
        return stored

    async def change(self, scope: Scope, change: Callable[[ScopeSettings], ScopeSettings]) -> None:
        """Store what `change` makes of a scope's settings as they are; whoever was faster had the first word.

        Raises what `read_to_change` raises; PermissionDenied also for what it makes of them; PreconditionFailed: others
        were faster again and again.
        """
        for _ in range(_CHANGE_TRIES):
            stored = await self.read_to_change(scope)
            changed = change(stored.settings)
            self.check_change(changed)
            if await self._scopes.replace(self._reach.org, stored, changed):
                return
        raise PreconditionFailed(
            f"{scope.kind.capitalize()} {scope.id} is being changed by others at this moment, so this change was not "
            "made. Try again."
        )

    def check_change(self, settings: ScopeSettings) -> None:
        """Raises PermissionDenied: it is a key whose role is not member, their own or another's."""
        if not self._reach.may_change(settings):
            raise PermissionDenied(
                "A team's administrator changes the team's members, and gives no other role. A key with another role, "
                "such as your own, and the user it belongs to are changed by an administrator of the organisation.",
                details={"scope": settings.kind, "id": settings.id},
            )

    def check_new(self, settings: ScopeSettings) -> None:
        """Raises NotFound: its team is out of reach; PermissionDenied: its role is not theirs to give."""
        if not self._reach.covers(settings):
            raise no_parent(settings.parents()[0])
        self.check_change(settings)

    async def page(self, kind: ScopeKind, *, after: str, limit: int) -> list[tuple[ScopeSettings, ScopeState]]:
        """Up to `limit` scopes of one kind behind the id `after`, by id."""
        known = self._reach.listed(kind)
        if known is not None:
            return await self._scopes.several(self._reach.org, [scope for scope in known if scope.id > after][:limit])
        if self._reach.is_whole:
            return await self._scopes.page(self._reach.org, kind, after=after, limit=limit)
        own = self._scopes.owned(self._reach.org, kind, team=self._reach.home.id, after=after)
        return await self._scopes.several(self._reach.org, await _first(own, limit))


async def _first(scopes: AsyncIterator[Scope], count: int) -> list[Scope]:
    found: list[Scope] = []
    async for scope in scopes:
        found.append(scope)
        if len(found) == count:
            break
    return found
