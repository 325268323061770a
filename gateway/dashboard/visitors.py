"""Who visits, and what of the organisation they may see.

Laws:
- Administrators and auditors see everything; a team's administrator sees the team, its users and its keys.
- A member sees their own key and their own user, and of their team its budgets; never the organisation's amounts.
- What a visitor may not see does not exist for them: the answer is 404, whether or not it is there.
"""

from typing import Protocol

from gateway.billing.principal import Principal, Role, Scope
from gateway.billing.scope import ScopeSettings

_SEE_ALL: frozenset[Role] = frozenset({"admin", "auditor"})


class Visitor(Protocol):
    """`principal` is None for the administrator's own key, which belongs to no team."""

    @property
    def name(self) -> str: ...
    @property
    def role(self) -> Role: ...
    @property
    def org(self) -> str: ...
    @property
    def principal(self) -> Principal | None: ...


class Door(Protocol):
    """Who a secret, or the digest of one shown earlier, stands for at this moment.

    Raises AuthenticationError and ScopeBlocked: nobody, or nobody any more; LedgerUnavailable.
    """

    def is_proven(self, secret: str) -> bool:
        """Whether it is right and nobody finds it by guessing: it is served whatever else its address tries."""

    async def caller(self, authorization: bytes | None, x_api_key: bytes | None = None) -> Visitor: ...
    async def caller_of_digest(self, org: str, digest: str) -> Visitor: ...


def sees_all(visitor: Visitor) -> bool:
    return visitor.role in _SEE_ALL or visitor.principal is None


def team_of(visitor: Visitor) -> str | None:
    """The one team whose users and keys a visitor may list; None: all teams. Not for members, who list nothing."""
    return None if sees_all(visitor) or visitor.principal is None else visitor.principal.team


def lists_scopes(visitor: Visitor) -> bool:
    """Whether there are lists of teams, users and keys for this visitor."""
    return sees_all(visitor) or visitor.role == "team_admin"


def home_of(visitor: Visitor) -> Scope:
    """The scope that the first page is about."""
    if sees_all(visitor) or visitor.principal is None:
        return Scope("organisation", visitor.org)
    if visitor.role == "team_admin":
        return Scope("team", visitor.principal.team)
    return Scope("key", visitor.principal.key)


def may_open(visitor: Visitor, settings: ScopeSettings) -> bool:
    """Whether a visitor may see a scope's own page: its spending, requests and refusals."""
    if sees_all(visitor) or visitor.principal is None:
        return True
    who = visitor.principal
    if visitor.role == "team_admin":
        return settings.scope == Scope("team", who.team) or settings.team == who.team
    return settings.scope == Scope("key", who.key) or (settings.kind == "user" and settings.id == who.user)


def budgets_shown(visitor: Visitor, settings: ScopeSettings) -> tuple[Scope, ...]:
    """Scopes whose budgets belong on the page of one scope: its own, and those above it that the visitor may know."""
    organisation = (Scope("organisation", visitor.org),) if sees_all(visitor) else ()
    own = () if settings.kind == "organisation" else (settings.scope,)
    return (*organisation, *settings.parents(), *own)
