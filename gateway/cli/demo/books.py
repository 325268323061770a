"""The gateway's ledger against the emulator's bill, call by call, to the nano-dollar.

The emulator counts and prices on its own, sharing no code with the gateway, so the two can only agree by being right.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import httpx

from gateway.cli.control_plane import ControlPlane, JSONObject
from gateway.cli.errors import CommandError

_REST_S_MAX = 15.0
_RETRY_S = 0.2


@dataclass(frozen=True, slots=True)
class Books:
    """Both sides, and every difference between them in words."""

    entries: int
    refunds: int
    ledger_nano_usd: int
    reported_nano_usd: int
    calls: int
    bill_nano_usd: int
    differences: tuple[str, ...]

    @property
    def agree(self) -> bool:
        return not self.differences


async def check_books(control_plane: ControlPlane, emulator_url: str) -> Books:
    """Compare once all calls have ended.

    Calls whose clients left are still being read to their end, so what differs is looked at again for some seconds.
    """
    give_up_at = time.monotonic() + _REST_S_MAX
    while True:
        books = await asyncio.to_thread(_read_books, control_plane, emulator_url)
        if books.agree or time.monotonic() > give_up_at:
            return books
        await asyncio.sleep(_RETRY_S)


def _read_books(control_plane: ControlPlane, emulator_url: str) -> Books:
    try:
        bill = httpx.get(f"{emulator_url}/__bill", params={"at_rest": "1"}, timeout=_REST_S_MAX).json()
    except httpx.HTTPError as error:
        raise CommandError(f"the emulator shows no bill: {type(error).__name__}") from None
    entries = list(control_plane.items("ledger"))
    reported_nano_usd = control_plane.get("usage", group_by="team")["total"]["cost_nano_usd"]
    holds_open = len(control_plane.get("holds")["data"])
    ledger_nano_usd = sum(entry["cost_nano_usd"] for entry in entries)
    bill_nano_usd = bill["totals"]["generated_nano_usd"]
    differences = differences_between(entries, bill["lines"])
    if holds_open:
        differences.append(f"{holds_open} holds are still open")
    if reported_nano_usd != ledger_nano_usd:
        differences.append(f"reports say {reported_nano_usd} nano-USD, the ledger {ledger_nano_usd}")
    if bill_nano_usd != ledger_nano_usd:
        differences.append(f"the bill is {bill_nano_usd} nano-USD in all, the ledger {ledger_nano_usd}")
    return Books(
        entries=len(entries),
        refunds=sum(entry["type"] == "refund" for entry in entries),
        ledger_nano_usd=ledger_nano_usd,
        reported_nano_usd=reported_nano_usd,
        calls=bill["totals"]["calls"],
        bill_nano_usd=bill_nano_usd,
        differences=tuple(differences),
    )


def differences_between(entries: Iterable[JSONObject], lines: Iterable[JSONObject]) -> list[str]:
    """Every call whose entries (a charge, and perhaps its refund) do not add up to its line of the bill."""
    booked: dict[str, int] = defaultdict(int)
    for entry in entries:
        booked[entry["request_id"]] += entry["cost_nano_usd"]
    billed: dict[str, int] = defaultdict(int)
    for line in lines:
        billed[line["request_id"]] += line["generated_nano_usd"]
    return [
        f"call {call}: booked {booked.get(call, 0)} nano-USD, billed {billed.get(call, 0)}"
        for call in sorted(booked.keys() | billed.keys())
        if booked.get(call, 0) != billed.get(call, 0)
    ]
