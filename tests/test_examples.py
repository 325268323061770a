"""The ready-made clients of examples/, run as a reader would run them.

They speak MiniToolAI's own shapes, so the emulator alone is enough to show that they are right.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
KEY = "sk-examples"


def has_php_curl() -> bool:
    php = shutil.which("php")
    return php is not None and "curl" in subprocess.check_output([php, "-m"], text=True).split()


needs_php = pytest.mark.skipif(not has_php_curl(), reason="needs Debian's php-cli and php-curl")
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")

PYTHON = pytest.param((sys.executable,), ".py", id="python")
SHELL = pytest.param(("sh",), ".sh", id="shell", marks=needs_curl)
PHP = pytest.param(("php",), ".php", id="php", marks=[pytest.mark.debian, needs_php])

in_every_language = pytest.mark.parametrize(("interpreter", "suffix"), [PYTHON, SHELL, PHP])


@pytest.fixture(scope="module")
def emulator_url() -> Iterator[str]:
    """An emulator on a free port, from the line in which it says where it listens."""
    command = [sys.executable, "-m", "gateway.cli.main", "emulator", "--port", "0", "--key", KEY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        listening = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert listening is not None
        yield listening[0]
        process.send_signal(signal.SIGTERM)


def run_example(name: str, interpreter: tuple[str, ...], url: str, key: str = KEY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*interpreter, str(EXAMPLES / name)],
        env={**os.environ, "GATEWAY_URL": url, "GATEWAY_KEY": key},
        capture_output=True,
        text=True,
        check=False,
    )


@in_every_language
def test_a_chat_is_printed(interpreter: tuple[str, ...], suffix: str, emulator_url: str) -> None:
    """All of them show the answer and what it used."""
    done = run_example(f"chat{suffix}", interpreter, emulator_url)
    assert (0, "") == (done.returncode, done.stderr)
    assert "total_tokens" in done.stdout or re.search(r"\n\(\d+ tokens\)\n$", done.stdout)


@in_every_language
def test_an_image_is_waited_for(interpreter: tuple[str, ...], suffix: str, emulator_url: str) -> None:
    """A job pends at first: what is printed is the URL of the finished image and nothing else."""
    done = run_example(f"image{suffix}", interpreter, emulator_url)
    assert (0, "") == (done.returncode, done.stderr)
    assert re.fullmatch(re.escape(emulator_url) + r"/\S+\.png\n", done.stdout)


@in_every_language
@pytest.mark.parametrize("name", ["chat", "image"])
def test_a_refusal_is_told_and_fails(name: str, interpreter: tuple[str, ...], suffix: str, emulator_url: str) -> None:
    """A script must be able to stop, and a person to read why: the answer's own words."""
    done = run_example(name + suffix, interpreter, emulator_url, key="sk-unknown")
    assert 0 != done.returncode
    assert "this API key is not valid" in done.stdout + done.stderr
