"""The packed scope, layout 1, as Python reads it (ADR 0003). Only the scripts write it."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.billing.budget import WINDOWS, Balance, Spans, Window
from gateway.billing.errors import LedgerUnavailable

_NUMBERS = struct.Struct("<18d")
_LAYOUT = 1
_BLOCKED, _REVOKED = 1, 2


@dataclass(frozen=True, slots=True)
class ScopeState:
    """What admission knows of one scope. `limits` are nano-USD; windows without a limit are absent."""

    blocked: bool
    revoked: bool
    expires_at_ms: int
    limits: dict[Window, int]
    models: tuple[str, ...] | None
    _windows: dict[Window, tuple[int, int, int]]

    def balance(self, window: Window, now: Spans) -> Balance:
        """Spent and held of a window as of now: zero when the stored window has already ended."""
        start_ms, spent, held = self._windows[window]
        span = now.of(window)
        if start_ms < span.start_ms:
            return Balance(span, 0, 0)
        return Balance(span, spent, held)

    @property
    def spent_nano_usd(self) -> int:
        """All this scope ever spent."""
        return self._windows["total"][1]

    @property
    def held_nano_usd(self) -> int:
        """All its open holds, whatever window they were admitted in."""
        return self._windows["total"][2]


def unpack_scope(packed: bytes) -> ScopeState:
    """Read one scope. Raises LedgerUnavailable: it is of a layout that this version cannot read."""
    if len(packed) < _NUMBERS.size or struct.unpack_from("<d", packed)[0] != _LAYOUT:
        raise LedgerUnavailable("A scope is stored in a form that this version of the gateway cannot read.")
    numbers = [int(number) for number in _NUMBERS.unpack_from(packed)]
    _layout, flags, expires_at_ms = numbers[:3]
    limits = {window: limit for window, limit in zip(WINDOWS, numbers[3:7], strict=True) if limit >= 0}
    total = (0, numbers[7], numbers[8])
    moving = [(numbers[i], numbers[i + 1], numbers[i + 2]) for i in (9, 12, 15)]
    names = packed[_NUMBERS.size :].decode()
    return ScopeState(
        blocked=bool(flags & _BLOCKED),
        revoked=bool(flags & _REVOKED),
        expires_at_ms=expires_at_ms,
        limits=limits,
        models=tuple(names.split("\n")[1:-1]) if names else None,
        _windows=dict(zip(WINDOWS, (total, *moving), strict=True)),
    )


def flags_of(*, blocked: bool, revoked: bool) -> int:
    return _BLOCKED * blocked + _REVOKED * revoked


def models_text(models: Iterable[str] | None) -> str:
    """The allow-list as the scripts search it: a newline around each name; empty where all are allowed.

    A list of none is one newline, in which no name is found.
    """
    return "" if models is None else "\n" + "".join(f"{name}\n" for name in models)


_HOLD_NUMBERS = struct.Struct("<9d")


@dataclass(frozen=True, slots=True)
class HoldRecord:
    """One stored hold. `about` is the JSON given at admission."""

    state: int
    amount_nano_usd: int
    admitted_at_ms: int
    deadline_ms: int
    posted_nano_usd: int
    about: bytes


def unpack_hold(packed: bytes) -> HoldRecord:
    numbers = [int(number) for number in _HOLD_NUMBERS.unpack_from(packed)]
    return HoldRecord(
        state=numbers[0],
        amount_nano_usd=numbers[1],
        admitted_at_ms=numbers[2],
        deadline_ms=numbers[3],
        posted_nano_usd=numbers[7],
        about=packed[_HOLD_NUMBERS.size :],
    )
