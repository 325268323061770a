"""Open holds."""

import pytest

from gateway.cli.main import main
from tests.cli.fake_control_plane import FakeControlPlane


def test_holds_are_shown_in_dollars(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """People read dollars; the exact integer stays in the JSON."""
    hold = {
        "id": "h1",
        "request_id": "r1",
        "key": "key-1",
        "hold_nano_usd": 1_500_000,
        "deadline_at": "2026-11-21T20:00:30Z",
    }
    control_plane.answers("GET", "/admin/v1/holds", {"data": [hold], "next_cursor": None})
    assert 0 == main(["holds"])
    assert capsys.readouterr().out == (
        "id  request id  key    hold usd  deadline at\nh1  r1          key-1    0.0015  2026-11-21T20:00:30Z\n"
    )


def test_no_hold_is_said_in_words(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing held is the usual state, and good news; others' calls a member does not see."""
    control_plane.answers("GET", "/admin/v1/holds", {"data": [], "next_cursor": None})
    assert 0 == main(["holds"])
    assert "No call that you may see is running.\n" == capsys.readouterr().out
