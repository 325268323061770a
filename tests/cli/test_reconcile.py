"""`gateway reconcile`: what is sent, what the figures mean in words, and how to try again."""

import json

import pytest

from gateway.cli.main import main
from tests.cli.fake_control_plane import FakeControlPlane

PATH = "/admin/v1/reconciliation"
TYPED = ["reconcile", "--from", "2026-11-01", "--to", "2026-11-30", "--billed-usd", "12.34"]
FOUND = {
    "reconciliation": "1-0",
    "at": "2026-12-01T08:00:00Z",
    "from": "2026-11-01T00:00:00Z",
    "to": "2026-12-01T00:00:00Z",
    "ledger_usd": "12.30",
    "billed_usd": "12.34",
    "drift_usd": "-0.04",
    "drift_nano_usd": -40_000_000,
    "estimated_usd": "0.10",
    "flagged": 3,
    "note": "",
    "author": "admin",
}


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({}, "The ledger has $0.04 less than MiniToolAI billed: look at its 3 flagged entries."),
        (
            {"drift_usd": "0.04", "drift_nano_usd": 40_000_000, "flagged": 0},
            "The ledger has $0.04 more than MiniToolAI billed: no entry of it is flagged.",
        ),
        (
            {"drift_usd": "0.00", "drift_nano_usd": 0, "ledger_usd": "12.34"},
            "The ledger is what MiniToolAI billed, to the nano-dollar.",
        ),
    ],
)
def test_the_drift_is_said_in_words(
    control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str], found: dict[str, object], sentence: str
) -> None:
    """The amount is sent as it was typed; the sign of a drift is easily read the wrong way round."""
    control_plane.answers("POST", PATH, FOUND | found, status=201)
    assert 0 == main(TYPED)
    assert {"from": "2026-11-01", "to": "2026-11-30", "billed_usd": "12.34"} == control_plane.requests[0].body
    assert sentence == capsys.readouterr().out.splitlines()[-1]


def test_json_is_the_gateways_own_answer(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """For scripts that compare drift_nano_usd with 0."""
    control_plane.answers("POST", PATH, FOUND, status=201)
    assert 0 == main([*TYPED, "--note", "invoice 7", "--json"])
    assert FOUND == json.loads(capsys.readouterr().out)
    assert "invoice 7" == control_plane.requests[0].body["note"]


def test_without_a_figure_the_earlier_ones_are_listed(
    control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a table, or as JSON."""
    control_plane.answers("GET", PATH, {"data": [FOUND], "next_cursor": None})
    assert 0 == main(["reconcile"])
    assert "-0.04" in capsys.readouterr().out
    assert 0 == main(["reconcile", "--json"])
    assert {"data": [FOUND]} == json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("typed", [["--from", "2026-11-01"], ["--billed-usd", "1"], [*TYPED[1:-1], "1e3"]])
def test_half_a_figure_is_refused_before_any_call(control_plane: FakeControlPlane, typed: list[str]) -> None:
    """A span without its amount, an amount without its span, an amount that is none."""
    with pytest.raises(SystemExit):
        main(["reconcile", *typed])
    assert [] == control_plane.requests


@pytest.mark.parametrize(("status", "hints"), [(503, True), (400, False)])
def test_an_open_end_says_how_to_try_again(
    control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str], status: int, hints: bool
) -> None:
    """It may have been entered; a refusal was not."""
    control_plane.answers("POST", PATH, {"error": {"message": "No.", "code": "no", "param": None}}, status=status)
    assert 1 == main(TYPED)
    key = control_plane.requests[0].idempotency_key
    assert key is not None
    assert hints == (f"--idempotency-key {key}" in capsys.readouterr().err)
