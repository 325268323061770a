"""The packed scope, layout 3, as Python reads it (ADR 0003); only the scripts write it. Amounts for scripts."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.billing.budget import BUDGET_WINDOWS, WINDOWS, Balance, Budget, Spans, Window
from gateway.billing.errors import LedgerUnavailable
from gateway.billing.ledger import Credit, Progress
from gateway.billing.limits import RATE_OF_LIMIT, Allowance, Left, Limits, Rate
from gateway.billing.usage import Usage

_NUMBERS = struct.Struct("<31d")
_LAYOUT = 3
_BLOCKED, _REVOKED, _PAYS_AHEAD = 1, 2, 4
_MINUTE_MS = 60_000
_LIMIT_OF = {rate: limit for limit, rate in RATE_OF_LIMIT.items()}


@dataclass(frozen=True, slots=True)
class ScopeState:
    """What admission knows of one scope. `limits` are nano-USD; windows without one are absent. `rates` are its rate
    limits. `credit` stays when its prepaid budget is taken away; `limits` has what was paid in only while there is one.
    """

    blocked: bool
    revoked: bool
    expires_at_ms: int
    limits: dict[Window, int]
    models: tuple[str, ...] | None
    rates: Limits
    credit: Credit
    _arrivals_ms: dict[Rate, int]
    _tokens_held: int
    calls_open: int
    _windows: dict[Window, tuple[int, int, int]]

    def balance(self, window: Window, now: Spans) -> Balance:
        """Spent and held of a window as of now: zero when the stored window has already ended."""
        if window == "prepaid":
            return Balance(now.of(window), self.credit.spent_nano_usd, self.credit.held_nano_usd)
        start_ms, spent, held = self._windows[window]
        span = now.of(window)
        if start_ms < span.start_ms:
            return Balance(span, 0, 0)
        return Balance(span, spent, held)

    def stored(self, window: Window) -> tuple[int, int, int]:
        """Start (0 where it has none), spent and held of a window as they stand there, ended or not."""
        if window == "prepaid":
            return 0, self.credit.spent_nano_usd, self.credit.held_nano_usd
        return self._windows[window]

    @property
    def tokens_held(self) -> int:
        """Tokens set aside for running calls."""
        return self._tokens_held

    def left(self, rate: Rate, now_ms: int) -> Left | None:
        """What is left of a limit at an instant of Redis's clock; None where there is no limit."""
        limit = getattr(self.rates, _LIMIT_OF[rate])
        if limit is None:
            return None
        if rate == "concurrent":
            return Left(limit, max(0, limit - self.calls_open), 0)
        held = self._tokens_held if rate == "tokens" else 0
        used_ms = max(0, self._arrivals_ms[rate] - now_ms) + -(-held * _MINUTE_MS // limit)
        return Left(limit, max(0, (_MINUTE_MS - used_ms) * limit // _MINUTE_MS), min(used_ms, _MINUTE_MS))

    @property
    def spent_nano_usd(self) -> int:
        """All this scope ever spent."""
        return self._windows["total"][1]

    @property
    def held_nano_usd(self) -> int:
        """All its open holds, whatever window they were admitted in."""
        return self._windows["total"][2]


def tightest(states: Sequence[ScopeState], spans: Spans, now_ms: int) -> Allowance:
    """What is left below the tightest of several scopes, outermost first: what the admission script tells, from a look.

    The outermost is the organisation, whose money is not told.
    """
    money = [
        max(0, limit - balance.spent_nano_usd - balance.held_nano_usd)
        for state in states[1:]
        for window, limit in state.limits.items()
        for balance in (state.balance(window, spans),)
    ]
    return Allowance(
        requests=_least(state.left("requests", now_ms) for state in states),
        tokens=_least(state.left("tokens", now_ms) for state in states),
        budget_nano_usd=min(money, default=None),
    )


def _least(lefts: Iterable[Left | None]) -> Left | None:
    return min((left for left in lefts if left is not None), key=lambda left: left.remaining, default=None)


def unpack_scope(packed: bytes) -> ScopeState:
    """Read one scope. Raises LedgerUnavailable: it is of a layout that this version cannot read."""
    if len(packed) < _NUMBERS.size or struct.unpack_from("<d", packed)[0] != _LAYOUT:
        raise LedgerUnavailable("A scope is stored in a form that this version of the gateway cannot read.")
    numbers = [int(number) for number in _NUMBERS.unpack_from(packed)]
    _layout, flags, expires_at_ms = numbers[:3]
    limits = {window: limit for window, limit in zip(WINDOWS, numbers[3:7], strict=True) if limit >= 0}
    credit = Credit(*numbers[27:30])
    if flags & _PAYS_AHEAD:
        limits["prepaid"] = credit.paid_in_nano_usd
    total = (0, numbers[7], numbers[8])
    moving = [(numbers[i], numbers[i + 1], numbers[i + 2]) for i in (9, 12, 15)]
    names = packed[_NUMBERS.size + numbers[30] :].decode()
    return ScopeState(
        blocked=bool(flags & _BLOCKED),
        revoked=bool(flags & _REVOKED),
        expires_at_ms=expires_at_ms,
        limits=limits,
        models=tuple(names.split("\n")[1:-1]) if names else None,
        credit=credit,
        rates=Limits(*(limit if limit >= 0 else None for limit in numbers[18:22])),
        _arrivals_ms={"requests": numbers[22], "tokens": numbers[23], "images": numbers[24]},
        _tokens_held=numbers[25],
        calls_open=numbers[26],
        _windows=dict(zip(WINDOWS, (total, *moving), strict=True)),
    )


@dataclass(frozen=True, slots=True)
class Balances:
    """What a scope has spent and was paid. `moving`: start (ms) and spent of its day, week and month."""

    spent_nano_usd: int
    paid_in_nano_usd: int
    credit_spent_nano_usd: int
    moving: tuple[tuple[int, int], ...]


def with_balances(packed: bytes, balances: Balances) -> bytes:
    """A packed scope with these balances, and nothing held: for books that are built again."""
    numbers = list(_NUMBERS.unpack_from(packed))
    numbers[7:9] = balances.spent_nano_usd, 0
    for place, (start_ms, spent) in zip((9, 12, 15), balances.moving, strict=True):
        numbers[place : place + 3] = start_ms, spent, 0
    numbers[25:30] = 0, 0, balances.paid_in_nano_usd, balances.credit_spent_nano_usd, 0
    return _NUMBERS.pack(*numbers) + packed[_NUMBERS.size :]


def packed_amounts(*amounts: int | None) -> bytes:
    """Amounts as one argument of a script, little-endian doubles; `lua/_numbers.lua` refuses what is none.

    Above 2^53 a number may become its neighbour, which is refused all the same.

    Raises LedgerUnavailable: one of them is no number.
    """
    try:
        return struct.pack(f"<{len(amounts)}d", *amounts)
    except (struct.error, OverflowError) as error:
        raise LedgerUnavailable("An amount is no number; nothing was billed.", maybe_applied=False) from error


def flags_of(*, blocked: bool, revoked: bool, pays_ahead: bool) -> int:
    return _BLOCKED * blocked + _REVOKED * revoked + _PAYS_AHEAD * pays_ahead


def soft_text(budgets: Iterable[Budget]) -> str:
    """The soft thresholds as the scripts read them: number of the window, colon, percent; none told yet."""
    return " ".join(
        f"{BUDGET_WINDOWS.index(budget.window) + 1}:{percent}" for budget in budgets for percent in budget.soft_percent
    )


def models_text(models: Iterable[str] | None) -> str:
    """The allow-list as the scripts search it: a newline around each name; empty where all are allowed.

    A list of none is one newline, in which no name is found.
    """
    return "" if models is None else "\n" + "".join(f"{name}\n" for name in models)


_HOLD_NUMBERS = struct.Struct("<15d")


@dataclass(frozen=True, slots=True)
class HoldRecord:
    """One stored hold. `about` is the JSON given at admission; `from_credit` has a bit for each of its scopes,
    outermost first, that pays it from prepaid credit; `so_far` is what it is charged if it expires; `windows_ms` where
    its day, week and month began; `tokens` the most it can use.
    """

    state: int
    amount_nano_usd: int
    admitted_at_ms: int
    deadline_ms: int
    posted_nano_usd: int
    resolved_at_ms: int
    from_credit: int
    so_far: Progress
    windows_ms: tuple[int, ...]
    tokens: int
    about: bytes


def unpack_hold(packed: bytes) -> HoldRecord:
    numbers = [int(number) for number in _HOLD_NUMBERS.unpack_from(packed)]
    return HoldRecord(
        state=numbers[0],
        amount_nano_usd=numbers[1],
        admitted_at_ms=numbers[2],
        deadline_ms=numbers[3],
        posted_nano_usd=numbers[7],
        resolved_at_ms=numbers[8],
        from_credit=numbers[10],
        so_far=Progress(numbers[11], Usage(numbers[12], numbers[13], units=numbers[14])),
        windows_ms=tuple(numbers[4:7]),
        tokens=numbers[9],
        about=packed[_HOLD_NUMBERS.size :],
    )
