"""`gateway audit`: what the commands themselves did is found under its word, and a word that is none is told."""

import json

import pytest

from gateway.cli.audit import ACTIONS
from gateway.cli.main import main
from gateway.web.openapi.operations import operations
from gateway.web.trail import _word_for
from tests.cli.fake_control_plane import FakeControlPlane
from tests.stack import ADMIN_KEY, Admin, running_stack


def test_what_a_command_did_is_found_under_its_word(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who blocked a key is asked with the word that blocked it."""
    with running_stack(redis_url) as stack:
        url = stack.gateway().url
        monkeypatch.setenv("GATEWAY_URL", url)
        monkeypatch.setenv("GATEWAY_ADMIN_KEY", ADMIN_KEY)
        Admin(url).key("research", id="notebook")
        for action in ("block", "unblock", "rotate", "revoke"):
            assert 0 == main(["keys", action, "notebook"])
            capsys.readouterr()
            assert 0 == main(["audit", "--action", action, "--json"])
            (found,) = json.loads(capsys.readouterr().out)["data"]
            assert ("keys", "notebook", 200) == (found["resource"], found["resource_id"], found["status"])


def test_every_word_can_be_asked_for() -> None:
    """Those of all routes that change something, and no other."""
    changes = [each for each in operations() if each.access in ("writer", "manager") and each.method != "GET"]
    written = set()
    for each in changes:
        _, _, resource, *rest = each.path.strip("/").split("/")
        written.add(rest[1] if len(rest) > 1 else _word_for(each.method, resource))
    assert written == set(ACTIONS)


def test_a_misspelled_word_is_refused_before_any_call(
    control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty list would say that nobody did it."""
    with pytest.raises(SystemExit):
        main(["audit", "--action", "blocked"])
    assert "invalid choice: 'blocked'" in capsys.readouterr().err
    assert [] == control_plane.requests


def test_none_of_a_kind_is_not_none_at_all(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """Others may have been made: the list was narrowed."""
    control_plane.answers("GET", "/admin/v1/audit", {"data": [], "next_cursor": None})
    assert 0 == main(["audit", "--caller", "nobody"])
    assert "No such change was made in that time.\n" == capsys.readouterr().out
