"""The command, as a process."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys

import httpx
import pytest

from gateway.emulator.__main__ import nano_usd
from tests.emulator.driver import chat_body


def test_the_command_announces_its_address_and_stops_on_sigterm() -> None:
    """One line on stdout once it answers; withheld answers do not keep it from stopping."""
    command = [sys.executable, "-m", "gateway.emulator", "--port", "0", "--key", "sk-one", "--key", "sk-two"]
    with subprocess.Popen([*command, "--balance-usd", "0.001"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("emulator listening on http://127.0.0.1:")
        with httpx.Client(base_url=line.split()[-1], timeout=20) as client:
            assert 1_000_000 == client.get("/__bill").json()["balance_nano_usd"]
            first, second = ({"authorization": f"Bearer {key}"} for key in ("sk-one", "sk-two"))
            assert 200 == client.post("/api/chat-completions", json=chat_body(), headers=first).status_code
            withheld = chat_body("[[fault:withhold_after=1]]")
            with client.stream("POST", "/api/chat-completions", json=withheld, headers=second) as answer:
                assert 200 == answer.status_code
                process.send_signal(signal.SIGTERM)
                with pytest.raises(httpx.HTTPError):
                    answer.read()
        process.wait(20)
        assert "" == process.stdout.read()


@pytest.mark.parametrize(("text", "expected"), [("100", 100 * 10**9), ("0.000000001", 1), ("0", 0)])
def test_dollars_become_nano_dollars(text: str, expected: int) -> None:
    """Exactly, by decimal arithmetic."""
    assert expected == nano_usd(text)


@pytest.mark.parametrize("text", ["-1", "x", "0.0000000001", "NaN", "Infinity"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    """With one clear line by argparse."""
    with pytest.raises(argparse.ArgumentTypeError):
        nano_usd(text)
