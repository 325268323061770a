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
    """The bound is a setting; who is first by id is shown, and who has no budget takes nobody's place."""
    small = stack.gateway(timezone="Asia/Ho_Chi_Minh", metrics_token=METRICS_TOKEN, metrics_teams_max="1")
    for team in ("0-a", "0-b", "0-c"):
        admin.post("/teams", {"id": team})
    for team in ("0-first", "1-second"):
        admin.post("/teams", {"id": team, "budgets": [{"window": "total", "limit_usd": "1.00"}]})
    limits = [name for name in scraped(small.url) if name.startswith("gateway_budget_limit_usd") and '"team"' in name]
    assert [f"gateway_budget_limit_usd{labels('team', '0-first', 'total')}"] == limits


def test_what_was_spent_is_shown_exactly_without_any_budget(admin: Admin, gateway: Process) -> None:
    """Counters never go back; this does, with a refund, and is the ledger's own number."""
    before = scraped(gateway.url)['gateway_spent_usd{window="total"}']
    key = admin.key("unbounded")["key"]
    assert 200 == httpx.post(f"{gateway.url}/api/chat-completions/", json=chat(), headers=bearer(key)).status_code
    (entry,) = admin.ledger(team="unbounded")
    series = scraped(gateway.url)
    assert entry["cost_nano_usd"] == round((series['gateway_spent_usd{window="total"}'] - before) * 1e9)
    assert {"day", "week", "month", "total"} == {
        name.split('"')[1] for name in series if name.startswith("gateway_spent_usd{")
    }


def test_redis_is_shown_as_the_gateway_finds_it(admin: Admin, gateway: Process) -> None:
    """How long its scripts take, and how full it is; 0 is no bound."""
    key = admin.key("unbounded")["key"]
    before = scraped(gateway.url)
    assert 200 == httpx.post(f"{gateway.url}/api/chat-completions/", json=chat(), headers=bearer(key)).status_code
    series = scraped(gateway.url)
    for script in ("admit", "settle"):
        name = f'gateway_ledger_script_duration_seconds_count{{script="{script}"}}'
        assert 1 <= series[name] - before[name]
    assert 0 < series["gateway_redis_memory_used_bytes"]
    assert 0 == series["gateway_redis_memory_max_bytes"]


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
