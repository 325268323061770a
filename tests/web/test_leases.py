"""Leases of running calls, as their gateway renews them."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import cast

from gateway.billing.errors import LedgerUnavailable
from gateway.billing.ledger import Progress
from gateway.billing.prices import ModelPrice
from gateway.billing.principal import Principal
from gateway.billing.usage import Usage
from gateway.store.admission import HoldRequest
from gateway.store.leases import Leases
from gateway.web.leases import RunningCalls
from gateway.wire.call import Call, Outcome

LEASE_S = 3.0
ONE = Usage(units=1)
CALL = Call("image", "realvision", b"{}", ONE, ONE)
PRICE = ModelPrice("realvision", "image", unit_pico_usd=3_000)
HOLD = HoldRequest("h", "req-1", Principal("o", "t", None, "k"), "image", "realvision", 6, "v1")


class Made:
    """A picture that is there."""

    def outcome(self) -> Outcome:
        return Outcome(ONE)


class AwayForAMoment:
    """Leases in a Redis that answers neither who renews nor who tells what was counted, the first time."""

    def __init__(self) -> None:
        self.asked = 0
        self.failed, self.renewed = asyncio.Event(), asyncio.Event()

    async def renew(self, _org: str, _running: Sequence[tuple[str, Progress]]) -> tuple[str, ...]:
        self.asked += 1
        if self.asked > 2:
            self.renewed.set()
            return ()
        if self.asked == 2:
            self.failed.set()
        raise LedgerUnavailable("away")


def test_a_renewal_that_failed_is_tried_again_before_the_next_is_due() -> None:
    """By the next one the lease may be over: the first comes when up to two thirds of it are."""

    async def came_sooner() -> bool:
        leases, stop = AwayForAMoment(), asyncio.Event()
        calls = RunningCalls(cast(Leases, leases), LEASE_S, lambda _prompt, _most: 1)
        calls.begin(CALL, PRICE, HOLD, Made())
        running = asyncio.create_task(calls.run(stop))
        await leases.failed.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(leases.renewed.wait(), LEASE_S / 3 / 2)
        came = leases.renewed.is_set()
        stop.set()
        await running
        return came

    assert asyncio.run(came_sooner())
