"""Calls to strike: several at once, each at the same step, or callers that never pause."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from tests.e2e.client import CHAT, IMAGES, Answer, send
from tests.faults.proxy import Fault, RedisProxy
from tests.stack import Process, Stack, chat

CALLERS = 6


def struck_together(
    stack: Stack, proxy: RedisProxy, pool: ThreadPoolExecutor, fault: Fault, calls: Sequence[Callable[[], Answer]]
) -> list[Future[Answer]]:
    """Send them all at once; returns once the fault has struck each of them.

    All calls of a gateway share one connection to Redis, so what is held keeps all behind it. A fault after admission
    is therefore armed once the upstream has every call and answers none: else some would wait, not admitted at all,
    behind another's settlement.
    """
    if "admit" in fault.of:
        proxy.strike(fault)
        sent = [pool.submit(call) for call in calls]
    else:
        stack.emulator.post("/__faults", json={"fault": "withhold", "count": len(calls)})
        sent = [pool.submit(call) for call in calls]
        stack.emulator.get("/__withheld", params={"at_least": str(len(calls))})
        proxy.strike(fault)
        stack.emulator.post("/__release")
    fault.wait_until_struck(len(calls))
    return sent


@contextlib.contextmanager
def calling(gateway: Process, key: str) -> Iterator[list[int]]:
    """Callers that send one call after the other until the block ends; the statuses they got, as they come."""
    statuses: list[int] = []
    over = threading.Event()

    def call(number: int) -> None:
        while not over.is_set():
            if number % 3:
                statuses.append(send(gateway.url, CHAT, chat(f"Caller {number}"), key).status)
            else:
                statuses.append(send(gateway.url, IMAGES, {"model": "amigo", "prompt": "A tree"}, key).status)

    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(call, number) for number in range(CALLERS)]
        try:
            yield statuses
        finally:
            over.set()
    assert [None] * CALLERS == [caller.result() for caller in callers]
