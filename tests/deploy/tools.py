"""The programs deploy/ is checked with: from the environment's own packages, or Debian's."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"


def program(name: str) -> str:
    """A program beside this Python or on PATH; the test is skipped, visibly, where there is none."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(name: str, *arguments: str | Path, cwd: Path = ROOT) -> str:
    """What the program prints; it must end well."""
    done = subprocess.run([program(name), *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def make_secrets(folder: Path, api_key: str = "sk-upstream-for-tests") -> Path:
    """A copy of deploy/make-secrets at work: the folder of the secrets it made."""
    script = folder / "make-secrets"
    shutil.copy(DEPLOY / "make-secrets", script)
    subprocess.run([script], env={"PATH": "/usr/bin:/bin", "MINITOOLAI_API_KEY": api_key}, check=True)
    return folder / "secrets"
