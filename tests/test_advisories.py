"""An audit that did not happen must not look like one that found nothing."""

from typing import Any

import pytest

from tests.advisories import verdict

SOUND = {"name": "sound", "version": "1.0", "vulns": []}
HOLED = {"name": "holed", "version": "2.0", "vulns": [{"id": "PYSEC-2026-1", "fix_versions": ["2.1"]}]}
UNFIXED = {"name": "unfixed", "version": "3.0", "vulns": [{"id": "PYSEC-2026-2", "fix_versions": []}]}
UNKNOWN = {"name": "unknown", "skip_reason": "Dependency not found on PyPI and could not be audited: unknown (4.0)"}


@pytest.mark.parametrize(
    ("packages", "holes", "lines"),
    [
        ([SOUND], [], ["advisories: 0 known in 1 packages"]),
        (
            [SOUND, HOLED, UNFIXED],
            ["holed 2.0: PYSEC-2026-1, fixed in 2.1", "unfixed 3.0: PYSEC-2026-2, fixed in nothing yet"],
            [
                "advisories: holed 2.0: PYSEC-2026-1, fixed in 2.1",
                "advisories: unfixed 3.0: PYSEC-2026-2, fixed in nothing yet",
                "advisories: 2 known in 3 packages",
            ],
        ),
        (
            [SOUND, UNKNOWN],
            [],
            [
                "advisories: NOT AUDITED, the service knows nothing of 1: unknown",
                "advisories: 0 known in 1 packages",
            ],
        ),
        ([UNKNOWN], [], ["advisories: NOT AUDITED, the service knows nothing of 1: unknown"]),
    ],
)
def test_what_is_known_and_what_is_not_is_said(
    packages: list[dict[str, Any]], holes: list[str], lines: list[str]
) -> None:
    """Whoever reads the check's output sees which it was."""
    assert (holes, lines) == verdict(packages)
