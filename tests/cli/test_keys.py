"""Sub-keys: the secret is handed over once, where a script can pick it up."""

import json

import pytest

from gateway.cli.main import main
from tests.cli.fake_control_plane import FakeControlPlane

CREATED = {
    "id": "key-1",
    "key": "sk-mt-default-secret",
    "team": "research",
    "user": "an",
    "name": "notebook",
    "role": "member",
    "blocked": False,
    "budgets": [],
}


def test_the_secret_is_the_last_line_alone(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """`KEY=$(gateway keys create … | tail -1)` is how set-up scripts get it."""
    control_plane.answers("POST", "/admin/v1/keys", CREATED, status=201)
    typed = "keys create --team research --user an --name notebook --expires-at 2027-01-01T00:00:00Z"
    assert 0 == main(typed.split())
    expected = {"team": "research", "user": "an", "name": "notebook", "expires_at": "2027-01-01T00:00:00Z"}
    assert expected == control_plane.requests[0].body
    lines = capsys.readouterr().out.splitlines()
    assert "sk-mt-default-secret" == lines[-1]
    assert 1 == sum("sk-mt-default-secret" in line for line in lines)


def test_with_json_a_created_key_is_one_document(
    control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    """Words beside the JSON would break whoever parses it."""
    control_plane.answers("POST", "/admin/v1/keys", CREATED, status=201)
    assert 0 == main(["keys", "create", "--team", "research", "--json"])
    assert CREATED == json.loads(capsys.readouterr().out)


def test_revoke_deletes_the_key(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """Revoking is for good; blocking is what can be taken back."""
    control_plane.answers("DELETE", "/admin/v1/keys/key-1", {"id": "key-1", "revoked": True})
    assert 0 == main(["keys", "revoke", "key-1"])
    assert "Key key-1 is revoked; its next call is refused.\n" == capsys.readouterr().out


def test_an_unknown_role_is_refused_before_any_call(control_plane: FakeControlPlane) -> None:
    """A role decides what a key may see: a slip must not become a default."""
    with pytest.raises(SystemExit):
        main(["keys", "create", "--team", "research", "--role", "root"])
    assert [] == control_plane.requests


def test_a_rotated_keys_secret_is_the_last_line_alone(
    control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    """As at its creation; and how long the old one may still be used stands before it."""
    rotated = CREATED | {"old_secret_until": "2026-12-01T00:00:00Z"}
    control_plane.answers("POST", "/admin/v1/keys/key-1/rotate", rotated)
    assert 0 == main(["keys", "rotate", "key-1", "--grace-s", "0"])
    assert 0 == main(["keys", "rotate", "key-1"])
    assert [{"grace_s": 0}, {}] == [request.body for request in control_plane.requests]
    lines = capsys.readouterr().out.splitlines()
    assert "sk-mt-default-secret" == lines[-1]
    assert "Key key-1 has a new secret; the old one is good until 2026-12-01T00:00:00Z." == lines[0]
