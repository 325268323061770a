"""What a result was measured on, and with: a figure without it means nothing a year later."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.processes import ROOT
from benchmarks.stack import nginx_program

_PACKAGES = ("uvicorn", "uvloop", "httptools", "hiredis", "redis", "msgspec", "prometheus-client", "tiktoken")


def machine(redis_program: str) -> dict[str, object]:
    """Versions as the programs say them; nginx is "absent" where it is not installed."""
    nginx = nginx_program()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "gateway": _commit(),
        "redis": _said([redis_program, "--version"]),
        "nginx": _said([nginx, "-v"]) if nginx else "absent",
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _commit() -> str:
    """Of the checkout, with a plus where files were changed since."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return "unknown"
    changed = _said([git, "-C", str(ROOT), "status", "--porcelain", "--", "gateway", "benchmarks", "config"])
    return _said([git, "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]) + ("+" if changed else "")


def _said(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()
