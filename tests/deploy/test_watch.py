"""The dashboards and alerts against a real Prometheus that scrapes two gateways of two workers under traffic."""

import functools
import json
import re
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.tools import DEPLOY
from tests.deploy.watch import Watched, send, send_chat, watched
from tests.e2e.waiting import until

pytestmark = [pytest.mark.debian, pytest.mark.slow]

IMAGE = {"model": "realvision", "prompt": "a lotus"}
GRAFANA = {"$__rate_interval": "10s", "$__range": "60s"}


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


def test_refusals_of_both_sides_alert_and_clear(everything: Watched) -> None:
    """MiniToolAI's of the organisation, the gateway's of a team without money, and usage that had to be estimated."""
    rich, poor = (everything.admin.key(team)["key"] for team in ("research", "poor"))
    url = everything.gateways[1].url

    def fire() -> bool:
        assert 502 == send_chat(url, rich, "status=402")
        assert 402 == send_chat(url, poor)
        assert 200 == send_chat(url, rich, "no_usage")
        wanted = ("UpstreamRefusesUs", "BudgetRefusals", "UsageEstimated")
        return all(everything.query(f'ALERTS{{alertname="{alert}",alertstate="firing"}}') for alert in wanted)

    until(fire, timeout_s=40)
    for alert in ("UpstreamRefusesUs", "BudgetRefusals", "UsageEstimated"):
        everything.clears(alert)


def test_a_redis_that_hangs_alerts_and_clears(everything: Watched) -> None:
    """The gateways are up and say so themselves; calls meanwhile are refused."""
    key = everything.admin.key("research")["key"]
    everything.books.send_signal(signal.SIGSTOP)
    try:
        everything.fires("LedgerUnavailable")
        assert 503 == send_chat(everything.gateways[0].url, key)
        until(lambda: 2 == len(everything.query("up == 1")))
    finally:
        everything.books.send_signal(signal.SIGCONT)
    everything.clears("LedgerUnavailable")


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
