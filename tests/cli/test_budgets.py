"""`gateway budgets`: how full each is, and that setting one leaves the others as they are."""

import json
from typing import Any

import pytest

from gateway.cli.budgets import full_percent
from gateway.cli.main import main
from tests.cli.fake_control_plane import FakeControlPlane


def budget(window: str, limit_usd: int, spent_usd: int = 0, **more: Any) -> dict[str, Any]:
    amounts = {"limit": limit_usd, "spent": spent_usd, "held": 0, "remaining": limit_usd - spent_usd}
    both: dict[str, Any] = {f"{name}_usd": f"{amount}.00" for name, amount in amounts.items()}
    both |= {f"{name}_nano_usd": amount * 1_000_000_000 for name, amount in amounts.items()}
    return {"window": window, "soft_percent": [50], **both, "starts_at": None, "resets_at": None, **more}


MONTH, DAY = budget("month", 25, 5), budget("day", 2, 1)
RESEARCH = {"id": "research", "budgets": [MONTH, DAY]}
TEAM = "/admin/v1/teams/research"


def test_the_fullest_come_first(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """Over all kinds of scope; a revoked key's budgets bound nothing any more."""
    revoked = {"id": "key-old", "revoked_at": "2026-01-01T00:00:00Z", "budgets": [budget("total", 1, 1)]}
    for collection, rows in {"organisations": [], "teams": [RESEARCH], "users": [], "keys": [revoked]}.items():
        control_plane.answers("GET", f"/admin/v1/{collection}", {"data": rows, "next_cursor": None})
    assert 0 == main(["budgets", "list", "--json"])
    listed = json.loads(capsys.readouterr().out)["data"]
    assert [("team", "day", 50), ("team", "month", 20)] == [
        (each["scope"], each["window"], each["full_percent"]) for each in listed
    ]
    assert 0 == main(["budgets", "list", "--scope", "team"])
    assert "research" in capsys.readouterr().out


DENIED = {"error": {"message": "This needs one of the roles admin.", "code": "permission_denied", "param": None}}


def test_what_is_out_of_reach_is_left_out(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """A team's administrator may not read the organisation, and sees the budgets of the team all the same."""
    for kind, rows in {"teams": [RESEARCH], "users": [], "keys": []}.items():
        control_plane.answers("GET", f"/admin/v1/{kind}", {"data": rows, "next_cursor": None})
    control_plane.answers("GET", "/admin/v1/organisations", DENIED, status=403)
    assert 0 == main(["budgets", "list", "--json"])
    assert ["day", "month"] == [each["window"] for each in json.loads(capsys.readouterr().out)["data"]]


@pytest.mark.parametrize("typed", [[], ["--scope", "organisation"]])
def test_where_nothing_is_in_reach_it_is_told(
    control_plane: FakeControlPlane, typed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty table would say that there is no budget."""
    for kind in ("organisations", "teams", "users", "keys"):
        control_plane.answers("GET", f"/admin/v1/{kind}", DENIED, status=403)
    assert 1 == main(["budgets", "list", *typed])
    assert "gateway: This needs one of the roles admin. (403, permission_denied)\n" == capsys.readouterr().err


def test_no_budget_is_said_in_words(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """True for whoever asks: others may have some."""
    control_plane.answers("GET", "/admin/v1/keys", {"data": [], "next_cursor": None})
    assert 0 == main(["budgets", "list", "--scope", "key"])
    assert "There are no budgets that you may see.\n" == capsys.readouterr().out


@pytest.mark.parametrize(
    ("each", "percent"),
    [
        (MONTH, 20),
        (budget("month", 3, 1), 33),
        (budget("month", 1, 2), 200),
        (budget("month", 0), 100),
        (budget("prepaid", 0, paid_in_nano_usd=4_000_000_000, held_nano_usd=1_000_000_000), 25),
    ],
)
def test_how_full_it_is_counts_what_is_held(each: dict[str, Any], percent: int) -> None:
    """Rounded down: 100 % is said of what is full."""
    assert percent == full_percent(each)


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        (
            ["set", "team", "research", "month=50.00"],
            [
                {"window": "day", "limit_usd": "2.00", "soft_percent": [50]},
                {"window": "month", "limit_usd": "50.00", "soft_percent": [50]},
            ],
        ),
        (
            ["set", "team", "research", "total=9", "--soft-percent", "80", "--soft-percent", "95"],
            [
                {"window": "month", "limit_usd": "25.00", "soft_percent": [50]},
                {"window": "day", "limit_usd": "2.00", "soft_percent": [50]},
                {"window": "total", "limit_usd": "9", "soft_percent": [80, 95]},
            ],
        ),
        (
            ["remove", "team", "research", "day"],
            [{"window": "month", "limit_usd": "25.00", "soft_percent": [50]}],
        ),
        (
            ["set", "team", "research", "month=none"],
            [{"window": "day", "limit_usd": "2.00", "soft_percent": [50]}],
        ),
    ],
)
def test_one_budget_is_set_and_the_others_stay(
    control_plane: FakeControlPlane, typed: list[str], sent: list[dict[str, Any]]
) -> None:
    """Thresholds that nobody named stay, too."""
    control_plane.answers("GET", TEAM, RESEARCH)
    control_plane.answers("PATCH", TEAM, RESEARCH)
    assert 0 == main(["budgets", *typed])
    (patch,) = (request for request in control_plane.requests if request.method == "PATCH")
    assert {"budgets": sent} == patch.body


def test_a_budget_that_is_not_there_cannot_be_removed(
    control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is sent."""
    control_plane.answers("GET", TEAM, RESEARCH)
    assert 1 == main(["budgets", "remove", "team", "research", "week"])
    assert "team research has no budget for week" in capsys.readouterr().err
    assert ["GET"] == [request.method for request in control_plane.requests]
