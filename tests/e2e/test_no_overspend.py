"""Nothing is overspent: a thousand calls at once, two gateways, one of them of two workers, room for a few."""

import resource
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from gateway.billing.money import format_usd
from gateway.billing.principal import Scope, ScopeKind
from tests.books import state_of
from tests.e2e.client import CHAT, Answer, send
from tests.e2e.waiting import until
from tests.stack import Admin, Process, Stack, chat

CALLS = 1000
ROOM = 7
TOKENS = 16

WITHHELD = chat(f"Wait. [[fault:withhold;tokens={TOKENS}]]", max_completion_tokens=TOKENS)
AT_ONCE = chat(f"Now!! [[fault:split=9999;tokens={TOKENS}]]", max_completion_tokens=TOKENS)


@dataclass(frozen=True)
class Arena:
    """Two gateways on one Redis, three processes that serve."""

    stack: Stack
    gateways: tuple[Process, Process]
    admin: Admin

    def hold_nano_usd(self) -> int:
        """What one of the withheld calls holds, by its bytes."""
        key = self.admin.key("scale")["key"]
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(send, self.gateways[0].url, CHAT, WITHHELD, key)
            self.wait_for_withheld(1)
            (hold,) = self.admin.get("/holds")["data"]
            self.stack.emulator.post("/__release")
            assert 200 == waiting.result().status
        amount: int = hold["hold_nano_usd"]
        return amount

    def wait_for_withheld(self, count: int) -> int:
        """How many answers are withheld, once there are `count` or more."""
        shown = self.stack.emulator.get("/__withheld", params={"at_least": str(count)}).json()
        return int(shown["withheld"])


@pytest.fixture(scope="module")
def arena(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Arena:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4 * CALLS:  # a usual limit is 1,024 open files; what is started from here on has the new one, too
        resource.setrlimit(resource.RLIMIT_NOFILE, (4 * CALLS, hard))
    gateways = (stack.gateway(workers="2", data_dir=str(tmp_path_factory.mktemp("workers"))), stack.gateway())
    return Arena(stack, gateways, Admin(gateways[0].url))


@pytest.fixture(scope="module")
def hold_nano_usd(arena: Arena) -> int:
    return arena.hold_nano_usd()


@pytest.mark.parametrize("kind", ["organisation", "team", "user", "key"])
def test_exactly_what_a_budget_has_room_for_is_admitted(arena: Arena, hold_nano_usd: int, kind: ScopeKind) -> None:
    """The limit is `ROOM` times the bound of one call. While no answer has come, exactly so many calls are running
    and all others are told to try again; once the money is really spent, the refusal is final."""
    made = arena.admin.key(f"team-{kind}", f"user-{kind}")
    scope = Scope(kind, {"organisation": "default", "key": made["id"]}.get(kind, f"{kind}-{kind}"))
    with budget(arena, scope, ROOM * hold_nano_usd) as limit_nano_usd:
        answers = admitted_and_refused(arena, made["key"])
        assert [200] * ROOM == [answer.status for answer in answers["admitted"]]
        assert {(429, "budget_held", "2", kind)} == {
            (answer.status, answer.error["code"], answer.headers["retry-after"], answer.error["scope"])
            for answer in answers["refused"]
        }
        spent_nano_usd = spend_the_rest(arena, made["key"], kind)
        state = state_of(arena.stack.redis_url, scope)
        assert (limit_nano_usd, 0) == (state.limits["total"], state.held_nano_usd)
        assert limit_nano_usd - hold_nano_usd < state.spent_nano_usd <= limit_nano_usd
        assert spent_nano_usd == sum(entry["cost_nano_usd"] for entry in arena.admin.ledger(key=made["id"]))


def admitted_and_refused(arena: Arena, key: str) -> dict[str, list[Answer]]:
    """Send all calls at once, by turns through both gateways. No answer is released before each call is decided."""
    seen = arena.stack.bill()["totals"]["calls"]
    with ThreadPoolExecutor(CALLS) as pool:
        futures = [pool.submit(send, arena.gateways[n % 2].url, CHAT, WITHHELD, key) for n in range(CALLS)]
        try:
            until(lambda: sum(future.done() for future in futures) + arena.wait_for_withheld(0) >= CALLS)
            refused = [future for future in futures if future.done()]
            assert (ROOM, CALLS - ROOM) == (arena.wait_for_withheld(0), len(refused))
        finally:
            arena.stack.emulator.post("/__release")
        admitted = [future for future in futures if future not in refused]
        answers = {"admitted": results(admitted), "refused": results(refused)}
    assert seen + ROOM == arena.stack.bill()["totals"]["calls"]
    return answers


def spend_the_rest(arena: Arena, key: str, kind: str) -> int:
    """Call until the money is gone; what the key has spent then, by the emulator's bill."""
    for _ in range(CALLS):
        answer = send(arena.gateways[1].url, CHAT, AT_ONCE, key)
        if answer.status != 200:
            break
    else:
        raise AssertionError("the budget never ran out")
    assert (402, "budget_exceeded", "false") == (
        answer.status,
        answer.error["code"],
        answer.headers["x-should-retry"],
    )
    assert (kind, "insufficient_quota", "total") == tuple(answer.error[name] for name in ("scope", "type", "window"))
    ours = {entry["request_id"] for entry in arena.admin.ledger() if entry["team"] == f"team-{kind}"}
    return sum(line["claimed_nano_usd"] for line in arena.stack.bill()["lines"] if line["request_id"] in ours)


def results(futures: list[Future[Answer]]) -> list[Answer]:
    return [future.result() for future in futures]


@contextmanager
def budget(arena: Arena, scope: Scope, room_nano_usd: int) -> Iterator[int]:
    """A total budget with so much room above what the scope has spent; yields the limit. Gone with the block."""
    path = f"/{scope.kind}s/{scope.id}"
    limit_nano_usd = state_of(arena.stack.redis_url, scope).spent_nano_usd + room_nano_usd
    arena.admin.patch(path, {"budgets": [{"window": "total", "limit_usd": format_usd(limit_nano_usd)}]})
    yield limit_nano_usd
    arena.admin.patch(path, {"budgets": []})
