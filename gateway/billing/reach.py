"""How far somebody reaches: the whole organisation, their team, or themselves. The control plane and the dashboard ask.

Laws:
- Administrators and auditors reach the whole organisation; a team's administrator reaches the team, its users and keys.
- Everybody else reaches their own key and their own user; of the books what counts at the own key.
- What is out of reach does not exist for them: the answer is that of what is not there.
- Who reaches less than the organisation changes members alone: no key of another role, and no user that has one; so
  neither their own.
"""

from dataclasses import dataclass
from typing import Protocol

from gateway.billing.principal import Principal, Role, Scope, ScopeKind
from gateway.billing.scope import ScopeSettings

SEE_ORGANISATION: frozenset[Role] = frozenset({"admin", "auditor"})


class Booked(Protocol):
    """An entry, or a hold: `scopes` has every scope it counts at."""

    def scopes(self) -> tuple[Scope, ...]: ...


@dataclass(frozen=True, slots=True)
class Reach:
    """`home` is the scope at which the books are theirs; `who` is None for the administrator's own key."""

    org: str
    home: Scope
    who: Principal | None

    @property
    def is_whole(self) -> bool:
        return self.home.kind == "organisation"

    def covers(self, settings: ScopeSettings) -> bool:
        """Whether a scope is theirs to see: its settings, and what it spent."""
        if self.is_whole:
            return True
        if self.home.kind == "team":
            return settings.scope == self.home or settings.team == self.home.id
        return settings.scope in self._own("user", "key")

    def covers_booked(self, booked: Booked) -> bool:
        """Whether a line of the books is theirs to read."""
        return self.is_whole or self.home in booked.scopes()

    def listed(self, kind: ScopeKind) -> tuple[Scope, ...] | None:
        """All scopes of a kind that are covered, where that is known at once; None: those of the organisation, or of
        the team that is `home`."""
        if self.is_whole or (self.home.kind == "team" and kind in ("user", "key")):
            return None
        return (self.home,) if kind == self.home.kind else self._own("user") if kind == "user" else ()

    def may_change(self, settings: ScopeSettings) -> bool:
        """Whether a scope that is covered may be changed, or made, by whoever may change any."""
        return self.is_whole or settings.role == "member"

    def _own(self, *kinds: ScopeKind) -> tuple[Scope, ...]:
        """Their own scopes of these kinds."""
        return () if self.who is None else tuple(scope for scope in self.who.scopes() if scope.kind in kinds)


def reach_of(role: Role, org: str, who: Principal | None) -> Reach:
    """The reach of a key that has this role; without an owner (`who`) it is the administrator's own."""
    if who is None or role in SEE_ORGANISATION:
        return Reach(org, Scope("organisation", org), who)
    return Reach(org, Scope("team", who.team) if role == "team_admin" else Scope("key", who.key), who)
