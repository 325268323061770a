"""The books held against the emulator's bill after a fault, call by call: what was lost, doubled, open, estimated."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.billing.ledger import INEXACT, RESOLUTIONS, Entry, OpenHold, violations
from tests.books import ORG, read_books, with_store
from tests.e2e.waiting import until
from tests.stack import Admin, Stack

AFTER_LEASE_S = 5
"""How long after a lease is over its hold may stand."""


@dataclass(frozen=True)
class Reckoning:
    """Every call that was admitted or billed, by request id; `lines` are the emulator's, `entries` ours."""

    lines: Mapping[str, Mapping[str, Any]]
    entries: Mapping[str, Sequence[Entry]]
    holds: Sequence[OpenHold]
    broken_laws: Sequence[str]

    def faults(self) -> list[str]:
        """Everything that is not as it must be, in sentences; empty when the books are right."""
        return [*self.lost(), *self.doubled(), *self.wrong(), *self.left_open(), *self.broken_laws]

    def lost(self) -> list[str]:
        """Calls that the upstream billed and nobody was charged for."""
        return [
            f"{request_id}: {self.billed_nano_usd(request_id)} nano-USD were billed, nothing was booked"
            for request_id in self.lines
            if self.billed_nano_usd(request_id) and not self.charge_nano_usd(request_id)
        ]

    def doubled(self) -> list[str]:
        """Calls that ended more than once."""
        return [
            f"{request_id} ended by {[entry.type for entry in entries]}"
            for request_id, entries in self.entries.items()
            if 1 != sum(entry.type in RESOLUTIONS for entry in entries)
            or 1 < sum(entry.type == "late_capture" for entry in entries)
        ]

    def wrong(self) -> Iterator[str]:
        """Charges that claim to be exact and are not what the upstream billed."""
        for request_id in self.entries.keys() - self.estimated():
            booked, billed = self.charge_nano_usd(request_id), self.billed_nano_usd(request_id)
            if booked != billed:
                yield f"{request_id}: {booked} nano-USD were booked, {billed} billed"

    def left_open(self) -> list[str]:
        """Holds that nobody has ended."""
        return [f"{hold.request_id} holds {hold.hold_nano_usd} nano-USD" for hold in self.holds]

    def exact(self) -> set[str]:
        """Calls that were charged what the upstream proved."""
        return {each for each in self.entries if self.charge_nano_usd(each)} - self.estimated()

    def estimated(self) -> set[str]:
        """Calls whose charge says of itself that it is an estimate."""
        return {
            request_id
            for request_id, entries in self.entries.items()
            if INEXACT.intersection([entry for entry in entries if entry.type != "refund"][-1].flags)
        }

    def charge_nano_usd(self, request_id: str) -> int:
        return sum(entry.cost_nano_usd for entry in self.entries.get(request_id, ()))

    def billed_nano_usd(self, request_id: str) -> int:
        """What the upstream claimed of a call; where it claimed nothing, what it generated."""
        claimed = self.lines.get(request_id, {}).get("claimed_nano_usd")
        return self.generated_nano_usd(request_id) if claimed is None else int(claimed)

    def generated_nano_usd(self, request_id: str) -> int:
        """What the upstream really did for a call, whatever it claimed."""
        line = self.lines.get(request_id)
        return int(line["generated_nano_usd"]) if line else 0


def reckon(stack: Stack) -> Reckoning:
    """Once no call runs: everything since the stack was made."""
    lines = {line["request_id"]: line for line in stack.bill()["lines"]}
    books = read_books(stack.redis_url)
    entries: dict[str, list[Entry]] = defaultdict(list)
    for entry in books.entries:
        if entry.request_id:
            entries[entry.request_id].append(entry)
    return Reckoning(lines, entries, books.holds, violations(books))


def wait_until_nothing_is_held(stack: Stack, lease_s: float) -> float:
    """Wait until every hold has ended, one lease and a little more at most; returns the seconds it took."""
    began_s = time.monotonic()
    until(lambda: open_holds(stack) == 0, timeout_s=lease_s + AFTER_LEASE_S)
    return time.monotonic() - began_s


def open_holds(stack: Stack) -> int:
    """How many holds stand."""
    return with_store(stack.redis_url, lambda store: store.ledger.open_hold_count(ORG))


def wait_until_nothing_is_owed(admin: Admin, timeout_s: float = 10) -> float:
    """Wait until a gateway has posted every call it has ended; returns the seconds it took."""
    began_s = time.monotonic()
    until(lambda: gauge(admin, "gateway_settlements_owed") == 0, timeout_s)
    return time.monotonic() - began_s


def gauge(admin: Admin, name: str) -> float:
    """A gauge without labels, as /metrics shows it now."""
    (line,) = [line for line in admin.http.get("/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(line.removeprefix(name))


def spooled_bytes(stack: Stack) -> int:
    """What the spool files of all gateways on the stack's data directory hold."""
    return sum(path.stat().st_size for path in (stack.data_dir / "spool").glob("*.spool"))


@dataclass
class Figures:
    """What tests measured: a row a fault, in the columns of `docs/reliability.md`."""

    rows: list[Sequence[object]] = field(default_factory=list)

    def add(self, fault: str, reckoning: Reckoning, took_s: Sequence[float] = ()) -> None:
        """`took_s`: how long it was, each time, until nothing was held any more."""
        estimated = reckoning.estimated()
        self.rows.append(
            (
                fault,
                len(reckoning.entries.keys() | reckoning.lines.keys()),
                len(reckoning.lost()),
                len(reckoning.doubled()),
                len(reckoning.holds),
                len(reckoning.exact()),
                len(estimated),
                sum(map(reckoning.charge_nano_usd, estimated)),
                sum(map(reckoning.generated_nano_usd, estimated)),
                f"{max(took_s):.1f}" if took_s else "",
            )
        )

    def table(self) -> Iterator[str]:
        """Lines of a Markdown table."""
        yield "| fault | calls | lost | doubled | open | exact | estimated | booked | generated | longest, s |"
        yield "| --- " * 10 + "|"
        for row in self.rows:
            yield "| " + " | ".join(map(str, row)) + " |"
