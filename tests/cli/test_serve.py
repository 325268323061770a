"""`gateway serve` before it listens: the administrator's key."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.cli.errors import CommandError
from gateway.cli.serve import ADMIN_KEY_FILE, generated_admin_key


def test_a_key_is_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Readable by its owner alone, the same at the next start, and never printed into a log."""
    folder = tmp_path / "new" / "data"
    key = generated_admin_key(folder)
    assert key == generated_admin_key(folder)
    assert 0o600 == stat.S_IMODE((folder / ADMIN_KEY_FILE).stat().st_mode)
    shown = capsys.readouterr().out
    assert key not in shown
    assert f"an administrator's key was made; it is in {folder / ADMIN_KEY_FILE}\n" == shown


def test_starts_at_the_same_time_agree(tmp_path: Path) -> None:
    """Two gateways on one Redis and one directory: one key opens both, and nothing half-made is left behind."""
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(generated_admin_key, [tmp_path] * 64))
    assert 1 == len(keys)
    assert [ADMIN_KEY_FILE] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"short\n", b"sk-admin-with a space in it\n", b"sk-admin-\xff\xff\xff\xff\xff\xff\xff"]
)
def test_a_file_without_a_key_stops_the_start(tmp_path: Path, content: bytes) -> None:
    """An empty one would be an empty password. The text names the file."""
    (tmp_path / ADMIN_KEY_FILE).write_bytes(content)
    with pytest.raises(CommandError, match=ADMIN_KEY_FILE):
        generated_admin_key(tmp_path)
    assert content == (tmp_path / ADMIN_KEY_FILE).read_bytes()


def test_a_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    """Here a directory stands in its place; the text says what else can be done."""
    (tmp_path / ADMIN_KEY_FILE).mkdir()
    with pytest.raises(CommandError, match="GATEWAY_ADMIN_KEY"):
        generated_admin_key(tmp_path)
