"""Finding commands, and what a person sees when one fails."""

import importlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.main import COMMANDS, main
from tests.cli.fake_control_plane import FakeControlPlane


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """The list is how a stranger learns what there is."""
    assert 0 == main(["--help"])
    shown = capsys.readouterr().out
    assert [] == [name for name in COMMANDS if f"  {name} " not in shown]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_loaded(name: str) -> None:
    """Commands are named as text and loaded late, so that nothing but this notices a wrong name."""
    assert callable(importlib.import_module(COMMANDS[name].module).main)


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """`gateway` alone must not be a traceback."""
    assert 0 == main([])
    assert capsys.readouterr().out.startswith("usage: gateway COMMAND")


def test_a_mistyped_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong call is exit code 2, on stderr, so that scripts notice."""
    assert 2 == main(["team"])
    assert "gateway: there is no command `team`; did you mean `teams`?\n" == capsys.readouterr().err


def test_nobody_listening_says_how_to_start_the_gateway(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commonest mistake of a first day: the gateway is not running."""
    monkeypatch.setenv("GATEWAY_ADMIN_KEY", "sk-admin")
    with socket.socket() as bound_not_listening:
        bound_not_listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound_not_listening.getsockname()[1]}"
        assert 1 == main(["teams", "list", "--url", url])
    shown = capsys.readouterr()
    assert "" == shown.out
    assert shown.err == (
        f"gateway: no gateway answers at {url}; start one with `gateway serve`,"
        " or name another with --url or GATEWAY_URL\n"
    )


def test_a_refusal_is_one_line_with_its_code_and_field(
    control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gateway's message already says what to do; the command only hands it on."""
    error = {"message": "No team\nhas this id.", "code": "not_found", "param": "team"}
    control_plane.answers("GET", "/admin/v1/keys", {"error": error}, status=404)
    assert 1 == main(["keys", "list", "--team", "sales"])
    assert "gateway: No team has this id. (404, not_found, team)\n" == capsys.readouterr().err


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[1]"])
def test_another_server_is_not_taken_for_a_gateway(
    body: bytes, control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    """Something else often listens on 8080; a traceback of its HTML helps nobody."""
    control_plane.answers("GET", "/admin/v1/teams", body)
    assert 1 == main(["teams", "list"])
    assert capsys.readouterr().err.endswith("answered 200 without a JSON object: is it a gateway's URL?\n")


def test_the_admin_key_is_read_from_the_data_directory(
    control_plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first start leaves the key there, so that commands on the same machine need no set-up."""
    monkeypatch.delenv("GATEWAY_ADMIN_KEY")
    (tmp_path / "admin-key").write_text("sk-from-file\n")
    control_plane.answers("GET", "/admin/v1/teams", {"data": [], "next_cursor": None})
    assert 0 == main(["teams", "list"])
    assert "Bearer sk-from-file" == control_plane.requests[0].authorization


def test_the_admin_key_is_read_from_the_file_that_is_named(
    control_plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the gateway's own container, say, where the key is a secret's file."""
    monkeypatch.delenv("GATEWAY_ADMIN_KEY")
    (tmp_path / "secret").write_text("sk-from-secret\n")
    monkeypatch.setenv("GATEWAY_ADMIN_KEY_FILE", str(tmp_path / "secret"))
    control_plane.answers("GET", "/admin/v1/teams", {"data": [], "next_cursor": None})
    assert 0 == main(["teams", "list"])
    assert "Bearer sk-from-secret" == control_plane.requests[0].authorization


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff"])
def test_a_file_without_an_admin_key_is_as_good_as_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    """An empty bearer token would only hear that it is missing."""
    (tmp_path / "admin-key").write_bytes(content)
    monkeypatch.delenv("GATEWAY_ADMIN_KEY", raising=False)
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path))
    assert 1 == main(["teams", "list"])
    assert "no administrator's key" in capsys.readouterr().err


def test_a_missing_admin_key_is_explained_without_any_call(
    control_plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says both places where a key is looked for."""
    monkeypatch.delenv("GATEWAY_ADMIN_KEY")
    assert 1 == main(["teams", "list"])
    message = capsys.readouterr().err
    assert message.startswith("gateway: no administrator's key: set GATEWAY_ADMIN_KEY, or set GATEWAY_DATA_DIR")
    assert [] == control_plane.requests


@pytest.mark.parametrize("note_chars", [1, 4000])
def test_a_reader_that_leaves_ends_the_command_quietly(note_chars: int, control_plane: FakeControlPlane) -> None:
    """`gateway ledger list | head -1` must not end in a traceback, whether or not a pipe holds it all."""
    entries = [{"id": str(number), "note": "x" * note_chars} for number in range(900)]
    control_plane.answers("GET", "/admin/v1/ledger", {"data": entries, "next_cursor": None})
    command = [sys.executable, "-m", "gateway.cli.main", "ledger", "list", "--json"]
    # Unbuffered, Python takes a write that was cut short for a whole one and never hears of the closed pipe.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert b"" == process.stderr.read()
        # A short answer may be in the pipe as a whole before its reader leaves.
        assert process.wait() in ({1} if note_chars > 1 else {0, 1})


def test_commands_load_nothing_they_do_not_need() -> None:
    """`gateway emulator` must not load the gateway, nor wait for it."""
    program = "import json, sys, gateway.cli.main; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", program]))
    assert {"httpx", "starlette", "redis", "tiktoken"}.isdisjoint(loaded)
