"""Node and OpenAI's npm client for tests: what .ci/run installs, or nothing."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

JS = Path(__file__).resolve().parent / "js"
MODULES = JS / "node_modules"
CLIENT = JS / "client.mjs"
_NODE_FIRST = 18
"""Older ones have no fetch."""


@cache
def _node_major() -> int:
    if shutil.which("node") is None:
        return 0
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return int(version.lstrip("v").partition(".")[0])


needs_npm_client = pytest.mark.skipif(
    _node_major() < _NODE_FIRST or not (MODULES / "openai").is_dir(),
    reason=f"needs Node {_NODE_FIRST} and, in {JS.name}/, what `npm install --no-package-lock` installs",
)


def environment(base_url: str, key: str) -> Mapping[str, str]:
    """What the client finds its server and key by, in its own names."""
    return {**os.environ, "OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": key}


def command(name: str, *arguments: object) -> list[str]:
    """How one scenario of client.mjs is run."""
    return ["node", str(CLIENT), name, *map(json.dumps, arguments)]


def scenario(base_url: str, key: str, name: str, *arguments: object) -> tuple[list[Any], list[int]]:
    """What one scenario prints, once it has ended well; and the status of each answer it got."""
    done = subprocess.run(
        command(name, *arguments), env=environment(base_url, key), capture_output=True, timeout=60, check=False
    )
    assert 0 == done.returncode, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()], [int(line) for line in done.stderr.split()]
