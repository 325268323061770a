"""Limits that change while holds are open; transfers and refunds that are repeated, unheard, and killed in between."""

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Any

import httpx
import pytest

from gateway.billing.money import format_usd
from gateway.billing.principal import Scope
from tests.books import state_of
from tests.e2e.client import CHAT, IMAGES, JOBS, send, stream
from tests.e2e.waiting import until
from tests.faults.effort import REPEATS
from tests.faults.proxy import Does, Fault, RedisProxy
from tests.faults.reckoning import Figures, reckon
from tests.stack import Admin, Process, Stack, chat

pytestmark = pytest.mark.slow

WINDOWS = ("total", "day", "week", "month")
PREPAID = [{"window": "prepaid"}]
UNHEARD: dict[Does, str] = {
    "lose_reply": "its reply lost",
    "hold_reply": "gateway killed, the reply on its way",
    "hold_command": "gateway killed, not yet at Redis",
}
TIMES_AGAIN = 3
ROUNDS = REPEATS // 2


def test_limits_may_change_while_calls_run(stack: Stack, figures: Figures) -> None:
    """At every scope, in every window: a budget that is added or changed counts what is spent and held already; one
    that is lowered below it refuses new calls, ends none that runs, and lets calls through once it is raised."""
    gateway = stack.gateway()
    admin = Admin(gateway.url)
    made = admin.key("limits", "an")
    paths = ("/organisations/default", "/teams/limits", "/users/an", f"/keys/{made['id']}")
    for path in paths:
        assert 200 == send(gateway.url, CHAT, chat("Spend something"), made["key"]).status
        for window in WINDOWS:
            with stream(gateway.url, CHAT, chat("Running [[fault:withhold_after=2]]"), made["key"]) as running:
                running.read_event()
                (hold,) = admin.get("/holds")["data"]
                added = budget(admin, path, window, "1.00")
                assert hold["hold_nano_usd"] == added["held_nano_usd"]
                lowered = budget(admin, path, window, format_usd(added["spent_nano_usd"] - 1))
                assert (added["spent_nano_usd"], "0.00") == (lowered["spent_nano_usd"], lowered["remaining_usd"])
                refused = send(gateway.url, CHAT, chat("New"), made["key"])
                assert (402, "budget_exceeded", window) == (
                    refused.status,
                    refused.error["code"],
                    refused.error["window"],
                )
                stack.emulator.post("/__release")
                assert running.read_rest().endswith(b"data: [DONE]\n\n")
            ended = budget(admin, path, window, format_usd(added["spent_nano_usd"] - 1))
            assert cost(admin, running.request_id) == ended["spent_nano_usd"] - added["spent_nano_usd"] > 0
            assert 402 == send(gateway.url, CHAT, chat("New"), made["key"]).status
            budget(admin, path, window, "1.00")
            assert 200 == send(gateway.url, CHAT, chat("New"), made["key"]).status
        admin.patch(path, {"budgets": []})
    reckoning = reckon(stack)
    assert [] == reckoning.faults()
    assert set() == reckoning.estimated()
    figures.add("limits lowered, budgets added, windows changed under open holds", reckoning)


@pytest.mark.parametrize("does", UNHEARD)
def test_a_transfer_is_made_once_whatever_becomes_of_its_reply(stack: Stack, proxy: RedisProxy, does: Does) -> None:
    """Sent again under its Idempotency-Key to whoever answers: one entry at each side, and not a cent more or less."""
    sound = Admin(stack.gateway().url)
    for team in ("giver", "taker"):
        sound.post("/teams", {"id": team, "budgets": PREPAID})
    sound.post("/credits", {"scope": "team", "id": "giver", "amount_usd": "10.00"})
    gateway: Process | None = None
    for number in range(ROUNDS):
        gateway = gateway or stack.gateway(proxy.url, redis_timeout_s="60")
        unsound = Admin(gateway.url)
        assert unsound.http.get("/readyz").is_success
        alive = unheard(proxy, gateway, does, "credit", partial(transfer, unsound, number))
        gateway = gateway if alive else None
        answers = [transfer(sound, number) for _ in range(TIMES_AGAIN)]
        assert {True} == {answer.is_success for answer in answers}
    giver, taker = (state_of(stack.redis_url, Scope("team", team)).credit for team in ("giver", "taker"))
    moved_nano_usd = ROUNDS * 10_000_000
    assert (10_000_000_000 - moved_nano_usd, moved_nano_usd) == (giver.paid_in_nano_usd, taker.paid_in_nano_usd)
    assert 2 * ROUNDS == len(sound.ledger(type="transfer"))
    assert [] == reckon(stack).faults()


@pytest.mark.parametrize("does", UNHEARD)
def test_a_failed_image_is_given_back_once_whatever_becomes_of_the_reply(
    stack: Stack, proxy: RedisProxy, figures: Figures, does: Does
) -> None:
    """Polled again and again, through two gateways at once: one refund."""
    sound = stack.gateway()
    admin = Admin(sound.url)
    key = admin.key("failing")["key"]
    gateway: Process | None = None
    for number in range(ROUNDS):
        gateway = gateway or stack.gateway(proxy.url, redis_timeout_s="60")
        assert Admin(gateway.url).http.get("/readyz").is_success
        submitted = send(gateway.url, IMAGES, {"model": "amigo", "prompt": "[[fault:job_fails;job_pending=0]]"}, key)
        job = {name: submitted.json[name] for name in ("jobid", "signature")}
        alive = unheard(proxy, gateway, does, "refund", partial(send, gateway.url, JOBS, job))
        urls = [sound.url, gateway.url if alive else sound.url] * TIMES_AGAIN
        gateway = gateway if alive else None
        with ThreadPoolExecutor(len(urls)) as pool:
            polled = list(pool.map(partial(send, path=JOBS, body=job), urls))
        assert {(200, "error")} == {(answer.status, answer.json["status"]) for answer in polled}
        until(partial(refunded, admin, number + 1))
        assert ["capture", "refund"] == [entry["type"] for entry in admin.ledger(request_id=submitted.request_id)]
        assert 0 == cost(admin, submitted.request_id)
    reckoning = reckon(stack)
    assert [] == reckoning.faults()
    assert {True} == {line["voided"] for line in reckoning.lines.values()}
    figures.add(f"refund, {UNHEARD[does]}", reckoning)


def unheard(proxy: RedisProxy, gateway: Process, does: Does, script: str, ask: Callable[[], object]) -> bool:
    """Ask something of a gateway whose script is not answered by Redis; whether the gateway has survived it."""
    fault = proxy.strike(Fault(does, of=(script,)))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        fault.wait_until_struck()
        if does != "lose_reply":
            gateway.signal(signal.SIGKILL)
            gateway.wait()
        wait([asked])
    proxy.let_go()
    return does == "lose_reply"


def transfer(admin: Admin, number: int) -> httpx.Response:
    body = {"scope": "team", "id": "taker", "from": "giver", "amount_usd": "0.01", "note": f"Number {number}"}
    return admin.http.post("/admin/v1/credits", json=body, headers={"idempotency-key": f"transfer-{number}"})


def refunded(admin: Admin, times: int) -> bool:
    return len(admin.ledger(type="refund")) == times


def budget(admin: Admin, path: str, window: str, limit_usd: str) -> dict[str, Any]:
    """Give a scope this one budget; as it is shown then."""
    (shown,) = admin.patch(path, {"budgets": [{"window": window, "limit_usd": limit_usd}]})["budgets"]
    assert isinstance(shown, dict)
    return shown


def cost(admin: Admin, request_id: str) -> int:
    return sum(entry["cost_nano_usd"] for entry in admin.ledger(request_id=request_id))
