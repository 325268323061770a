"""Whether httpx is needed at all: where a proxy stands before the upstream, and nowhere else."""

import subprocess
import sys

import pytest

from gateway.upstream.choice import is_behind_proxy


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"https_proxy": "http://proxy:3128"}, True),
        ({"all_proxy": "http://proxy:3128"}, True),
        ({"http_proxy": "http://proxy:3128"}, False),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "minitoolai.com"}, False),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "*"}, False),
    ],
)
def test_a_proxy_in_the_environment_is_seen(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: bool
) -> None:
    """Only what the upstream's own scheme goes through counts."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert expected == is_behind_proxy("https://minitoolai.com")


def test_who_serves_without_a_proxy_never_loads_httpx() -> None:
    """It would be a tenth of the memory of an idle gateway."""
    loaded = "import sys, gateway.cli.serve; print('httpx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert "False" == done.stdout.strip()
