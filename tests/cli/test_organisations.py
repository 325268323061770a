"""`gateway organisations`: as teams are, but for creating one."""

import pytest

from gateway.cli.main import main
from tests.cli.fake_control_plane import FakeControlPlane

PATH = "/admin/v1/organisations/default"
OURS = {
    "id": "default",
    "name": "Acme",
    "timezone": "Asia/Ho_Chi_Minh",
    "first_weekday": "monday",
    "blocked": False,
    "limits": {},
    "budgets": [{"window": "month", "limit_usd": "100.00", "soft_percent": [80], "spent_usd": "1.00"}],
}


def test_a_budget_is_set_beside_the_others(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """Its month's budget stays when a day's is added."""
    control_plane.answers("GET", PATH, OURS)
    control_plane.answers("PATCH", PATH, OURS)
    assert 0 == main(["organisations", "set", "default", "--budget", "day=5.00"])
    (changed,) = [request.body for request in control_plane.requests if request.method == "PATCH"]
    month = {"window": "month", "limit_usd": "100.00", "soft_percent": [80]}
    assert {"budgets": [{"window": "day", "limit_usd": "5.00"}, month]} == changed
    assert "timezone       Asia/Ho_Chi_Minh\n" in capsys.readouterr().out


def test_the_list_shows_its_budgets(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """What is spent of what."""
    control_plane.answers("GET", "/admin/v1/organisations", {"data": [OURS], "next_cursor": None})
    assert 0 == main(["organisations", "list"])
    assert "month 1.00 of 100.00" in capsys.readouterr().out


def test_none_is_created(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """The first start of a gateway makes the only one."""
    with pytest.raises(SystemExit) as ended:
        main(["organisations", "create", "second"])
    assert 2 == ended.value.code
    assert "invalid choice: 'create'" in capsys.readouterr().err
    assert [] == control_plane.requests
