"""Checking the books: every balance computed again from the entries, and each difference told.

Entries are added in the order of their ids. A scope counts a charge in its day, week and month only while that window
is its newest, so the sum of a window is of those entries that were posted to its newest start.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from gateway.billing.budget import Window
from gateway.billing.ledger import Entry, OpenHold
from gateway.billing.principal import Scope

MOVING: tuple[Window, ...] = ("day", "week", "month")


@dataclass(slots=True)
class Account:
    """What one scope's balances should be, in nano-USD. `windows`: start (ms) and spent of the newest of each."""

    spent: int = 0
    paid_in: int = 0
    credit_spent: int = 0
    windows: dict[Window, tuple[int, int]] = field(default_factory=lambda: dict.fromkeys(MOVING, (0, 0)))

    def add(self, entry: Entry, *, innermost: bool, from_credit: bool) -> None:
        """Count one entry of this scope; `innermost`: it belongs to this very scope."""
        cost = entry.cost_nano_usd
        self.spent += cost
        self.paid_in += entry.credit_nano_usd if innermost else 0
        self.credit_spent += cost if from_credit else 0
        for window, start_ms in zip(MOVING, entry.windows_ms, strict=False):
            newest_ms, spent = self.windows[window]
            if start_ms > newest_ms:
                self.windows[window] = (start_ms, cost)
            elif start_ms == newest_ms:
                self.windows[window] = (start_ms, spent + cost)

    def spent_in(self, window: Window, start_ms: int) -> int | None:
        """What a window that began then should have spent; None where entries were posted to a later one."""
        newest_ms, spent = self.windows[window]
        if start_ms < newest_ms:
            return None
        return spent if start_ms == newest_ms else 0


@dataclass(slots=True)
class Held:
    """What one scope should hold for its running calls."""

    amount: int = 0
    credit: int = 0
    calls: int = 0
    tokens: int = 0
    windows: dict[tuple[Window, int], int] = field(default_factory=lambda: defaultdict(int))

    def add(self, hold: OpenHold, *, from_credit: bool) -> None:
        self.amount += hold.hold_nano_usd
        self.credit += hold.hold_nano_usd if from_credit else 0
        self.calls += 1
        self.tokens += hold.tokens
        for window, start_ms in zip(MOVING, hold.windows_ms, strict=False):
            self.windows[window, start_ms] += hold.hold_nano_usd


@dataclass(frozen=True, slots=True)
class Stored:
    """One scope's numbers as Redis has them. `windows`: start (ms), spent and held of each that moves."""

    spent: int
    held: int
    paid_in: int
    credit_spent: int
    credit_held: int
    calls: int
    tokens: int
    windows: Mapping[Window, tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class Difference:
    """One number that is not what it should be. `what` is like "spent of month" or "paid in"."""

    place: str
    what: str
    stored: int
    expected: int
    entries: tuple[str, ...] = ()
    """Ids of the newest entries that make the expected sum, where entries do."""
    start_ms: int = 0
    """Where it is of a day, week or month: when that began."""
    sheet: str = ""
    """Where it is a report's cell: the name of what it lies in."""

    def __str__(self) -> str:
        return f"{self.place}: {self.what} is {self.stored}, its entries say {self.expected}"


def account_of(scope: Scope, entries: Iterable[Entry]) -> Account:
    """What one scope's balances should be by its entries."""
    account = Account()
    for entry in entries:
        add_to(account, scope, entry)
    return account


def add_to(account: Account, scope: Scope, entry: Entry) -> None:
    account.add(entry, innermost=scope == entry.innermost, from_credit=scope.kind in entry.paid_by)


def spent_differences(scope: Scope, stored: Stored, account: Account) -> Iterator[Difference]:
    """Where what a scope has spent, or was paid, is not the sum of its entries."""
    expected = {"spent": account.spent, "paid in": account.paid_in, "spent of credit": account.credit_spent}
    found = {"spent": stored.spent, "paid in": stored.paid_in, "spent of credit": stored.credit_spent}
    for window in MOVING:
        start_ms, spent, _ = stored.windows[window]
        should = account.spent_in(window, start_ms)
        name = f"spent of {window}"
        if should is None:  # the scope's window is older than its newest entry's: nothing counts there
            name, spent, should = f"start of {window}", start_ms, account.windows[window][0]
        expected[name], found[name] = should, spent
    yield from _differences(scope, stored, found, expected)


def held_differences(scope: Scope, stored: Stored, held: Held) -> Iterator[Difference]:
    """Where what a scope holds is not the sum of its open holds."""
    expected = {
        "held": held.amount,
        "held of credit": held.credit,
        "calls at once": held.calls,
        "tokens set aside": held.tokens,
    }
    found = {
        "held": stored.held,
        "held of credit": stored.credit_held,
        "calls at once": stored.calls,
        "tokens set aside": stored.tokens,
    }
    for window in MOVING:
        start_ms, _, amount = stored.windows[window]
        expected[f"held of {window}"] = held.windows.get((window, start_ms), 0)
        found[f"held of {window}"] = amount
    yield from _differences(scope, stored, found, expected)


def _differences(
    scope: Scope, stored: Stored, found: Mapping[str, int], expected: Mapping[str, int]
) -> Iterator[Difference]:
    starts: dict[str, int] = {window: start_ms for window, (start_ms, _, _) in stored.windows.items()}
    for what, should in expected.items():
        if found[what] != should:
            start_ms = starts.get(what.rpartition(" of ")[2], 0)
            yield Difference(f"{scope.kind} {scope.id}", what, found[what], should, start_ms=start_ms)
