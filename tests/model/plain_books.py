"""What the ledger of one organisation should say, in plain Python: dictionaries, and one clock that is told.

It answers in the store's own values, so that a test compares both with `==`. Only the calendar is the gateway's, which
`tests/billing/test_budget.py` checks against the time zones themselves.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from gateway.billing.adjustment import NotAdjusted
from gateway.billing.audit import Stored
from gateway.billing.budget import BUDGET_WINDOWS, Calendar, Span, Window
from gateway.billing.ledger import Posting, Progress
from gateway.billing.limits import Rate
from gateway.billing.principal import Scope
from gateway.store.admission import Admitted, Claimed, Decision, HoldRequest, OverBudget, RateLimited, Refused
from gateway.store.ledger import Settled

MOVING: tuple[Window, ...] = ("day", "week", "month")
BUCKETS: tuple[Rate, ...] = ("requests", "tokens", "images")
MINUTE_MS = 60_000
LEASE_MS = 30_000
UNLIMITED = 2**53 - 1
HELD_WAIT_MS, CALLS_WAIT_MS = 2000, 1000

Booked = tuple[str, str, int, int, int, int]
"""An entry: its type, whose it is (a hold's, a payment's), its cost and credit, when it was posted, when admitted."""


@dataclass
class Account:
    """One scope: what bounds it, and what it counts. `starts` are where its moving windows began."""

    limits: dict[Window, int] = field(default_factory=dict)
    rates: dict[Rate, int] = field(default_factory=dict)
    blocked: bool = False
    pays_ahead: bool = False
    paid_in: int = 0
    spent: dict[Window, int] = field(default_factory=lambda: dict.fromkeys(BUDGET_WINDOWS, 0))
    held: dict[Window, int] = field(default_factory=lambda: dict.fromkeys(BUDGET_WINDOWS, 0))
    starts: dict[Window, int] = field(default_factory=lambda: dict.fromkeys(MOVING, 0))
    full_at_ms: dict[Rate, float] = field(default_factory=lambda: dict.fromkeys(BUCKETS, 0.0))
    tokens_held: int = 0
    calls: int = 0

    def bound(self, window: Window) -> int | None:
        if window == "prepaid":
            return self.paid_in if self.pays_ahead else None
        return self.limits.get(window)

    def turn(self, starts: dict[Window, int]) -> None:
        """Begin anew in each window that is later than the one counted now."""
        for window in MOVING:
            if self.starts[window] < starts[window]:
                self.starts[window], self.spent[window], self.held[window] = starts[window], 0, 0

    def counted(self, starts: dict[Window, int], *, from_credit: bool) -> list[Window]:
        """Where a posting counts whose hold was admitted in these windows."""
        moving = [window for window in MOVING if self.starts[window] == starts[window]]
        return ["total", *moving, *(["prepaid"] if from_credit else [])]  # type: ignore[list-item]

    def take(self, rate: Rate, amount: int, now_ms: int) -> None:
        if rate in self.rates:
            later_ms = max(now_ms, self.full_at_ms[rate]) + amount * MINUTE_MS / self.rates[rate]
            self.full_at_ms[rate] = min(now_ms + MINUTE_MS, later_ms)

    def heed_clock(self, now_ms: int) -> bool:
        """A bucket that was emptied before the clock was set back is an empty one now."""
        ahead = [rate for rate in BUCKETS if self.full_at_ms[rate] > now_ms + MINUTE_MS]
        self.full_at_ms.update(dict.fromkeys(ahead, float(now_ms + MINUTE_MS)))
        return bool(ahead)

    def wait_ms(self, rate: Rate, amount: int, now_ms: int) -> float:
        used = max(0.0, self.full_at_ms[rate] - now_ms)
        held = self.tokens_held * MINUTE_MS / self.rates[rate] if rate == "tokens" else 0.0
        wanted = amount * MINUTE_MS / self.rates[rate]
        over = used + held + wanted - MINUTE_MS
        return over if over <= used else max(HELD_WAIT_MS, used + wanted - MINUTE_MS)

    def stored(self) -> Stored:
        windows = {window: (self.starts[window], self.spent[window], self.held[window]) for window in MOVING}
        return Stored(
            self.spent["total"], self.held["total"], self.paid_in, self.spent["prepaid"], self.held["prepaid"],
            self.calls, self.tokens_held, windows,
        )  # fmt: skip


@dataclass
class Hold:
    """A hold, or what is left of one. One that was released before it was admitted holds nothing."""

    request: HoldRequest
    admitted_at_ms: int = 0
    deadline_ms: int = 0
    state: str = "open"
    posted: int = 0
    so_far: Progress = field(default_factory=Progress)
    starts: dict[Window, int] = field(default_factory=dict)
    from_credit: frozenset[Scope] = frozenset()


class PlainBooks:
    """The books of one organisation. Every operation takes the instant it arrives at, by Redis's clock."""

    def __init__(self, calendar: Calendar) -> None:
        self._calendar = calendar
        self.accounts: dict[Scope, Account] = defaultdict(Account)
        self.holds: dict[str, Hold] = {}
        self.claims: dict[str, tuple[str, str]] = {}
        self.receipts: dict[str, object] = {}
        self.refunded: set[str] = set()
        self.quarantined: set[str] = set()
        self.entries: list[Booked] = []

    def admit(self, request: HoldRequest, now_ms: int) -> Decision | None:
        """What admission decides; None: the hold has ended already."""
        hold = self.holds.get(request.hold_id)
        if hold is not None:
            return Admitted(hold.admitted_at_ms, hold.deadline_ms) if hold.state == "open" else None
        tried = {scope: copy.deepcopy(self.accounts[scope]) for scope in request.principal.scopes()}
        set_back = [scope for scope, account in tried.items() if account.heed_clock(now_ms)]
        starts = self._starts(now_ms, tried.values())
        for account in tried.values():
            account.turn(starts)
        refusal = self._forbidden(request, tried) or self._too_much(request, tried, starts, now_ms)
        if refusal is not None:
            if isinstance(refusal, OverBudget | RateLimited) and refusal.retry_after_ms is not None:
                self.accounts.update({scope: tried[scope] for scope in set_back})
            return refusal
        for account in tried.values():
            _hold_at(account, request, now_ms)
        self.accounts.update(tried)
        if request.claim is not None:
            self.claims[request.claim.name] = (request.hold_id, request.claim.request)
        from_credit = frozenset(scope for scope, account in tried.items() if account.pays_ahead)
        hold = Hold(request, now_ms, now_ms + LEASE_MS, so_far=request.so_far, starts=starts, from_credit=from_credit)
        self.holds[request.hold_id] = hold
        return Admitted(hold.admitted_at_ms, hold.deadline_ms)

    def _starts(self, at_ms: int, accounts: Iterable[Account]) -> dict[Window, int]:
        spans, accounts = self._calendar.spans_at(at_ms), list(accounts)
        return {w: max([spans.of(w).start_ms, *(account.starts[w] for account in accounts)]) for w in MOVING}

    def _forbidden(self, request: HoldRequest, accounts: dict[Scope, Account]) -> Decision | None:
        for scope, account in accounts.items():
            if account.blocked:
                return Refused("blocked", scope)
        claim = request.claim
        if claim is not None and claim.name in self.claims:
            hold_id, asked = self.claims[claim.name]
            return Claimed(hold_id, asked == claim.request)
        for scope, account in accounts.items():
            for rate, wanted in _wanted(request).items():
                if rate in account.rates and wanted > account.rates[rate]:
                    return RateLimited(scope, rate, account.rates[rate], None)
        return None

    def _too_much(
        self, request: HoldRequest, accounts: dict[Scope, Account], starts: dict[Window, int], now_ms: int
    ) -> Decision | None:
        """A budget that is spent, else the first of what waiting would mend, with the longest wait of all."""
        later: list[RateLimited | OverBudget] = []
        for scope, account in accounts.items():
            if account.calls >= account.rates.get("concurrent", UNLIMITED):
                later.append(RateLimited(scope, "concurrent", account.rates["concurrent"], CALLS_WAIT_MS))
            for rate, wanted in _wanted(request).items():
                if rate in account.rates and wanted and (wait_ms := account.wait_ms(rate, wanted, now_ms)) > 1e-6:
                    later.append(RateLimited(scope, rate, account.rates[rate], math.ceil(wait_ms)))
            for window in BUDGET_WINDOWS:
                bound, needed = account.bound(window), request.amount_nano_usd
                if bound is None or account.spent[window] + account.held[window] + needed <= bound:
                    continue
                span = self._calendar.spans_at(starts[window]).of(window) if window in MOVING else Span(0, None)
                over = OverBudget(
                    scope, window, span, bound, account.spent[window], account.held[window], needed,
                    only_held=account.spent[window] + needed <= bound, retry_after_ms=HELD_WAIT_MS,
                )  # fmt: skip
                if not over.only_held:
                    return replace(over, retry_after_ms=None)
                later.append(over)
        longest_ms = max((each.retry_after_ms or 0 for each in later), default=0)
        return replace(later[0], retry_after_ms=longest_ms) if later else None

    def renew(self, running: Sequence[tuple[str, Progress]], now_ms: int) -> tuple[str, ...]:
        """Which of them expired, or are not known."""
        expired = []
        for hold_id, so_far in running:
            hold = self.holds.get(hold_id)
            if hold is None or hold.state == "expired":
                expired.append(hold_id)
            elif hold.state == "open":
                hold.deadline_ms, hold.so_far = max(hold.deadline_ms, now_ms + LEASE_MS), so_far
        return tuple(expired)

    def overdue(self, now_ms: int) -> set[str]:
        return {name for name, hold in self.holds.items() if hold.state == "open" and hold.deadline_ms <= now_ms}

    def settle(self, request: HoldRequest, posting: Posting, now_ms: int, passed_ms: int = 0) -> Settled:
        """Also of an expiry, whose deadline must be the hold's and have passed."""
        hold = self.holds.get(request.hold_id)
        if hold is None:
            if posting.type == "release":
                self.holds[request.hold_id] = Hold(request, now_ms, now_ms, "released")
            elif posting.type == "capture":
                self.quarantined.add(request.hold_id)
            return Settled(changed=False, posted_nano_usd=None)
        late = hold.state == "expired" and posting.type != "expire"
        if hold.state != "open" and not late:
            return Settled(changed=False, posted_nano_usd=hold.posted)
        if posting.type == "expire" and (hold.deadline_ms != passed_ms or passed_ms > now_ms):
            return Settled(changed=False, posted_nano_usd=None)
        tokens = 0 if posting.type == "release" else posting.usage.prompt_tokens + posting.usage.completion_tokens
        if late:
            tokens = max(0, tokens - hold.so_far.usage.prompt_tokens - hold.so_far.usage.completion_tokens)
        change = posting.cost_nano_usd - hold.posted
        for scope in request.principal.scopes():
            account = self.accounts[scope]
            if not late:
                account.calls -= 1
                account.tokens_held -= hold.request.tokens
            account.take("tokens", tokens, now_ms)
            for window in account.counted(hold.starts, from_credit=scope in hold.from_credit):
                account.spent[window] += change
                account.held[window] -= 0 if late else hold.request.amount_nano_usd
        hold.state = {"capture": "captured", "release": "released", "expire": "expired"}[posting.type]
        hold.posted = posting.cost_nano_usd
        self._free_claim(request, hold)
        self._enter("late_capture" if late else posting.type, request.hold_id, change, now_ms, hold.admitted_at_ms)
        return Settled(changed=True, posted_nano_usd=hold.posted)

    def _free_claim(self, request: HoldRequest, hold: Hold) -> None:
        """A call that cost nothing may be asked for again under its Idempotency-Key."""
        if request.claim is None or hold.state != "released":
            return
        if self.claims.get(request.claim.name, ("", ""))[0] == request.hold_id:
            del self.claims[request.claim.name]

    def refund(self, request: HoldRequest, now_ms: int) -> str:
        hold = self.holds.get(request.hold_id)
        if request.hold_id in self.refunded:
            return "finished"
        if hold is None:
            return "unknown"
        if hold.state == "open":
            return "open"
        self.refunded.add(request.hold_id)
        if not hold.posted:
            return "nothing_to_refund"
        for scope in request.principal.scopes():
            account = self.accounts[scope]
            for window in account.counted(hold.starts, from_credit=scope in hold.from_credit):
                account.spent[window] -= hold.posted
        self._enter("refund", request.hold_id, -hold.posted, now_ms, hold.admitted_at_ms)
        return "refunded"

    def pay(self, payment_id: str, scope: Scope, amount: int, source: Scope | None, now_ms: int) -> str:
        """What becomes of a credit or transfer: "done", "repeated", or why not."""
        asked = (scope, amount, source)
        if payment_id in self.receipts:
            return "repeated" if self.receipts[payment_id] == asked else "conflict"
        account, giver = self.accounts[scope], self.accounts[source] if source else None
        if not account.pays_ahead:
            return "not_prepaid"
        if giver and giver.paid_in - giver.spent["prepaid"] - giver.held["prepaid"] < amount:
            return "too_little"
        self.receipts[payment_id] = asked
        account.paid_in += amount
        if giver:
            giver.paid_in -= amount
            self._enter("transfer", payment_id, 0, now_ms, now_ms, -amount)
        self._enter("transfer" if giver else "credit", payment_id, 0, now_ms, now_ms, amount)
        return "done"

    def adjust(
        self, adjustment_id: str, scopes: Sequence[Scope], amount: int, at_ms: int | None, now_ms: int
    ) -> str | NotAdjusted:
        """What becomes of a correction: "done", "repeated", or why not."""
        asked = (scopes[-1], amount, at_ms)
        if adjustment_id in self.receipts:
            done = self.receipts[adjustment_id] == asked
            return "repeated" if done else NotAdjusted("conflict", scopes[-1])
        at_ms = now_ms if at_ms is None else at_ms
        if at_ms > now_ms:
            return NotAdjusted("ahead", scopes[-1])
        starts = self._starts(at_ms, ())
        tried = {scope: copy.deepcopy(self.accounts[scope]) for scope in scopes}
        for scope, account in tried.items():
            account.turn(starts)
            for window in account.counted(starts, from_credit=account.pays_ahead):
                if account.spent[window] + amount < 0:
                    return NotAdjusted("too_little", scope, window, account.spent[window])
                account.spent[window] += amount
        self.accounts.update(tried)
        self.receipts[adjustment_id] = asked
        self._enter("adjustment", adjustment_id, amount, now_ms, at_ms)
        return "done"

    def _enter(self, kind: str, name: str, cost: int, now_ms: int, admitted_ms: int, credit: int = 0) -> None:
        self.entries.append((kind, name, cost, credit, now_ms, admitted_ms))


def _wanted(request: HoldRequest) -> dict[Rate, int]:
    return {"requests": 1, "tokens": request.tokens, "images": request.images}


def _hold_at(account: Account, request: HoldRequest, now_ms: int) -> None:
    for window in BUDGET_WINDOWS:
        if window != "prepaid" or account.pays_ahead:
            account.held[window] += request.amount_nano_usd
    account.take("requests", 1, now_ms)
    account.take("images", request.images, now_ms)
    account.tokens_held += request.tokens
    account.calls += 1
