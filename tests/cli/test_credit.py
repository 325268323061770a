"""`gateway credit`: what is sent, what is shown, and how to try again without paying twice."""

import json

import pytest

from gateway.cli.main import main
from tests.cli.fake_control_plane import FakeControlPlane

PAID = {
    "credit": "credit-1",
    "type": "credit",
    "at": "2026-11-21T20:00:00Z",
    "scope": "team",
    "id": "research",
    "from": None,
    "note": "November",
    "amount_usd": "10.00",
    "paid_in_usd": "10.00",
    "spent_usd": "0.00",
    "held_usd": "0.00",
    "remaining_usd": "10.00",
}


def test_a_credit_is_sent_as_it_was_typed(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """The amount stays the decimal string that was typed."""
    control_plane.answers("POST", "/admin/v1/credits", PAID, status=201)
    assert 0 == main(["credit", "team", "research", "10.00", "--note", "November"])
    (request,) = control_plane.requests
    assert {"scope": "team", "id": "research", "amount_usd": "10.00", "note": "November"} == request.body
    assert capsys.readouterr().out == (
        "type           credit\n"
        "at             2026-11-21T20:00:00Z\n"
        "scope          team\n"
        "id             research\n"
        "amount usd     10.00\n"
        "note           November\n"
        "paid in usd    10.00\n"
        "spent usd      0.00\n"
        "held usd       0.00\n"
        "remaining usd  10.00\n"
    )


def test_a_transfer_names_its_sibling(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json the gateway's own answer is printed."""
    control_plane.answers("POST", "/admin/v1/credits", PAID, status=201)
    assert 0 == main(["credit", "team", "research", "4", "--from", "sales", "--json"])
    assert {"scope": "team", "id": "research", "amount_usd": "4", "from": "sales"} == control_plane.requests[0].body
    assert PAID == json.loads(capsys.readouterr().out)


def test_each_command_has_a_key_of_its_own(control_plane: FakeControlPlane) -> None:
    """Two equal credits are two credits; a repeat is one that names the first one's key."""
    control_plane.answers("POST", "/admin/v1/credits", PAID, status=201)
    for more in ([], [], ["--idempotency-key", "mine"]):
        assert 0 == main(["credit", "team", "research", "1", *more])
    keys = [request.idempotency_key for request in control_plane.requests]
    assert 3 == len(set(keys))
    assert "mine" == keys[-1]


@pytest.mark.parametrize(("status", "hints"), [(503, True), (402, False)])
def test_an_open_end_says_how_to_try_again(
    control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str], status: int, hints: bool
) -> None:
    """It may have been paid; whoever types it again must not pay twice. A refusal paid nothing."""
    error = {"message": "No.", "code": "no", "param": None}
    control_plane.answers("POST", "/admin/v1/credits", {"error": error}, status=status)
    assert 1 == main(["credit", "team", "research", "1"])
    key = control_plane.requests[0].idempotency_key
    assert hints == (f"--idempotency-key {key}" in capsys.readouterr().err)


@pytest.mark.parametrize("typed", [["team", "research", "1e3"], ["month", "research", "1"], ["team", "research"]])
def test_a_slip_is_refused_before_any_call(control_plane: FakeControlPlane, typed: list[str]) -> None:
    """An amount of money is cheapest to correct where it was typed."""
    with pytest.raises(SystemExit):
        main(["credit", *typed])
    assert [] == control_plane.requests
