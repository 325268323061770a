"""Who may see what, as a table."""

from dataclasses import dataclass

import pytest

from gateway.billing.principal import Principal, Role, Scope
from gateway.billing.scope import ScopeSettings
from gateway.dashboard.visitors import budgets_shown, home_of, lists_scopes, may_open, team_of

ORGANISATION = ScopeSettings("organisation", "acme")
RED, BLUE = ScopeSettings("team", "red"), ScopeSettings("team", "blue")
AN, MAI = ScopeSettings("user", "an", team="red"), ScopeSettings("user", "mai", team="red")
BINH = ScopeSettings("user", "binh", team="blue")
OWN, OTHER = ScopeSettings("key", "own", team="red", user="an"), ScopeSettings("key", "an-too", team="red", user="an")
FOREIGN = ScopeSettings("key", "foreign", team="blue", user="binh")
EVERYTHING = {ORGANISATION, RED, BLUE, AN, MAI, BINH, OWN, OTHER, FOREIGN}


@dataclass(frozen=True)
class Somebody:
    role: Role
    principal: Principal | None = None
    name: str = "own"
    org: str = "acme"


def somebody(role: Role) -> Somebody:
    return Somebody(role, Principal("acme", "red", "an", "own"))


@pytest.mark.parametrize(
    ("visitor", "home", "opens"),
    [
        (Somebody("admin"), Scope("organisation", "acme"), EVERYTHING),
        (somebody("admin"), Scope("organisation", "acme"), EVERYTHING),
        (somebody("auditor"), Scope("organisation", "acme"), EVERYTHING),
        (somebody("team_admin"), Scope("team", "red"), {RED, AN, MAI, OWN, OTHER}),
        (somebody("member"), Scope("key", "own"), {AN, OWN}),
    ],
)
def test_each_role_opens_its_own(visitor: Somebody, home: Scope, opens: set[ScopeSettings]) -> None:
    """And begins where it belongs."""
    assert home == home_of(visitor)
    assert opens == {settings for settings in EVERYTHING if may_open(visitor, settings)}


def test_a_member_without_a_user_opens_no_user() -> None:
    """A team's own key belongs to nobody, which is no user of that name."""
    visitor = Somebody("member", Principal("acme", "red", None, "own"))
    assert not may_open(visitor, AN)
    assert not lists_scopes(visitor)


def test_the_organisations_budgets_are_for_those_who_read_all_books() -> None:
    """A member sees those of key, user and team."""
    below = (Scope("team", "red"), Scope("user", "an"), Scope("key", "own"))
    assert below == budgets_shown(somebody("member"), OWN)
    assert below == budgets_shown(somebody("team_admin"), OWN)
    assert (Scope("organisation", "acme"), *below) == budgets_shown(somebody("auditor"), OWN)
    assert (Scope("organisation", "acme"),) == budgets_shown(Somebody("admin"), ORGANISATION)


def test_a_team_administrator_lists_one_team() -> None:
    """Everybody else who lists, lists all."""
    assert "red" == team_of(somebody("team_admin"))
    assert [None, None] == [team_of(somebody("admin")), team_of(somebody("auditor"))]
