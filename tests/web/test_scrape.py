"""What a scrape shows from the ledger: the same from every gateway, and no more than its bounds."""

import httpx

from tests.stack import Admin, Process, Stack, bearer, chat
from tests.web.conftest import METRICS_TOKEN, scraped


def test_every_gateway_shows_the_same_budgets(stack: Stack, admin: Admin, gateway: Process) -> None:
    """They come from the ledger: a call through one is in the other's next scrape, to the nano-dollar."""
    second = stack.gateway(timezone="Asia/Ho_Chi_Minh", metrics_token=METRICS_TOKEN)
    admin.post("/teams", {"id": "scraped", "budgets": [{"window": "month", "limit_usd": "25.00"}]})
    admin.post("/users", {"id": "an", "team": "scraped", "budgets": [{"window": "day", "limit_usd": "2.00"}]})
    key = admin.key("scraped", "an")["key"]
    assert 200 == httpx.post(f"{gateway.url}/api/chat-completions/", json=chat(), headers=bearer(key)).status_code
    (entry,) = admin.ledger(team="scraped")
    for url in (gateway.url, second.url):
        series = scraped(url)
        for budget, limit_usd in ((labels("team", "scraped", "month"), 25.0), (labels("user", "an", "day"), 2.0)):
            assert limit_usd == series[f"gateway_budget_limit_usd{budget}"]
            assert entry["cost_nano_usd"] == round(series[f"gateway_budget_spent_usd{budget}"] * 1e9)
            assert 0 == series[f"gateway_budget_held_usd{budget}"]
        assert 1 == series["gateway_ledger_up"]
    # The counters are of the process that served the call.
    cost = 'gateway_user_cost_usd_total{team="scraped",user="an"}'
    assert (True, False) == (cost in scraped(gateway.url), cost in scraped(second.url))


def test_teams_past_the_bound_have_no_gauges(stack: Stack, admin: Admin) -> None:
    """The bound is a setting; who is first by id is shown."""
    small = stack.gateway(timezone="Asia/Ho_Chi_Minh", metrics_token=METRICS_TOKEN, metrics_teams_max="1")
    for team in ("0-first", "1-second"):
        admin.post("/teams", {"id": team, "budgets": [{"window": "total", "limit_usd": "1.00"}]})
    limits = [name for name in scraped(small.url) if name.startswith("gateway_budget_limit_usd") and '"team"' in name]
    assert [f"gateway_budget_limit_usd{labels('team', '0-first', 'total')}"] == limits


def test_a_refusal_is_counted_by_code_and_scope(admin: Admin, gateway: Process) -> None:
    """Whoever asks why calls fail sees at which scope the money was gone."""
    admin.post("/teams", {"id": "poor", "budgets": [{"window": "total", "limit_usd": "0.00"}]})
    key = admin.key("poor")["key"]
    assert 402 == httpx.post(f"{gateway.url}/api/chat-completions/", json=chat(), headers=bearer(key)).status_code
    assert 401 == httpx.post(f"{gateway.url}/api/chat-completions/", json=chat()).status_code
    series = scraped(gateway.url)
    assert 1 == series['gateway_refusals_total{code="budget_exceeded",scope="team"}']
    assert 1 == series['gateway_refusals_total{code="missing_api_key",scope="none"}']


def labels(scope: str, scope_id: str, window: str) -> str:
    return f'{{id="{scope_id}",scope="{scope}",window="{window}"}}'
