"""What the control plane sets at one scope."""

from dataclasses import dataclass

from gateway.billing.budget import Budget
from gateway.billing.limits import NO_LIMITS, Limits
from gateway.billing.principal import Role, Scope, ScopeKind


@dataclass(frozen=True, slots=True)
class ScopeSettings:
    """Settings of an organisation, team, user or key. `models` None allows every model that has a price.

    `team` is set for users and keys, `user` for keys that belong to one; neither ever changes. `role`,
    `expires_at_ms` (0 = never) and `revoked_at_ms` (0 = not) belong to keys. `timezone` and `first_weekday`
    belong to organisations: by them all their windows turn, so they never change either.
    """

    kind: ScopeKind
    id: str
    name: str = ""
    team: str | None = None
    user: str | None = None
    role: Role = "member"
    budgets: tuple[Budget, ...] = ()
    models: tuple[str, ...] | None = None
    blocked: bool = False
    expires_at_ms: int = 0
    revoked_at_ms: int = 0
    created_at_ms: int = 0
    timezone: str = ""
    first_weekday: str = "monday"
    limits: Limits = NO_LIMITS

    @property
    def scope(self) -> Scope:
        return Scope(self.kind, self.id)

    def parents(self) -> tuple[Scope, ...]:
        """Scopes that must exist above this one, nearest last."""
        team = () if self.team is None else (Scope("team", self.team),)
        user = () if self.user is None else (Scope("user", self.user),)
        return (*team, *user)
