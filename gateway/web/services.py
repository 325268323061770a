"""What the handlers of the data plane are given: built once by `app`, shared by all calls."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from gateway.billing.usage import Usage
from gateway.counting.counter import Counter
from gateway.metrics import Metrics
from gateway.store.answers import Answers
from gateway.store.jobs import Jobs
from gateway.store.ledger import Ledger
from gateway.store.prices import PriceBooks
from gateway.store.refusals import Refusals
from gateway.upstream.leg import UpstreamLeg
from gateway.web.auth import Authenticator
from gateway.web.leases import RunningCalls
from gateway.web.room import Room
from gateway.web.settlement import Settlements, Tasks
from gateway.wire.call import Call
from gateway.wire.charge import counted_bound


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Bounds of one call."""

    calls_max: int
    body_bytes_max: int
    body_timeout_s: float
    answer_s_max: float
    whole_answer_bytes_max: int
    client_write_timeout_s: float
    drain_s: float
    drain_bytes_max: int
    drains_max: int
    settle_wait_s: float
    job_first_poll_s: float


ANONYMOUS: Final = (
    (b"content-type", b"application/json"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"identity"),
    (b"user-agent", b"minitoolai-gateway"),
)
"""All that is sent upstream where no key is: a poll knows its job by its signature."""


class UpstreamKey:
    """An organisation's own key: `secret` must never reach a client; `headers` are all that is sent with its calls.

    Nothing of the client's own headers goes along.
    """

    def __init__(self, key: str) -> None:
        self.secret = key.encode()
        self.headers = ((b"authorization", b"Bearer " + self.secret), *ANONYMOUS)


@dataclass(slots=True)
class Services:
    auth: Authenticator
    prices: PriceBooks
    ledger: Ledger
    jobs: Jobs
    upstream: UpstreamLeg
    upstream_keys: Mapping[str, UpstreamKey]
    answers: Answers
    running: RunningCalls
    settlements: Settlements
    tasks: Tasks
    metrics: Metrics
    refusals: Refusals
    limits: CallLimits
    counter: Counter
    room: Room
    counting_admissions: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="count"))
    """Waits for the counter, one admission at a time."""
    draining: bool = False
    drains: int = 0
    """Streams that are read on after their client left."""

    async def counted_bound(self, call: Call) -> Usage:
        """Count tokens for an admission, one call at a time.

        Those who are refused wait here for one another, so that a settlement waits for one of them at most.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.counting_admissions, counted_bound, call, self.counter.count)
