"""Redis does as it is told, and its reply never comes: at every command of a call in turn.

Nobody can tell such a command from one that was never carried out, so whatever is sent again must change nothing.
"""

import itertools
from collections.abc import Callable, Iterator

import pytest
import redis

from tests.e2e.client import CHAT, IMAGES, Answer, send
from tests.e2e.waiting import until
from tests.faults.effort import REPEATS
from tests.faults.proxy import Fault, RedisProxy
from tests.faults.reckoning import Figures, reckon, wait_until_nothing_is_held, wait_until_nothing_is_owed
from tests.stack import Admin, Process, Stack, chat

pytestmark = pytest.mark.slow

LEASE_S = 1.0
BESIDE_CALLS = ("HELLO", "CLIENT", "TIME", "ZRANGE", "claim_jobs", "renew", "project", "XRANGE", "MGET")
"""What a gateway sends without any call: new connections, its reaper, its poller, its leases, its reports."""
MAY_REFUSE = {"GET", "admit"}
"""Commands before a call is sent upstream: without their reply it is refused, and may be tried again."""
_COMMANDS_MAX = 60


class Caller:
    """A gateway whose way to Redis can be broken, and another whose way is sound."""

    def __init__(self, stack: Stack, proxy: RedisProxy) -> None:
        self.gateway: Process = stack.gateway(redis_url=proxy.url, lease_s=str(LEASE_S))
        self.admin = Admin(stack.gateway(lease_s=str(LEASE_S)).url)
        assert self.admin.http.get("/readyz").is_success  # it teaches Redis the scripts
        self._numbers = itertools.count(1)

    def new_key(self) -> str:
        """A sub-key that no gateway has seen yet: its owner is looked up in Redis, too."""
        secret: str = self.admin.key("lossy")["key"]
        return secret

    def chat(self, key: str) -> list[Answer]:
        return [send(self.gateway.url, CHAT, chat(), key)]

    def image(self, key: str) -> list[Answer]:
        return [send(self.gateway.url, IMAGES, {"model": "realvision", "prompt": "A tree"}, key)]

    def idempotent(self, key: str) -> list[Answer]:
        """Asked until there is an answer, as a client does, and then once more."""
        headers = {"idempotency-key": f"order-{next(self._numbers)}"}

        def asked() -> Answer | None:
            answer = send(self.gateway.url, CHAT, chat(), key, headers)
            return None if answer.status == 503 or "idempotency_in_progress" in str(answer.body) else answer

        return [until(asked), until(asked)]


Call = Callable[[Caller, str], list[Answer]]


@pytest.mark.parametrize("call", [Caller.chat, Caller.image, Caller.idempotent], ids=lambda call: call.__name__)
def test_a_reply_lost_at_any_command_loses_and_doubles_nothing(
    stack: Stack, proxy: RedisProxy, figures: Figures, call: Call
) -> None:
    """The call ends as if nothing had been, or is refused and free; every second round with a Redis that has no script
    in memory, as after its restart, so that each is sent twice."""
    caller = Caller(stack, proxy)
    served = 0
    for number in range(REPEATS):
        struck = set()
        for label, answers in with_each_reply_lost(caller, proxy, stack, call, forgotten=number % 2 == 1):
            struck.add(label)
            assert {answer.status for answer in answers} <= ({200, 503, 409} if label in MAY_REFUSE else {200})
            served += any(answer.status == 200 for answer in answers)
        assert {"admit", "settle", ""} <= struck
    took_s = wait_until_nothing_is_held(stack, LEASE_S)
    reckoning = reckon(stack)
    assert [] == reckoning.faults()
    assert set() == reckoning.estimated()
    assert served == len(reckoning.lines) == len(reckoning.exact())
    figures.add(f"each reply lost in turn, {call.__name__}", reckoning, [took_s])


def with_each_reply_lost(
    caller: Caller, proxy: RedisProxy, stack: Stack, call: Call, *, forgotten: bool
) -> Iterator[tuple[str, list[Answer]]]:
    """Make the call with the reply of its 1st, 2nd, 3rd … command lost; in the end none is left to be struck ("")."""
    for nth in range(1, _COMMANDS_MAX):
        key = caller.new_key()
        if forgotten:
            with redis.Redis.from_url(stack.redis_url) as client:
                client.script_flush()
        fault = proxy.strike(Fault("lose_reply", nth, beside=BESIDE_CALLS))
        answers = call(caller, key)
        proxy.let_go()
        wait_until_nothing_is_owed(Admin(caller.gateway.url))  # or a late release is the next call's first command
        yield "".join(fault.struck), answers
        if not fault.struck:
            return
    raise AssertionError(f"the call has more than {_COMMANDS_MAX} commands")
