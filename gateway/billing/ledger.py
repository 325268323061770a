"""The ledger: holds that end exactly once, entries that are never edited, and the sums that must agree.

A hold is placed before the call (`open`) and ends once: `captured` at the actual cost, `released` at nothing, or
`expired`. Every end writes one entry; a correction is another entry. Balances are nothing but sums of entries.

Signs: `cost_nano_usd` is what the entry adds to `spent`: positive for a capture, zero for a release, negative for a
refund.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from gateway.billing.principal import Scope, ScopeKind
from gateway.billing.usage import Usage

HoldState = Literal["open", "captured", "released", "expired"]
EntryType = Literal["capture", "release", "expire", "late_capture", "refund", "credit", "transfer", "adjustment"]
RESOLUTIONS: frozenset[str] = frozenset({"capture", "release", "expire"})
"""Entry types that end a hold: each hold has exactly one of them."""

UsageSource = Literal["upstream", "estimated"]

ESTIMATED = "estimated"
"""The upstream proved no usage; the charge is our count of what was sent and streamed."""
UNANSWERED = "unanswered"
"""The request was sent whole and no answer came: it may have been billed."""
ANOMALY = "anomaly"
"""The upstream's usage was impossible (negative, boolean, above the model's size): the whole hold was charged."""
WHOLE_HOLD = "whole_hold"
"""The hold expired and was charged whole, as `expired_holds` says."""
OVERRUN = "overrun"
"""The actual charge was above its hold."""

OTHER_TAGS = "other"
"""Where reports count the tags that there were too many of. No tag is called that: each has a "="."""

INEXACT: frozenset[str] = frozenset({ESTIMATED, UNANSWERED, ANOMALY})
"""Flags of entries that need not equal the upstream's bill."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger. Times are milliseconds by Redis's clock; `id` orders entries.

    `paid_by`: at which of its scopes the cost was taken from prepaid credit. A credit or transfer belongs to one scope
    (those inside it are None or ""), costs nothing, and changes what was paid in by `credit_nano_usd`; a transfer is
    two entries of one id (`hold_id`), each naming the other's scope as its `counterpart`.
    """

    id: str
    at_ms: int
    admitted_at_ms: int
    type: EntryType
    hold_id: str
    cost_nano_usd: int
    request_id: str
    org: str
    team: str
    user: str | None
    key: str
    kind: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    units: int
    usage_source: str
    price_version: str
    flags: tuple[str, ...] = ()
    credit_nano_usd: int = 0
    note: str = ""
    author: str = ""
    counterpart: str = ""
    paid_by: tuple[ScopeKind, ...] = ()
    cached_tokens: int = 0
    windows_ms: tuple[int, ...] = ()
    """Where the day, week and month began that it was posted to."""
    replaces: "Progress | None" = None
    """Of a late capture: what its hold was charged when it expired."""
    tags: tuple[str, ...] = ()
    """What its caller named it by, like "project=alpha": for reports alone."""

    @property
    def charge_nano_usd(self) -> int:
        """What its call costs by this entry: of a late capture more than the difference that it posts."""
        return self.cost_nano_usd + (self.replaces.cost_nano_usd if self.replaces else 0)

    @property
    def estimated_nano_usd(self) -> int:
        """The part of the cost that rests on an estimate; a late capture takes back what was estimated before it."""
        estimated = self.charge_nano_usd if INEXACT.intersection(self.flags) else 0
        return estimated - (self.replaces.cost_nano_usd if self.replaces else 0)

    def scopes(self) -> tuple[Scope, ...]:
        """Every scope it counts at, outermost first."""
        return _scopes(self.org, self.team, self.user, self.key)

    @property
    def innermost(self) -> Scope:
        """The scope a credit or transfer belongs to."""
        return self.scopes()[-1]


def _scopes(org: str, team: str, user: str | None, key: str) -> tuple[Scope, ...]:
    below: tuple[tuple[ScopeKind, str | None], ...] = (("team", team), ("user", user), ("key", key))
    return (Scope("organisation", org), *(Scope(kind, name) for kind, name in below if name))


class Posting(NamedTuple):
    """How a hold ends: `capture` or `expire` with a cost, or `release` with none; what the entry says it was for."""

    type: EntryType
    cost_nano_usd: int = 0
    usage: Usage = Usage()
    usage_source: UsageSource = "upstream"
    flags: tuple[str, ...] = ()


RELEASE = Posting("release")


class Progress(NamedTuple):
    """What a running call has used so far, as far as its gateway has told: what it is charged should nobody tell more.

    At admission that is its whole prompt, or its price where it is priced by the piece.
    """

    cost_nano_usd: int = 0
    usage: Usage = Usage()


NOT_TOLD = Progress()


@dataclass(frozen=True, slots=True)
class OpenHold:
    """Money set aside for a running call; `paid_by` and `windows_ms` as in `Entry`.

    `so_far` is what it is charged if it expires, `tokens` the most it can use.
    """

    id: str
    request_id: str
    org: str
    team: str
    user: str | None
    key: str
    hold_nano_usd: int
    admitted_at_ms: int
    deadline_ms: int
    paid_by: tuple[ScopeKind, ...] = ()
    kind: str = ""
    model: str = ""
    price_version: str = ""
    so_far: Progress = NOT_TOLD
    windows_ms: tuple[int, ...] = ()
    tokens: int = 0
    tags: tuple[str, ...] = ()

    def scopes(self) -> tuple[Scope, ...]:
        return _scopes(self.org, self.team, self.user, self.key)


@dataclass(frozen=True, slots=True)
class Credit:
    """Prepaid money of one scope, in nano-USD: what was paid in, what the calls admitted against it spent and hold."""

    paid_in_nano_usd: int = 0
    spent_nano_usd: int = 0
    held_nano_usd: int = 0

    @property
    def free_nano_usd(self) -> int:
        """What may be spent or moved elsewhere; below zero where a charge was above its hold."""
        return self.paid_in_nano_usd - self.spent_nano_usd - self.held_nano_usd


@dataclass(frozen=True)
class Books:
    """Everything one organisation's invariants are about, read at one instant."""

    entries: Sequence[Entry]
    holds: Sequence[OpenHold]
    spent: Mapping[Scope, int]
    held: Mapping[Scope, int]
    reported: Mapping[Scope, int] = field(default_factory=dict)
    """Cost of each scope by the report cells (users and keys without any call may be absent)."""
    credit: Mapping[Scope, Credit] = field(default_factory=dict)
    tagged: Mapping[str, int] = field(default_factory=dict)
    """Cost of each tag by the report cells; OTHER_TAGS has those without cells of their own."""


def spent_is_sum_of_entries(books: Books) -> Iterator[str]:
    sums: dict[Scope, int] = defaultdict(int)
    for entry in books.entries:
        for scope in entry.scopes():
            sums[scope] += entry.cost_nano_usd
    yield from _differences("spent", books.spent, sums)


def held_is_sum_of_open_holds(books: Books) -> Iterator[str]:
    sums: dict[Scope, int] = defaultdict(int)
    for hold in books.holds:
        for scope in hold.scopes():
            sums[scope] += hold.hold_nano_usd
    yield from _differences("held", books.held, sums)


def reports_are_sums_of_entries(books: Books) -> Iterator[str]:
    sums: dict[Scope, int] = defaultdict(int)
    for entry in books.entries:
        for scope in entry.scopes():
            sums[scope] += entry.cost_nano_usd
    yield from _differences("reported", books.reported, sums)


def credit_is_sum_of_entries(books: Books) -> Iterator[str]:
    """What was paid in is the sum of credits and transfers; its spent and held are of the calls it paid."""
    paid_in, spent, held = (defaultdict[Scope, int](int) for _ in range(3))
    for entry in books.entries:
        paid_in[entry.innermost] += entry.credit_nano_usd
        for scope in entry.scopes():
            spent[scope] += entry.cost_nano_usd * (scope.kind in entry.paid_by)
    for hold in books.holds:
        for scope in hold.scopes():
            held[scope] += hold.hold_nano_usd * (scope.kind in hold.paid_by)
    stored = books.credit.items()
    yield from _differences("paid in", {scope: credit.paid_in_nano_usd for scope, credit in stored}, paid_in)
    yield from _differences("spent of credit", {scope: credit.spent_nano_usd for scope, credit in stored}, spent)
    yield from _differences("held of credit", {scope: credit.held_nano_usd for scope, credit in stored}, held)


def every_hold_is_resolved_once(books: Books) -> Iterator[str]:
    ended: dict[str, int] = defaultdict(int)
    for entry in books.entries:
        if entry.type in RESOLUTIONS:
            ended[entry.hold_id] += 1
    for hold_id, times in ended.items():
        if times > 1:
            yield f"hold {hold_id} was resolved {times} times"
    for hold in books.holds:
        if hold.id in ended:
            yield f"hold {hold.id} is open and resolved"


def team_is_sum_of_its_keys(books: Books) -> Iterator[str]:
    """A team's cell (the sum over its models) against its keys' cells; entries without a key stand apart."""
    team_of = {Scope("key", entry.key): Scope("team", entry.team) for entry in books.entries if entry.key}
    keys: dict[Scope, int] = defaultdict(int)
    for key, team in team_of.items():
        keys[team] += books.reported.get(key, 0)
    for entry in books.entries:
        if entry.team and not entry.key:
            keys[Scope("team", entry.team)] += entry.cost_nano_usd
    teams = {scope: cost for scope, cost in books.reported.items() if scope.kind == "team"}
    yield from _differences("reported", teams, keys)


def tags_are_sums_of_entries(books: Books) -> Iterator[str]:
    """An entry counts at each of its tags, so their sum says nothing; each one's does."""
    sums: dict[str, int] = defaultdict(int)
    for entry in books.entries:
        for tag in entry.tags:
            sums[tag if tag in books.tagged else OTHER_TAGS] += entry.cost_nano_usd
    for tag in sorted({*books.tagged, *sums}):
        have, want = books.tagged.get(tag, 0), sums.get(tag, 0)
        if have != want:
            yield f"tag {tag}: reported is {have} nano-USD, its sum is {want} (off by {have - want})"


Invariant = Callable[[Books], Iterator[str]]

INVARIANTS: Mapping[str, Invariant] = {
    "Σ entries = spent, at every scope": spent_is_sum_of_entries,
    "Σ open holds = held, at every scope": held_is_sum_of_open_holds,
    "Σ entries = Σ report cells, at every scope": reports_are_sums_of_entries,
    "Σ entries of a tag = Σ its report cells": tags_are_sums_of_entries,
    "Σ credits and transfers − what they paid = prepaid credit, at every scope": credit_is_sum_of_entries,
    "every hold ends exactly once": every_hold_is_resolved_once,
    "a team = Σ its keys, in the reports": team_is_sum_of_its_keys,
}


def violations(books: Books) -> list[str]:
    """Every broken invariant with its difference; empty when the books are right."""
    return [f"{law}: {text}" for law, check in INVARIANTS.items() for text in check(books)]


def _differences(what: str, stored: Mapping[Scope, int], summed: Mapping[Scope, int]) -> Iterator[str]:
    for scope in sorted({*stored, *summed}, key=lambda scope: (scope.kind, scope.id)):
        have, want = stored.get(scope, 0), summed.get(scope, 0)
        if have != want:
            yield f"{scope.kind} {scope.id}: {what} is {have} nano-USD, its sum is {want} (off by {have - want})"
