"""The demo's folder is emptied at each start, so it must never be anything else's."""

from pathlib import Path

import pytest

from gateway.cli.demo.stage import demo_folder
from gateway.cli.errors import CommandError


def test_what_the_last_demo_left_is_gone(tmp_path: Path) -> None:
    """Each demo begins with empty books, as its emulator begins with an empty bill."""
    folder = tmp_path / "demo"
    with demo_folder(folder):
        (folder / "redis").mkdir()
        (folder / "redis" / "appendonly.aof").write_text("books")
        (folder / "admin-key").write_text("sk-admin")
    with demo_folder(folder):
        assert ["demo.lock"] == [path.name for path in folder.iterdir()]


def test_a_folder_of_something_else_is_refused_untouched(tmp_path: Path) -> None:
    """`--data-dir .gateway` would otherwise delete a real gateway's books."""
    books = tmp_path / "redis"
    books.mkdir()
    with pytest.raises(CommandError, match="holds something else than a demo"), demo_folder(tmp_path):
        pass
    assert [books] == list(tmp_path.iterdir())


def test_two_demos_do_not_share_a_folder(tmp_path: Path) -> None:
    """The second would delete the books under the first."""
    folder = tmp_path / "demo"
    with (
        demo_folder(folder),
        pytest.raises(CommandError, match="another demo is running"),
        demo_folder(folder),
    ):
        pass
