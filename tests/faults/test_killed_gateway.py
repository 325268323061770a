"""The gateway is killed (SIGKILL) at every point between a call's admission and its last byte.

Whoever survives, its restart or another gateway on the same Redis and data directory, ends what it left: exactly
where the upstream's usage had reached Redis or the spool, by what was known of it where not.
"""

import contextlib
import http.client
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial

import pytest

from tests.books import read_books
from tests.e2e.client import CHAT, IMAGES, Answer, OpenAnswer, send, stream
from tests.e2e.waiting import until
from tests.faults.effort import REPEATS
from tests.faults.proxy import Does, Fault, RedisProxy
from tests.faults.reckoning import Figures, reckon, spooled_bytes, wait_until_nothing_is_held
from tests.faults.steps import struck_together
from tests.stack import UPSTREAM_KEY, Admin, Process, Stack, chat

pytestmark = pytest.mark.slow

LEASE_S, LONGER_LEASE_S = 1.0, 3.0
"""The longer one is not outlasted by loading tiktoken on a busy machine, during which the whole process may stand."""
TOKENS = 5


@pytest.mark.parametrize(("killed", "lease_s"), [("at once", LEASE_S), ("once renewed", LONGER_LEASE_S)])
def test_a_kill_at_every_chunk_leaves_an_estimate_and_no_hold(
    stack: Stack, figures: Figures, killed: str, lease_s: float
) -> None:
    """At once, a hold knows no more than its call's prompt; once its lease was renewed, it knows what was streamed to
    the token, and the estimate is what the upstream had generated. By turns a restart ends it, or another gateway."""
    events = events_of_an_answer(stack)
    took_s = []
    gateway = stack.gateway(lease_s=str(lease_s))
    key = Admin(gateway.url).key("killed")["key"]
    for number in range(REPEATS):
        other = stack.gateway(lease_s=str(lease_s)) if number % 2 else None
        with streams_at_every_chunk(stack, gateway, key, events):
            if killed == "once renewed":
                until(lambda: progress_told(stack) == progress_made(stack))
            kill(gateway)
        gateway = other or stack.gateway(lease_s=str(lease_s))
        took_s.append(wait_until_nothing_is_held(stack, lease_s))
    reckoning = reckon(stack)
    assert [] == reckoning.faults()
    assert REPEATS * (events + 1) == len(reckoning.lines) == len(reckoning.estimated())
    if killed == "once renewed":
        made = {each: reckoning.generated_nano_usd(each) for each in reckoning.lines}
        assert made == {each: reckoning.charge_nano_usd(each) for each in reckoning.lines}
    figures.add(f"gateway killed {killed}, before and at each of {events} chunks", reckoning, took_s)


@dataclass(frozen=True)
class Point:
    """Where a gateway is killed: while so much happens to the commands `of` that name, all else having been done.

    `settle_wait_s`: how long a call waits for its settlement before it goes to the spool and is `answered`.
    """

    name: str
    does: Does
    of: str
    settle_wait_s: float
    answered: bool
    ends: str


CALLS = 4
NEVER_S, SOON_S = 60.0, 0.05
POINTS = (
    Point("admitted, the reply on its way", "hold_reply", "admit", NEVER_S, False, "estimated"),
    Point("answer ended, settlement not yet at Redis", "hold_command", "settle", NEVER_S, False, "estimated"),
    Point("settled, the reply on its way", "hold_reply", "settle", NEVER_S, False, "exact"),
    Point("settlement in the spool alone", "hold_command", "settle", SOON_S, True, "exact"),
    Point("settled and in the spool", "hold_reply", "settle", SOON_S, True, "exact"),
    Point("after the last byte", "hold_reply", "nothing", NEVER_S, True, "exact"),
)


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name.replace(" ", "-"))
def test_a_kill_between_two_steps_of_a_call_ends_it_once(
    stack: Stack, proxy: RedisProxy, figures: Figures, point: Point
) -> None:
    """Chats and images at once. What Redis or the spool has is exact; what was never sent is charged its prompt."""
    took_s = []
    settings = {"lease_s": str(LEASE_S), "settle_wait_s": str(point.settle_wait_s), "redis_timeout_s": str(NEVER_S)}
    gateway = stack.gateway(proxy.url, **settings)
    admin = Admin(gateway.url)
    key = admin.key("killed")["key"]
    assert admin.http.get("/readyz").is_success  # Redis has the scripts now: each is sent once
    for _ in range(REPEATS):
        with ThreadPoolExecutor(CALLS) as pool:
            each = [partial(one_call, gateway, key, number) for number in range(CALLS)]
            if point.of == "nothing":
                calls = [pool.submit(call) for call in each]
            else:
                calls = struck_together(stack, proxy, pool, Fault(point.does, of=(point.of,)), each)
            if point.answered:
                assert [200] * CALLS == [call.result().status for call in calls]
            kill(gateway)
            assert point.answered or cut_off(calls)
        proxy.let_go()
        gateway = stack.gateway(proxy.url, **settings)
        took_s.append(wait_until_nothing_is_held(stack, LEASE_S))
        until(lambda: spooled_bytes(stack) == 0)
    reckoning = reckon(stack)
    assert [] == reckoning.faults()
    ended = reckoning.exact() if point.ends == "exact" else reckoning.estimated()
    assert REPEATS * CALLS == len(reckoning.entries) == len(ended)
    assert len(reckoning.lines) == (0 if point.of == "admit" else REPEATS * CALLS)
    figures.add(f"gateway killed: {point.name}", reckoning, took_s)


@contextlib.contextmanager
def streams_at_every_chunk(stack: Stack, gateway: Process, key: str, events: int) -> Iterator[None]:
    """A stream for each number of events it has passed on, and one whose answer has not begun; each waits there."""
    with contextlib.ExitStack() as open_streams:
        connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"))
        open_streams.callback(connection.close)
        for passed in range(events):
            answer = open_streams.enter_context(held_stream(stack, gateway.url, key, f"withhold_after={passed}"))
            for _ in range(passed):
                answer.read_event()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(send, gateway.url, CHAT, answer_of("withhold"), key)
            stack.emulator.get("/__withheld", params={"at_least": str(events + 1)})
            yield
            assert cut_off([waiting])


def held_stream(stack: Stack, url: str, key: str, fault: str) -> contextlib.AbstractContextManager[OpenAnswer]:
    """The same answer each time: its fault is queued, and not part of what is asked."""
    stack.emulator.post("/__faults", json={"fault": f"tokens={TOKENS};{fault}", "kind": "chat"})
    return stream(url, CHAT, chat("Say something", max_completion_tokens=TOKENS), key)


def answer_of(fault: str) -> dict[str, object]:
    return chat(f"Say nothing yet [[fault:{fault}]]", max_completion_tokens=TOKENS)


def events_of_an_answer(stack: Stack) -> int:
    """How many events the answer has, which the emulator is asked for itself; its bill is empty again."""
    with held_stream(stack, stack.emulator_url, UPSTREAM_KEY, "delay=0") as answer:
        events = answer.read_rest().count(b"\n\n")
    stack.bill()
    stack.emulator.post("/__reset")
    assert events > TOKENS
    return events


def progress_told(stack: Stack) -> dict[str, int]:
    """What each open hold would be charged, should its gateway never be heard of again."""
    return {hold.request_id: hold.so_far.cost_nano_usd for hold in read_books(stack.redis_url).holds}


def progress_made(stack: Stack) -> dict[str, int]:
    """What the upstream has generated for each call that runs."""
    bill = stack.emulator.get("/__bill").json()
    return {line["request_id"]: line["generated_nano_usd"] for line in bill["lines"][-bill["running"] :]}


def one_call(gateway: Process, key: str, number: int) -> Answer:
    if number % 2:
        return send(gateway.url, IMAGES, {"model": "realvision", "prompt": f"A tree {number}"}, key)
    return send(gateway.url, CHAT, chat(f"Hello {number}"), key)


def kill(gateway: Process) -> None:
    gateway.signal(signal.SIGKILL)
    assert -signal.SIGKILL == gateway.wait()


def cut_off(calls: list[Future[Answer]]) -> bool:
    """Whether none of them has an answer, now that nobody is left to give one."""
    wait(calls)
    return all(isinstance(call.exception(), OSError | http.client.HTTPException) for call in calls)
