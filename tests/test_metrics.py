"""What is counted of a call, and that the number of series stays bounded whoever calls."""

import json
import logging
import time
from dataclasses import replace

import pytest
from prometheus_client.samples import Sample

from gateway.billing.budget import Crossing, Span
from gateway.billing.ledger import ESTIMATED, OVERRUN, UNANSWERED, Posting
from gateway.billing.principal import Principal, Scope
from gateway.billing.usage import Usage
from gateway.call_log import CallRecord
from gateway.ledger_view import BudgetUse, LedgerView, RedisMemory
from gateway.metrics import Metrics

CHAT = "/api/chat-completions/"
VIEW = LedgerView(
    holds_open=3,
    budgets=[BudgetUse(Scope("team", "research"), "month", 25_000_000_000, 1_500_000_000, 250_000_000)],
    windows={"day": Span(86_400_000, 172_800_000)},
    spent_nano_usd={"day": 2_500_000_000},
    redis_memory=RedisMemory(1_000_000, 0),
)


def test_a_charge_counts_for_its_team_and_its_user() -> None:
    """A key that belongs to no user has its cost under `none`, so that the users' costs add up to the team's."""
    metrics = Metrics()
    metrics.observe(call("research", "an", Posting("capture", 4350, Usage(17, 3))))
    metrics.observe(call("research", None, Posting("capture", 1000, Usage(1, 1))))
    assert 4.35e-06 == value(metrics, "gateway_user_cost_usd_total", team="research", user="an")
    assert 1e-06 == value(metrics, "gateway_user_cost_usd_total", team="research", user="none")
    total = value(metrics, "gateway_cost_usd_total", team="research", model="gpt-4o-mini", kind="chat")
    assert 5.35e-06 == pytest.approx(total)


def test_teams_and_users_past_their_bounds_count_as_other() -> None:
    """An organisation that grows must not bring down whoever scrapes it; who was first keeps their series."""
    metrics = Metrics(teams_max=2, users_max=1)
    for team, user in (("a", "an"), ("b", "bo"), ("c", "chi"), ("a", "an"), ("d", None)):
        metrics.observe(call(team, user, Posting("capture", 1_000_000_000)))
    costs = {
        (sample.labels["team"], sample.labels["user"]): sample.value
        for sample in samples(metrics, "gateway_user_cost_usd_total")
    }
    assert {("a", "an"): 2.0, ("b", "other"): 1.0, ("other", "other"): 1.0, ("other", "none"): 1.0} == costs


def test_a_crossed_threshold_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The line names the scope; the label does not, or a thousand keys would be a thousand series."""
    metrics = Metrics()
    with caplog.at_level(logging.WARNING, logger="gateway.alert"):
        metrics.observe_crossing(Crossing(Scope("team", "research"), "month", 80, 100, 85))
    assert 1 == value(metrics, "gateway_budget_thresholds_total", scope="team", window="month", percent="80")
    line = json.loads(caplog.records[0].message)
    assert line.pop("at").endswith("Z")
    assert {
        "event": "threshold",
        "scope": "team",
        "id": "research",
        "window": "month",
        "percent": 80,
        "limit_nano_usd": 100,
        "spent_nano_usd": 85,
    } == line


@pytest.mark.parametrize(
    ("flags", "estimated", "overruns"), [((), 0, 0), ((ESTIMATED, OVERRUN), 1, 1), ((UNANSWERED,), 1, 0)]
)
def test_what_rests_on_an_estimate_is_counted(flags: tuple[str, ...], estimated: int, overruns: int) -> None:
    """From zero on, so that the first one shows as an increase."""
    metrics = Metrics()
    metrics.observe(call("research", "an", Posting("capture", 10, flags=flags)))
    assert estimated == value(metrics, "gateway_usage_estimated_total", model="gpt-4o-mini")
    assert overruns == value(metrics, "gateway_hold_overruns_total", model="gpt-4o-mini")


@pytest.mark.parametrize(
    ("code", "source"),
    [
        ("upstream_refused", "upstream"),
        ("ledger_unavailable", "ledger"),
        ("internal_error", "gateway"),
        ("budget_exceeded", "caller"),
        ("client_left", "caller"),
    ],
)
def test_an_error_is_counted_by_whose_fault_it_is(code: str, source: str) -> None:
    """Whoever is woken looks at the right machine first."""
    metrics = Metrics()
    metrics.observe(call("research", "an", None, error=code))
    assert 1 == value(metrics, "gateway_errors_total", source=source, code=code)


def test_errors_that_alerts_watch_exist_before_they_happen() -> None:
    """An increase is seen only from a value that was there."""
    assert 0 == value(Metrics(), "gateway_errors_total", source="upstream", code="upstream_refused")
    for code in ("budget_exceeded", "credit_exhausted"):
        assert 0 == value(Metrics(), "gateway_refusals_total", code=code, scope="user")


@pytest.mark.parametrize("name", ["usage_estimated", "hold_overruns", "usage_anomalies"])
def test_what_alerts_watch_of_a_model_exists_before_its_first_call(name: str) -> None:
    """A model whose very first call overruns must not begin at one."""
    metrics = Metrics(models=("gpt-4o", "realvision"))
    assert [0, 0] == [value(metrics, f"gateway_{name}_total", model=model) for model in ("gpt-4o", "realvision")]


def test_the_time_of_each_script_is_counted_from_zero_on() -> None:
    """By its name: Redis's latency as calls feel it."""
    metrics = Metrics(scripts=("admit", "settle"))
    metrics.observe_script("admit", 0.002)
    name = "gateway_ledger_script_duration_seconds_count"
    assert [1, 0] == [value(metrics, name, script=script) for script in ("admit", "settle")]


def test_a_refusal_is_counted_by_code_and_scope() -> None:
    """An error of the upstream is none."""
    metrics = Metrics()
    metrics.observe(call("research", "an", None, error="budget_exceeded", refused_at="team"))
    metrics.observe(call("research", "an", None, error="upstream_error"))
    (counted,) = [sample for sample in samples(metrics, "gateway_refusals_total") if sample.value]
    assert ({"code": "budget_exceeded", "scope": "team"}, 1.0) == (counted.labels, counted.value)


def test_the_ledgers_gauges_are_what_it_has_now() -> None:
    """A budget that was taken away is gone from the next scrape on."""
    metrics = Metrics()
    metrics.render(VIEW)
    about = {"scope": "team", "id": "research", "window": "month"}
    names = ("gateway_budget_limit_usd", "gateway_budget_spent_usd", "gateway_budget_held_usd")
    assert [25.0, 1.5, 0.25] == [value(metrics, name, **about) for name in names]
    assert 172_800 == value(metrics, "gateway_window_reset_timestamp_seconds", window="day")
    assert (1, 3) == (value(metrics, "gateway_ledger_up"), value(metrics, "gateway_holds_open"))
    assert 2.5 == value(metrics, "gateway_spent_usd", window="day")
    memory = ("gateway_redis_memory_used_bytes", "gateway_redis_memory_max_bytes")
    assert [1_000_000, 0] == [value(metrics, name) for name in memory]
    metrics.render(replace(VIEW, holds_open=0, budgets=[]))
    assert [] == samples(metrics, "gateway_budget_limit_usd")


def test_a_drift_that_nobody_looked_for_is_absent() -> None:
    """None found is another thing than nothing reconciled."""
    metrics = Metrics()
    for drift_nano_usd in (None, 0, -4350, None):
        metrics.render(replace(VIEW, drift_nano_usd=drift_nano_usd))
        assert drift_nano_usd == value(metrics, "gateway_ledger_drift_nano_usd")


def test_a_balance_that_nobody_entered_is_absent() -> None:
    """An alert on a balance of 0 must not wake those who keep no account here."""
    metrics = Metrics()
    for balance_nano_usd, expected in ((None, None), (12_500_000_000, 12.5), (-1_000_000, -0.001), (None, None)):
        metrics.render(replace(VIEW, upstream_balance_nano_usd=balance_nano_usd))
        assert expected == value(metrics, "gateway_upstream_balance_estimated_usd")


def test_without_the_ledger_its_gauges_keep_what_they_had() -> None:
    """One missed answer must not look like budgets that were spent or taken away."""
    metrics = Metrics()
    metrics.render(VIEW)
    assert b"gateway_ledger_up 0.0" in metrics.render(None)
    assert 3 == value(metrics, "gateway_holds_open")
    assert 1 == len(samples(metrics, "gateway_budget_spent_usd"))


def call(
    team: str, user: str | None, posting: Posting | None, *, error: str = "", refused_at: str | None = None
) -> CallRecord:
    """A finished chat call."""
    return CallRecord(
        endpoint=CHAT,
        request_id="req-1",
        started_at=time.perf_counter(),
        principal=Principal("default", team, user, "key-1"),
        kind="chat",
        model="gpt-4o-mini",
        status=200,
        error=error,
        refused_at=refused_at,
        posting=posting,
    )


def samples(metrics: Metrics, name: str) -> list[Sample]:
    return [sample for family in metrics.registry.collect() for sample in family.samples if sample.name == name]


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)
