"""Log lines of several processes on one output."""

import os
import subprocess
import sys
from pathlib import Path

WRITER = """
import logging, sys
from pathlib import Path
from gateway.cli.logs import configure_logging
configure_logging(Path(sys.argv[1]))
for _ in range(200):
    logging.getLogger("gateway.test").info(sys.argv[2] * 20_000)
"""


def test_lines_of_two_processes_are_never_mixed(tmp_path: Path, repository: Path) -> None:
    """Longer than what a pipe keeps together, and both at once."""
    read, write = os.pipe()
    command = [sys.executable, "-c", WRITER, str(tmp_path / "turn")]
    writers = [subprocess.Popen([*command, letter], stdout=write, cwd=repository) for letter in "ab"]
    os.close(write)
    with os.fdopen(read) as output:
        lines = output.read().splitlines()
    assert [0, 0] == [writer.wait() for writer in writers]
    assert ["a" * 20_000] * 200 + ["b" * 20_000] * 200 == sorted(lines)
