"""Commands are tested as they are called: an argument list in; output, exit code and requests out."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.fake_control_plane import FakeControlPlane


@pytest.fixture
def control_plane(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeControlPlane]:
    """A fake control plane that the environment names; the machine's own data directory is out of sight."""
    server = FakeControlPlane()
    server.start()
    monkeypatch.setenv("GATEWAY_URL", server.url)
    monkeypatch.setenv("GATEWAY_ADMIN_KEY", "sk-admin")
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path))
    yield server
    server.stop()
