"""Teams and users: what is sent for what was typed, and what is shown."""

import json

import pytest

from gateway.cli.main import main
from tests.cli.fake_control_plane import FakeControlPlane

RESEARCH = {
    "id": "research",
    "org": "default",
    "name": "Research",
    "blocked": False,
    "models": ["gpt-4o-mini"],
    "budgets": [
        {
            "window": "month",
            "limit_usd": "25.00",
            "spent_usd": "12.50",
            "held_usd": "0.001",
            "remaining_usd": "12.499",
            "starts_at": "2026-11-01T00:00:00Z",
            "resets_at": "2026-12-01T00:00:00Z",
        }
    ],
}


def test_create_sends_budgets_and_models_as_the_control_plane_takes_them(
    control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    """Amounts stay the decimal strings that were typed: no float is ever made of them."""
    control_plane.answers("POST", "/admin/v1/teams", RESEARCH, status=201)
    typed = "teams create research --name Research --budget month=25.00 --budget day=1.5 --model gpt-4o-mini"
    assert 0 == main(typed.split())
    assert control_plane.requests[0].body == {
        "id": "research",
        "name": "Research",
        "budgets": [{"window": "month", "limit_usd": "25.00"}, {"window": "day", "limit_usd": "1.5"}],
        "models": ["gpt-4o-mini"],
    }
    assert capsys.readouterr().out == (
        "id       research\n"
        "org      default\n"
        "name     Research\n"
        "blocked  no\n"
        "models   gpt-4o-mini\n"
        "\n"
        "window  limit usd  spent usd  held usd  remaining usd  resets at\n"
        "month       25.00      12.50     0.001         12.499  2026-12-01T00:00:00Z\n"
    )


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        ("year=1.00", "the window must be one of total, day, week, month"),
        ("month", "an amount is a decimal string of dollars"),
        ("month=1e3", "an amount is a decimal string of dollars"),
        ("month=0.0000000001", "at most nine decimals"),
    ],
)
def test_a_wrong_budget_is_refused_before_any_call(
    typed: str, complaint: str, control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slip in an amount of money is cheapest where it was typed."""
    with pytest.raises(SystemExit) as ended:
        main(["teams", "create", "research", "--budget", typed])
    assert 2 == ended.value.code
    assert complaint in capsys.readouterr().err
    assert [] == control_plane.requests


def test_a_prepaid_budget_is_named_without_an_amount(control_plane: FakeControlPlane) -> None:
    """What it holds is paid in; budgets of other windows stay, and it stays where another is changed."""
    prepaid = {"window": "prepaid", "soft_percent": [80], "paid_in_usd": "10.00"}
    control_plane.answers("GET", "/admin/v1/teams/research", RESEARCH)
    control_plane.answers("GET", "/admin/v1/teams/research", RESEARCH | {"budgets": [prepaid]})
    control_plane.answers("PATCH", "/admin/v1/teams/research", RESEARCH)
    for typed in ("prepaid", "day=1"):
        assert 0 == main(["teams", "set", "research", "--budget", typed])
    assert [
        {"budgets": [{"window": "prepaid"}, {"window": "month", "limit_usd": "25.00"}]},
        {"budgets": [{"window": "day", "limit_usd": "1"}, {"window": "prepaid", "soft_percent": [80]}]},
    ] == [request.body for request in control_plane.requests if request.method == "PATCH"]


@pytest.mark.parametrize(
    ("typed", "left"),
    [
        (["month=none"], [{"window": "prepaid", "soft_percent": [80]}]),
        (["prepaid=none"], [{"window": "month", "limit_usd": "25.00"}]),
        (["month=none", "day=1"], [{"window": "day", "limit_usd": "1"}, {"window": "prepaid", "soft_percent": [80]}]),
        (["month=none", "prepaid=none"], []),
    ],
)
def test_one_budget_can_be_taken_away(
    typed: list[str], left: list[dict[str, object]], control_plane: FakeControlPlane
) -> None:
    """As one limit can: `--no-budgets` takes all of them."""
    prepaid = {"window": "prepaid", "soft_percent": [80], "paid_in_usd": "10.00"}
    both = RESEARCH | {"budgets": [{"window": "month", "limit_usd": "25.00", "spent_usd": "1.00"}, prepaid]}
    control_plane.answers("GET", "/admin/v1/teams/research", both)
    control_plane.answers("PATCH", "/admin/v1/teams/research", RESEARCH)
    assert 0 == main(["teams", "set", "research", *(word for one in typed for word in ("--budget", one))])
    assert {"budgets": left} == control_plane.requests[-1].body


def test_a_prepaid_budget_is_bounded_by_what_was_paid_in(
    control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no limit; the column shows what was paid in."""
    prepaid = {"window": "prepaid", "paid_in_usd": "10.00", "spent_usd": "1.00", "held_usd": "0.00"}
    control_plane.answers("GET", "/admin/v1/teams/research", RESEARCH | {"budgets": [prepaid]})
    assert 0 == main(["teams", "show", "research"])
    shown = capsys.readouterr().out
    assert ["prepaid", "10.00", "1.00", "0.00", "-", "-"] == shown.splitlines()[-1].split()


def test_list_reads_all_pages_into_one_table(
    control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    """A list that stops at the first page would hide a team without saying so."""
    sales = {"id": "sales", "name": "Bán hàng", "blocked": True, "budgets": []}
    control_plane.answers("GET", "/admin/v1/teams", {"data": [RESEARCH], "next_cursor": "c1"})
    control_plane.answers("GET", "/admin/v1/teams", {"data": [sales], "next_cursor": None})
    assert 0 == main(["teams", "list"])
    assert [None, "c1"] == [request.query.get("cursor") for request in control_plane.requests]
    assert capsys.readouterr().out == (
        "id        name      blocked  budgets               models\n"
        "research  Research  no       month 12.50 of 25.00  gpt-4o-mini\n"
        "sales     Bán hàng  yes                            -\n"
    )


def test_an_empty_list_says_so(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """Titles over nothing look like a failure; and who may see little hears nothing of the rest."""
    control_plane.answers("GET", "/admin/v1/users", {"data": [], "next_cursor": None})
    assert 0 == main(["users", "list"])
    assert "There are no users that you may see.\n" == capsys.readouterr().out
    assert 0 == main(["users", "list", "--team", "sales"])
    assert "There are no users of team sales that you may see.\n" == capsys.readouterr().out


def test_a_list_can_be_narrowed_to_a_team(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """The control plane lists all; who looks after one team wants to see that one."""
    users = [{"id": "an", "team": "research"}, {"id": "binh", "team": "sales"}]
    control_plane.answers("GET", "/admin/v1/users", {"data": users, "next_cursor": None})
    assert 0 == main(["users", "list", "--team", "sales", "--json"])
    assert {"limit": "1000"} == control_plane.requests[0].query
    assert ["binh"] == [user["id"] for user in json.loads(capsys.readouterr().out)["data"]]


@pytest.mark.parametrize(
    ("typed", "body"),
    [
        ("set research --name Lab", {"name": "Lab"}),
        ("set research --no-budgets", {"budgets": []}),
        ("set research --all-models", {"models": None}),
    ],
)
def test_a_change_sends_only_what_was_typed(
    typed: str, body: dict[str, object], control_plane: FakeControlPlane
) -> None:
    """What is not named must stay as it is."""
    control_plane.answers("PATCH", "/admin/v1/teams/research", RESEARCH)
    assert 0 == main(["teams", *typed.split()])
    assert [body] == [request.body for request in control_plane.requests]


@pytest.mark.parametrize("action", ["block", "unblock"])
def test_blocking_is_an_action_of_its_own(action: str, control_plane: FakeControlPlane) -> None:
    """As a change of settings, `gateway audit --action block` would not find it."""
    control_plane.answers("POST", f"/admin/v1/teams/research/{action}", RESEARCH)
    assert 0 == main(["teams", action, "research"])
    assert [("POST", None)] == [(request.method, request.body) for request in control_plane.requests]


def test_a_change_of_nothing_is_refused(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """`teams set research` was surely meant to say more."""
    assert 1 == main(["teams", "set", "research"])
    assert "gateway: nothing to change; `gateway teams set --help` lists what can be\n" == capsys.readouterr().err


def test_an_id_cannot_leave_its_place_in_the_path(control_plane: FakeControlPlane) -> None:
    """`../keys/x` is an id that does not exist, not another resource."""
    assert 1 == main(["teams", "show", "../keys/x"])
    assert ["/admin/v1/teams/..%2Fkeys%2Fx"] == [request.path for request in control_plane.requests]


def test_json_is_the_gateways_own_answer(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts rely on the shape that the control plane documents; the command adds nothing to it."""
    control_plane.answers("GET", "/admin/v1/users/an", RESEARCH)
    assert 0 == main(["users", "show", "an", "--json", "--org", "acme"])
    assert {"org": "acme"} == control_plane.requests[0].query
    assert RESEARCH == json.loads(capsys.readouterr().out)


def test_a_user_needs_a_team(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """The binding never changes, so it cannot be left for later."""
    with pytest.raises(SystemExit):
        main(["users", "create", "an"])
    assert "the following arguments are required: --team" in capsys.readouterr().err


def test_a_budget_leaves_those_of_other_windows_as_they_are(control_plane: FakeControlPlane) -> None:
    """Raising one limit at three in the morning must not drop another; the named window is replaced."""
    control_plane.answers("GET", "/admin/v1/teams/research", RESEARCH)
    control_plane.answers("PATCH", "/admin/v1/teams/research", RESEARCH)
    assert 0 == main(["teams", "set", "research", "--budget", "day=1"])
    day, month = {"window": "day", "limit_usd": "1"}, {"window": "month", "limit_usd": "25.00"}
    assert {"budgets": [day, month]} == control_plane.requests[1].body
    assert 0 == main(["teams", "set", "research", "--budget", "month=9"])
    assert {"budgets": [{"window": "month", "limit_usd": "9"}]} == control_plane.requests[3].body


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("--limit requests_per_minute=60", {"requests_per_minute": 60}),
        (
            "--limit tokens_per_minute=9 --limit concurrent_requests=none",
            {"tokens_per_minute": 9, "concurrent_requests": None},
        ),
    ],
)
def test_limits_are_sent_by_their_names(
    control_plane: FakeControlPlane, typed: str, sent: dict[str, int | None]
) -> None:
    """None takes a limit away; what is not named is not sent."""
    control_plane.answers("PATCH", "/admin/v1/teams/research", RESEARCH)
    assert 0 == main(["teams", "set", "research", *typed.split()])
    assert control_plane.requests[0].body == {"limits": sent}


@pytest.mark.parametrize(
    "typed", ["requests=1", "requests_per_minute", "requests_per_minute=-1", "tokens_per_minute=1.5"]
)
def test_a_limit_that_is_none_is_not_sent(control_plane: FakeControlPlane, typed: str) -> None:
    """The command line says what it takes before anything is asked."""
    with pytest.raises(SystemExit):
        main(["teams", "set", "research", "--limit", typed])
    assert [] == control_plane.requests
