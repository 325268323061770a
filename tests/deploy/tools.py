"""The programs deploy/ is checked with: from the environment's own packages, or Debian's."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.store.embedded import server_program

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
Service = dict[str, Any]


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


def compose_project() -> dict[str, Any]:
    """docker-compose.yml as compose itself understands it, the emulator's profile included."""
    answer: dict[str, Any] = json.loads(
        run("docker-compose", "--profile", "emulator", "config", "--format", "json", "--no-interpolate")
    )
    return answer


def start_books(service: Service, secrets: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Valkey by the container's own command and configuration, with paths of this machine in place of the image's."""
    config = (DEPLOY / "valkey" / "valkey.conf").read_text(encoding="utf-8")
    for there, here in (("port 6379", f"port 0\nunixsocket {folder}/s"), ("dir /data", f"dir {folder}")):
        assert there in config
        config = config.replace(there, here)
    (folder / "valkey.conf").write_text(config)
    command = service["command"][0].replace("$$", "$")
    for there, here in (
        ("/etc/valkey", str(folder)),
        ("/run/secrets", str(secrets)),
        ("valkey-server", server_program()),
    ):
        assert there in command
        command = command.replace(there, here, 1)
    return subprocess.Popen([*service["entrypoint"], command], cwd=folder, stdout=subprocess.DEVNULL)
