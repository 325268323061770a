"""SIGTERM while twenty streams are open and Redis is slow: nobody is cut off in silence, nothing is left unsettled."""

import contextlib
import json
import signal
from collections.abc import Sequence

import pytest

from tests.e2e.client import CHAT, OpenAnswer, stream
from tests.e2e.waiting import until
from tests.faults.proxy import RedisProxy
from tests.faults.reckoning import Figures, reckon
from tests.stack import Admin, Stack, chat, listens

pytestmark = pytest.mark.slow

STREAMS = 20
LATENCY_S = 0.15


def test_twenty_streams_and_a_slow_redis_end_in_order(stack: Stack, proxy: RedisProxy, figures: Figures) -> None:
    """The listener closes; half of the streams finish, the others never would and end with an error event when the
    grace time is over; each is in the ledger before the process ends, with code 0."""
    gateway = stack.gateway(proxy.url, grace_s="2")
    key = Admin(gateway.url).key("stops")["key"]
    finish, go_on = chat("Soon [[fault:withhold_after=2]]"), chat("For ever [[fault:endless;gap=0.05]]")
    with contextlib.ExitStack() as clients:
        answers = [
            clients.enter_context(stream(gateway.url, CHAT, body, key)) for body in [finish, go_on] * (STREAMS // 2)
        ]
        for answer in answers:
            answer.read_event()
        proxy.latency_s = LATENCY_S
        gateway.signal(signal.SIGTERM)
        until(lambda: not listens(gateway.url))
        stack.emulator.post("/__release")
        assert {"[DONE]"} == last_events(answers[::2])
        assert {"draining"} == {json.loads(event)["error"]["code"] for event in last_events(answers[1::2])}
    assert 0 == gateway.wait()
    proxy.latency_s = 0
    reckoning = reckon(stack)
    assert [] == reckoning.faults()
    assert {answer.request_id for answer in answers[::2]} == reckoning.exact()
    assert {answer.request_id for answer in answers[1::2]} == reckoning.estimated()
    figures.add(f"SIGTERM with {STREAMS} streams, Redis {LATENCY_S * 1000:.0f} ms away", reckoning)


def last_events(answers: Sequence[OpenAnswer]) -> set[str]:
    """The data of the last event of each answer, which is read to its end."""
    return {answer.read_rest().decode().rstrip().rpartition("data: ")[2] for answer in answers}
