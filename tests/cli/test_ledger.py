"""Listing the ledger, and following it."""

import json

import pytest

from gateway.cli.main import main
from tests.cli.fake_control_plane import FakeControlPlane


def entry(number: int) -> dict[str, object]:
    return {
        "id": f"1-{number}",
        "at": f"2026-11-21T20:00:0{number}.000Z",
        "type": "capture",
        "team": "research",
        "user": None,
        "model": "gpt-4o-mini",
        "cost_usd": "0.00000435",
        "flags": [],
    }


def page(*numbers: int, cursor: str | None = None) -> dict[str, object]:
    return {"data": [entry(number) for number in numbers], "next_cursor": cursor}


def ids_shown(output: str) -> list[str]:
    return [each["id"] for each in json.loads(output)["data"]]


def test_list_stops_at_the_count_that_was_asked_for(
    control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    """The count goes over pages, and no more is fetched than is shown."""
    control_plane.answers("GET", "/admin/v1/ledger", page(1, 2, cursor="c1"))
    control_plane.answers("GET", "/admin/v1/ledger", page(3, cursor="c2"))
    assert 0 == main(["ledger", "list", "-n", "3", "--team", "research", "--json"])
    assert ["1-1", "1-2", "1-3"] == ids_shown(capsys.readouterr().out)
    assert ["3", "1"] == [request.query["limit"] for request in control_plane.requests]
    assert {"research"} == {request.query["team"] for request in control_plane.requests}


def test_no_entry_is_said_in_words(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """True for a member, too, who does not see others' entries."""
    control_plane.answers("GET", "/admin/v1/ledger", page())
    assert 0 == main(["ledger", "list"])
    assert "The ledger has no entries here that you may see.\n" == capsys.readouterr().out


def test_the_table_leaves_out_what_an_entry_does_not_have(
    control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image has no tokens and a team's key may have no user: a dash, not `None`."""
    control_plane.answers("GET", "/admin/v1/ledger", page(1))
    assert 0 == main(["ledger", "list"])
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.startswith("at                        type     team      user  key  model")
    assert row.startswith("2026-11-21T20:00:01.000Z  capture  research  -     -    gpt-4o-mini")


def test_tail_shows_the_newest(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """The ledger is read oldest first; the end of it is what `tail` means."""
    control_plane.answers("GET", "/admin/v1/ledger", page(1, 2, cursor="c1"))
    control_plane.answers("GET", "/admin/v1/ledger", page(3))
    assert 0 == main(["ledger", "tail", "-n", "2", "--json"])
    assert ["1-2", "1-3"] == ids_shown(capsys.readouterr().out)


def test_following_shows_each_entry_once(
    control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last page is read again until it is full; what was on it before is not shown again."""
    control_plane.answers("GET", "/admin/v1/ledger", page(1, 2))
    control_plane.answers("GET", "/admin/v1/ledger", page(1, 2, 3))
    control_plane.answers("GET", "/admin/v1/ledger", page(1, 2, 3, 4, cursor="c1"))
    control_plane.answers("GET", "/admin/v1/ledger", page(5))
    waits = iter([None, None])

    def wait(_seconds: float) -> None:
        """Let two waits pass, then be the person who presses Ctrl-C."""
        try:
            next(waits)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("gateway.cli.ledger.time.sleep", wait)
    assert 130 == main(["ledger", "tail", "--follow", "-n", "1", "--json"])
    lines = capsys.readouterr().out.splitlines()
    assert ["1-2", "1-3", "1-4", "1-5"] == [json.loads(line)["id"] for line in lines]
    assert [None, None, None, "c1"] == [request.query.get("cursor") for request in control_plane.requests]


def test_a_followed_entry_is_one_line_of_words(
    control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list without an end has no column widths: only what is there is written."""

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gateway.cli.ledger.time.sleep", interrupt)
    control_plane.answers("GET", "/admin/v1/ledger", page(1))
    assert 130 == main(["ledger", "tail", "-f"])
    expected = "2026-11-21T20:00:01.000Z  capture  research  gpt-4o-mini  0.00000435\n"
    assert expected == capsys.readouterr().out


def test_a_count_below_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Zero entries is never what was meant."""
    with pytest.raises(SystemExit):
        main(["ledger", "tail", "-n", "0"])
    assert "must be 1 or more" in capsys.readouterr().err
