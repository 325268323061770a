"""A fault that strikes each of several calls at one step, all that comes before the step having been done."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from tests.e2e.client import Answer
from tests.faults.proxy import Fault, RedisProxy
from tests.stack import Stack


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
