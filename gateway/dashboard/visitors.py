"""Who visits, and what of the organisation they may see.

How far each reaches is the control plane's rule, too (`billing.reach`). Laws:
- A page shows the budgets of what is above its scope, a member's of their team as well; never the organisation's
  amounts to those who do not reach it.
- What a visitor may not see does not exist for them: the answer is 404, whether or not it is there.
"""

from typing import Protocol

from gateway.billing.principal import Principal, Role, Scope
from gateway.billing.reach import Reach, reach_of
from gateway.billing.scope import ScopeSettings


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
    return reach_of_visitor(visitor).is_whole


def team_of(visitor: Visitor) -> str | None:
    """The one team whose users and keys a visitor may list; None: all teams. Not for members, who list nothing."""
    home = home_of(visitor)
    return home.id if home.kind == "team" else None


def lists_scopes(visitor: Visitor) -> bool:
    """Whether there are lists of teams, users and keys for this visitor."""
    return home_of(visitor).kind != "key"


def home_of(visitor: Visitor) -> Scope:
    """The scope that the first page is about."""
    return reach_of_visitor(visitor).home


def may_open(visitor: Visitor, settings: ScopeSettings) -> bool:
    """Whether a visitor may see a scope's own page: its spending, requests and refusals."""
    return reach_of_visitor(visitor).covers(settings)


def budgets_shown(visitor: Visitor, settings: ScopeSettings) -> tuple[Scope, ...]:
    """Scopes whose budgets belong on the page of one scope: its own, and those above it that the visitor may know."""
    organisation = (Scope("organisation", visitor.org),) if sees_all(visitor) else ()
    own = () if settings.kind == "organisation" else (settings.scope,)
    return (*organisation, *settings.parents(), *own)


def reach_of_visitor(visitor: Visitor) -> Reach:
    """The control plane's word for all of this."""
    return reach_of(visitor.role, visitor.org, visitor.principal)
