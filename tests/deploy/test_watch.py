"""The dashboards and alerts against a real Prometheus that scrapes two gateways of two workers under traffic."""

import contextlib
import functools
import json
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.billing.principal import digest_of
from gateway.store.keys import Keys
from tests.deploy.tools import DEPLOY
from tests.deploy.watch import SLOW_S, Watched, send, send_chat, watched
from tests.e2e.waiting import until
from tests.stack import Process

pytestmark = [pytest.mark.debian, pytest.mark.slow]

IMAGE = {"model": "realvision", "prompt": "a lotus"}
BROKEN_OFF = 0
"""In place of a status: the connection was closed."""
GRAFANA = {"$__rate_interval": "10s", "$__range": "60s"}


@dataclass(frozen=True)
class Fault:
    """What makes an alert fire: a call, by the status of its answer."""

    alert: str
    make: Callable[[], int]
    status: int
    labels: Mapping[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched(tmp_path_factory.mktemp("watch")) as one:
        one.admin.post("/teams", {"id": "research", "budgets": [{"window": "month", "limit_usd": "25.00"}]})
        one.admin.post("/upstream", {"balance_usd": "100.00"})
        reconcile(one, "0.00")
        one.admin.post("/teams", {"id": "poor", "budgets": [{"window": "day", "limit_usd": "0.000001"}]})
        yield one


def test_no_panel_of_a_dashboard_is_empty(everything: Watched) -> None:
    """Each query is asked as Grafana would; a panel that shows nothing under this traffic would never show anything."""
    queries = [
        (path.stem, panel["title"], target["expr"])
        for path in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]
        for target in panel["targets"]
    ]
    assert queries
    assert not [query for query in queries if "vector(" in query[2]]
    keys = [everything.admin.key(team, user)["key"] for team, user in (("research", "an"), ("poor", None))]

    def all_shown() -> bool:
        make_traffic(everything, *keys)
        return not [query for query in queries if not shows(everything, query[2])]

    try:
        until(all_shown, timeout_s=60)
    except AssertionError:
        assert [] == [query for query in queries if not shows(everything, query[2])]


def test_budgets_and_costs_in_prometheus_are_the_ledgers(everything: Watched) -> None:
    """Two gateways show one budget each, and it is one budget; what their four workers charged adds up to what is
    spent of it."""
    key = everything.admin.key("exact", "chi")["key"]
    everything.admin.patch("/teams/exact", {"budgets": [{"window": "total", "limit_usd": "1.00"}]})
    assert [200] * 20 == [send_chat(gateway.url, key) for gateway in everything.gateways * 10]
    spent = sum(entry["cost_nano_usd"] for entry in everything.admin.ledger(team="exact"))
    budget = 'max by (window) (gateway_budget_spent_usd{scope="team",id="exact"})'
    costs = 'sum(gateway_user_cost_usd_total{team="exact",user="chi"})'
    for query in (budget, costs):
        until(functools.partial(shows_exactly, everything, query, spent))


def test_every_rule_can_be_evaluated(everything: Watched) -> None:
    """Prometheus itself says of each that it is well."""
    names = re.findall(r"- alert: (\w+)", (DEPLOY / "prometheus" / "rules.yml").read_text(encoding="utf-8"))
    until(lambda: all(rule["health"] != "unknown" for rule in everything.rules()))
    assert dict.fromkeys(names, "ok") == {rule["name"]: rule["health"] for rule in everything.rules()}


def test_a_budget_alerts_at_its_border_and_is_silent_once_raised(everything: Watched) -> None:
    """Alertmanager hears of it, and tells only of the one that matters more."""
    key = everything.admin.key("frugal", "bo")["key"]
    assert 200 == send_chat(everything.gateways[0].url, key)
    spent = sum(entry["cost_nano_usd"] for entry in everything.admin.ledger(team="frugal"))
    set_limit(everything, "frugal", spent)
    everything.fires("BudgetSpent", scope="team", id="frugal")
    everything.fires("BudgetNearlySpent", scope="team", id="frugal")
    until(lambda: {"BudgetSpent": "active", "BudgetNearlySpent": "suppressed"} == told(everything, "frugal"), 40)
    set_limit(everything, "frugal", spent * 10 // 9)
    everything.clears("BudgetSpent", scope="team", id="frugal")
    everything.fires("BudgetNearlySpent", scope="team", id="frugal")
    set_limit(everything, "frugal", spent * 2)
    everything.clears("BudgetNearlySpent", scope="team", id="frugal")


def test_an_account_that_is_used_up_alerts_until_it_is_topped_up(everything: Watched) -> None:
    """By what was entered and spent; nobody asks MiniToolAI."""
    everything.admin.post("/upstream", {"balance_usd": "0.00"})
    everything.fires("UpstreamBalanceLow")
    everything.admin.post("/upstream", {"amount_usd": "100.00"})
    everything.clears("UpstreamBalanceLow")


def test_a_drift_alerts_until_a_reconciliation_finds_none(everything: Watched) -> None:
    """The bill said nothing, then what the ledger says."""
    assert 200 == send_chat(everything.gateways[0].url, everything.admin.key("research")["key"])
    drift_usd = reconcile(everything, "0.00")["drift_usd"]
    everything.fires("LedgerDrift")
    assert "0.00" == reconcile(everything, drift_usd)["drift_usd"]
    everything.clears("LedgerDrift")


def test_what_goes_wrong_with_calls_alerts_and_clears(everything: Watched) -> None:
    """Refusals of MiniToolAI, failures and slowness of it, usage that is missing or above its hold, money that is gone,
    a charge without its hold, a fault of our own: each made until its alert fires, and none after."""
    rich, poor = (everything.admin.key(team)["key"] for team in ("research", "poor"))
    unpaid = everything.admin.key("research", budgets=[{"window": "prepaid"}])["key"]
    url = everything.gateways[1].url
    faults = [
        Fault("UpstreamRefusesUs", lambda: send_chat(url, rich, "status=402"), 502),
        Fault("UpstreamFailing", lambda: send_chat(url, rich, "status=500"), 500),
        Fault("SlowFirstByte", lambda: send_chat(url, rich, f"delay={SLOW_S}"), 200),
        Fault("UsageEstimated", lambda: send_chat(url, rich, "no_usage"), 200),
        Fault("HoldOverruns", lambda: send_chat(url, rich, "past_max=1000"), 200),
        Fault("BudgetRefusals", lambda: send_chat(url, poor), 402, {"scope": "team"}),
        Fault("BudgetRefusals", lambda: send_chat(url, unpaid), 402, {"scope": "key"}),
        Fault("ChargesQuarantined", lambda: lose_a_hold(everything, url, rich), 200),
        Fault("GatewayFault", lambda: call_by_a_broken_binding(everything, url), 500),
    ]

    def fire() -> bool:
        silent = [fault for fault in faults if not everything.firing(fault.alert, **fault.labels)]
        for fault in silent:
            assert fault.status == fault.make(), fault.alert
        return not silent

    until(fire, timeout_s=60)
    for fault in faults:
        everything.clears(fault.alert, **fault.labels)


def test_a_redis_that_hangs_alerts_and_clears(everything: Watched) -> None:
    """The gateways are up and say so themselves; calls meanwhile are refused. One that was running has its charge kept
    on disk, and took longer by the wait for its posting."""
    key, url = everything.admin.key("research")["key"], everything.gateways[0].url
    alerts = ("SlowGateway", "LedgerUnavailable", "SettlementsDelayed", "SpoolNotEmpty")
    with withheld_call(everything, url, key) as call:
        everything.books.send_signal(signal.SIGSTOP)
        try:
            everything.emulator.post("/__release")
            assert 200 == call.result()
            for alert in alerts:
                everything.fires(alert)
            assert 503 == send_chat(url, key)
            until(lambda: 2 == len(everything.query("up == 1")))
        finally:
            everything.books.send_signal(signal.SIGCONT)
    for alert in alerts:
        everything.clears(alert)


def test_workers_that_were_killed_in_mid_call_alert_and_clear(everything: Watched) -> None:
    """Whoever lives finds the hold they left: what it charges by estimate should be seen by somebody."""
    gateway = everything.gateways[1]
    with withheld_call(everything, gateway.url, everything.admin.key("research")["key"]) as call:
        for worker in workers_of(gateway):
            os.kill(worker, signal.SIGKILL)
        assert BROKEN_OFF == call.result()
    everything.emulator.post("/__release")
    everything.fires("HoldsExpired")
    everything.clears("HoldsExpired")


def test_a_gateway_that_is_gone_alerts_and_clears(everything: Watched) -> None:
    """Only that one, by its address."""
    instance = everything.gateways[1].url.removeprefix("http://")
    everything.gateways[1].stop()
    everything.fires("GatewayDown", instance=instance)
    until(lambda: 1 == len(everything.query('ALERTS{alertname="GatewayDown",alertstate="firing"}')))
    everything.gateways[1] = everything.start_gateway(1)
    everything.clears("GatewayDown")


def test_no_password_is_in_what_was_printed(everything: Watched) -> None:
    """Of the secrets' files nothing is repeated in any log."""
    folder = Path(everything.environ["GATEWAY_ADMIN_KEY_FILE"]).parent
    logs = "".join(gateway.output for gateway in everything.gateways)
    logs += "".join(path.read_text() for path in folder.parent.glob("*.log"))
    assert [] == [path.name for path in folder.iterdir() if path.read_text().strip() in logs]


@contextlib.contextmanager
def withheld_call(everything: Watched, url: str, key: str) -> Iterator[Future[int]]:
    """A call whose answer the upstream withholds; its status, or BROKEN_OFF."""
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(send_or_break_off, url, key)
        everything.emulator.get("/__withheld", params={"at_least": "1"})
        yield call


def workers_of(gateway: Process) -> list[int]:
    children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
    return [int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]


def send_or_break_off(url: str, key: str) -> int:
    try:
        return send_chat(url, key, "withhold")
    except httpx.TransportError:
        return BROKEN_OFF


def lose_a_hold(everything: Watched, url: str, key: str) -> int:
    """Redis forgets a hold while its call runs, as if it had been restored from an old copy."""
    with withheld_call(everything, url, key) as call, everything.redis() as redis:
        (hold,) = everything.admin.get("/holds")["data"]
        redis.delete(Keys("default").hold(hold["id"]))
        everything.emulator.post("/__release")
        return call.result()


def call_by_a_broken_binding(everything: Watched, url: str) -> int:
    """A call by a key whose owner cannot be read: what is stored of it is damaged."""
    key = everything.admin.key("research")["key"]
    with everything.redis() as redis:
        redis.set(Keys("default").digest(digest_of(key)), "damaged")
    return send_chat(url, key)


def make_traffic(everything: Watched, rich: str, poor: str) -> None:
    """Through both gateways: chats, images, an estimate, refusals by us and by MiniToolAI."""
    for gateway in everything.gateways:
        assert 200 == send_chat(gateway.url, rich)
        assert 200 == send_chat(gateway.url, rich, "no_usage", model="gpt-4o")
        assert 200 == send(gateway.url, "/api/texttoimage/", rich, IMAGE)
        assert 402 == send_chat(gateway.url, poor)
        assert 502 == send_chat(gateway.url, rich, "status=401")


def shows(everything: Watched, expression: str) -> bool:
    """Whether a query finds at least one series with a number in it."""
    for variable, text in GRAFANA.items():
        expression = expression.replace(variable, text)
    assert "$" not in expression
    return any(series["value"][1] != "NaN" for series in everything.query(expression))


def reconcile(everything: Watched, billed_usd: str) -> dict[str, Any]:
    """Hold all that these gateways ever charged against a figure."""
    today = datetime.now(UTC).date()
    days = {"from": str(today - timedelta(days=1)), "to": str(today + timedelta(days=1))}
    return everything.admin.post("/reconciliation", days | {"billed_usd": billed_usd})


def shows_exactly(everything: Watched, query: str, nano_usd: int) -> bool:
    return [nano_usd] == [round(float(series["value"][1]) * 1e9) for series in everything.query(query)]


def set_limit(everything: Watched, team: str, limit_nano_usd: int) -> None:
    limit = f"{limit_nano_usd // 10**9}.{limit_nano_usd % 10**9:09d}"
    everything.admin.patch(f"/teams/{team}", {"budgets": [{"window": "total", "limit_usd": limit}]})


def told(everything: Watched, scope_id: str) -> dict[str, str]:
    """What Alertmanager has of one scope: each alert with its state."""
    alerts = everything.alertmanager.get("/api/v2/alerts", params={"filter": f'id="{scope_id}"'}).json()
    return {alert["labels"]["alertname"]: alert["status"]["state"] for alert in alerts}
