"""How far each role reaches, as a table."""

from dataclasses import dataclass
from typing import cast

import pytest

from gateway.billing.principal import Principal, Role, Scope
from gateway.billing.reach import Reach, reach_of
from gateway.billing.scope import ScopeSettings

LAN = Principal("acme", "red", "lan", "own")
SAME_USER, SAME_TEAM = LAN._replace(key="other"), Principal("acme", "red", None, "robot")
STRANGER = Principal("acme", "blue", "binh", "foreign")
HERSELF = Scope("user", "lan")


@dataclass(frozen=True)
class Line:
    """Of the books: a call, or what was entered at a scope."""

    at: tuple[Scope, ...]

    def scopes(self) -> tuple[Scope, ...]:
        return self.at


@pytest.mark.parametrize(
    ("role", "reads"),
    [
        ("admin", [True, True, True, True]),
        ("auditor", [True, True, True, True]),
        ("team_admin", [True, True, True, False]),
        ("member", [True, False, False, False]),
        ("made up", [True, False, False, False]),
    ],
)
def test_books_are_theirs_who_reach_a_scope_they_count_at(role: str, reads: list[bool]) -> None:
    """A role that nobody knows reaches as little as there is."""
    reach = reach_of(cast(Role, role), "acme", LAN)
    assert reads == [reach.covers_booked(Line(who.scopes())) for who in (LAN, SAME_USER, SAME_TEAM, STRANGER)]


def test_what_was_entered_at_a_scope_belongs_to_who_reaches_that() -> None:
    """A correction of the organisation is no team's, one of a team or a user no key's."""
    lines = [Line(LAN.scopes()[:count]) for count in (1, 2, 3, 4)]
    reaches = [reach_of(role, "acme", LAN) for role in ("auditor", "team_admin", "member")]
    assert [[True] * 4, [False, True, True, True], [False, False, False, True]] == [
        [reach.covers_booked(line) for line in lines] for reach in reaches
    ]


@pytest.mark.parametrize(
    ("reach", "listed"),
    [
        (reach_of("admin", "acme", None), [None, None, None, None]),
        (reach_of("auditor", "acme", LAN), [None, None, None, None]),
        (reach_of("team_admin", "acme", LAN), [(), (Scope("team", "red"),), None, None]),
        (reach_of("member", "acme", LAN), [(), (), (HERSELF,), (Scope("key", "own"),)]),
        (reach_of("member", "acme", SAME_TEAM), [(), (), (), (Scope("key", "robot"),)]),
    ],
)
def test_what_a_list_holds_is_known_or_looked_for(reach: Reach, listed: list[tuple[Scope, ...] | None]) -> None:
    """None: among all there are, or all of the team. A key that belongs to no user has none to see."""
    assert listed == [reach.listed(kind) for kind in ("organisation", "team", "user", "key")]


@pytest.mark.parametrize(("role", "all_of_them"), [("admin", True), ("team_admin", False)])
def test_a_teams_administrator_changes_members(role: Role, all_of_them: bool) -> None:
    """Whoever reaches the organisation changes what they like."""
    reach = reach_of(role, "acme", LAN)
    roles: tuple[Role, ...] = ("member", "team_admin", "auditor", "admin")
    keys = [ScopeSettings("key", each, team="red", role=each) for each in roles]
    assert [True, *([all_of_them] * 3)] == [reach.may_change(key) for key in keys]
