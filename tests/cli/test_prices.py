"""`gateway prices`: what is sent, what is shown, and how to try again without entering twice."""

import json
import re
from typing import Any

import pytest

from gateway.cli.main import main
from tests.cli.fake_control_plane import FakeControlPlane

CHAT: dict[str, Any] = {
    "price": "1-0", "at": "2026-11-21T20:00:00Z", "model": "gpt-4o-mini", "kind": "chat", "effective_from": None,
    "input_usd_per_million": "0.15", "cached_usd_per_million": "0.15", "output_usd_per_million": "0.60",
    "context_tokens": 128000, "output_tokens": 16384, "image_tokens_low": 2833, "image_tokens_high": 48169,
    "note": "", "author": "price file", "state": "current",
}  # fmt: skip
DEARER = {**CHAT, "price": "2-0", "effective_from": "2026-12-01T00:00:00Z", "input_usd_per_million": "0.20",
          "note": "mail", "author": "admin", "state": "upcoming"}  # fmt: skip
IMAGE = {"price": "3-0", "at": "2026-11-21T20:00:00Z", "model": "realvision", "kind": "image", "effective_from": None,
         "usd": "0.0015", "note": "", "author": "price file", "state": "current"}  # fmt: skip
GONE = {"price": "4-0", "at": "2026-11-21T20:00:00Z", "model": "amigo", "kind": "image", "withdrawn": True,
        "effective_from": "2026-12-01T00:00:00Z", "note": "", "author": "admin", "state": "upcoming"}  # fmt: skip


def test_prices_are_listed_in_words(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """Since when, and what is to come; rates as people say them."""
    control_plane.answers("GET", "/admin/v1/prices", {"data": [CHAT, DEARER, IMAGE, GONE], "next_cursor": None})
    assert 0 == main(["prices", "list"])
    (request,) = control_plane.requests
    assert {"limit": "1000"} == request.query
    assert [
        ["model", "kind", "state", "from", "price", "note", "author"],
        ["gpt-4o-mini", "chat", "current", "always", "$0.15 in, $0.60 out per 1M tokens", "price file"],
        ["gpt-4o-mini", "chat", "upcoming", "2026-12-01T00:00:00Z",
         "$0.20 (cached $0.15) in, $0.60 out per 1M tokens", "mail", "admin"],
        ["realvision", "image", "current", "always", "$0.0015 each", "price file"],
        ["amigo", "image", "upcoming", "2026-12-01T00:00:00Z", "withdrawn", "admin"],
    ] == [re.split(" {2,}", line) for line in capsys.readouterr().out.splitlines()]  # fmt: skip


def test_all_of_a_models_prices(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """Also those that were, as the gateway answers them."""
    control_plane.answers("GET", "/admin/v1/prices", {"data": [CHAT], "next_cursor": None})
    assert 0 == main(["prices", "list", "--all", "--model", "gpt-4o-mini", "--json"])
    assert {"limit": "1000", "model": "gpt-4o-mini", "state": "current,upcoming,past,replaced"} == (
        control_plane.requests[0].query
    )
    assert {"data": [CHAT]} == json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("typed", "sent", "shown"),
    [
        (
            ["gpt-4o-mini", "--from", "2026-12-01", "--input", "0.20", "--output", "0.60", "--note", "mail"],
            {"model": "gpt-4o-mini", "effective_from": "2026-12-01", "input_usd_per_million": "0.20",
             "output_usd_per_million": "0.60", "note": "mail"},
            DEARER,
        ),
        (
            ["new", "--kind", "chat", "--from", "2026-12-01", "--input", "1", "--cached", "0.5", "--output", "2",
             "--context-tokens", "10", "--output-tokens", "5", "--image-tokens-low", "1", "--image-tokens-high", "2"],
            {"model": "new", "kind": "chat", "effective_from": "2026-12-01", "input_usd_per_million": "1",
             "cached_usd_per_million": "0.5", "output_usd_per_million": "2", "context_tokens": 10, "output_tokens": 5,
             "image_tokens_low": 1, "image_tokens_high": 2},
            DEARER,
        ),
        (
            ["realvision", "--from", "2026-12-01T00:00:00Z", "--usd", "0.002"],
            {"model": "realvision", "effective_from": "2026-12-01T00:00:00Z", "usd": "0.002"},
            {**IMAGE, "effective_from": "2026-12-01T00:00:00Z"},
        ),
        (
            ["amigo", "--from", "2026-12-01", "--withdraw"],
            {"model": "amigo", "effective_from": "2026-12-01", "withdrawn": True},
            GONE,
        ),
    ],
)  # fmt: skip
def test_a_price_is_sent_as_it_was_typed(
    control_plane: FakeControlPlane,
    capsys: pytest.CaptureFixture[str],
    typed: list[str],
    sent: dict[str, Any],
    shown: dict[str, Any],
) -> None:
    """Only what was given; what was entered is said in one line."""
    control_plane.answers("POST", "/admin/v1/prices", shown, status=201)
    assert 0 == main(["prices", "set", *typed])
    assert sent == control_plane.requests[0].body
    out = capsys.readouterr().out
    assert out.startswith(f"{shown['model']}: ")
    assert out.endswith(", from 2026-12-01T00:00:00Z on.\n")


def test_each_command_has_a_key_of_its_own(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """A repeat is one that names the first one's key, and is told how where no answer came."""
    control_plane.answers("POST", "/admin/v1/prices", DEARER, status=201)
    control_plane.answers("POST", "/admin/v1/prices", {"error": {"message": "Away."}}, status=503)
    command = ["prices", "set", "gpt-4o-mini", "--from", "2026-12-01", "--input", "1", "--output", "1"]
    assert 0 == main([*command, "--json"])
    assert DEARER == json.loads(capsys.readouterr().out)
    assert 1 == main(command)
    first, second = (request.idempotency_key for request in control_plane.requests)
    assert first != second
    assert f"--idempotency-key {second}" in capsys.readouterr().err
    assert 1 == main([*command, "--idempotency-key", "mine"])
    assert "mine" == control_plane.requests[2].idempotency_key
