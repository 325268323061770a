"""What an emulator can be told when it starts."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field


def _first_job_id() -> int:
    """A random start, so that an emulator started anew never repeats a (jobid, signature) pair."""
    return 10_000_000 + secrets.randbelow(80_000_000)


@dataclass(frozen=True, slots=True)
class EmulatorOptions:
    """Settings of one emulator.

    `keys`: the API keys it accepts. `balance_nano_usd`: the prepaid balance it starts (and is reset) with.
    `token_gap_s`: the pause between two events of every chat answer (0: none).
    `job_pending_polls`, `job_pending_s`: an image job pends for that many polls and at least that long.
    `body_bytes_max`: a longer request body is answered 413.
    """

    keys: tuple[str, ...] = ("sk-emulator",)
    balance_nano_usd: int = 100_000_000_000
    token_gap_s: float = 0.0
    job_pending_polls: int = 1
    job_pending_s: float = 0.0
    body_bytes_max: int = 64 * 1024 * 1024
    first_job_id: int = field(default_factory=_first_job_id)
