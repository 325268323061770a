"""Whether a hole is known in what the gateway installs: PyPI's advisories about `requirements.lock`, for `./run check`.

A known hole fails. An advisory service that cannot be reached, or does not know a package, fails nothing, for the
code is no worse for it; but it is said, because an audit that did not happen must not look like one that found nothing.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"
_TIME_MAX_S = 60


def main() -> int:
    """Ask, and print what was said. Returns the exit code: 1 where a hole is known."""
    answer = ask(LOCK)
    holes, lines = ((), ["advisories: the service could not be reached"]) if answer is None else verdict(answer)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if holes else 0


def ask(lock: Path) -> Sequence[Mapping[str, Any]] | None:
    """What is said of each package of a lock; None where nothing was said."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--requirement", str(lock)]
    options = ["--progress-spinner", "off", "--format", "json", "--timeout", "5"]
    try:
        asked = subprocess.run([*command, *options], capture_output=True, text=True, timeout=_TIME_MAX_S, check=False)
        packages: Sequence[Mapping[str, Any]] = json.loads(asked.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, json.JSONDecodeError):  # without an answer it prints a traceback elsewhere
        return None
    return packages


def verdict(packages: Sequence[Mapping[str, Any]]) -> tuple[Sequence[str], list[str]]:
    """The known holes, and the lines that tell of them and of what nobody could say anything about."""
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    holes = [_told(package, hole) for package in packages for hole in package.get("vulns", ())]
    lines = [f"advisories: {hole}" for hole in holes]
    if unknown:
        lines.append(f"advisories: NOT AUDITED, the service knows nothing of {len(unknown)}: {', '.join(unknown)}")
    if len(unknown) < len(packages):
        lines.append(f"advisories: {len(holes)} known in {len(packages) - len(unknown)} packages")
    return holes, lines


def _told(package: Mapping[str, Any], hole: Mapping[str, Any]) -> str:
    fixed_in = ", ".join(hole["fix_versions"]) or "nothing yet"
    return f"{package['name']} {package['version']}: {hole['id']}, fixed in {fixed_in}"


if __name__ == "__main__":
    sys.exit(main())
