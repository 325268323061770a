"""Prometheus's and Alertmanager's files: their own tools find nothing, and each alert is tested."""

import re
from pathlib import Path

import pytest

from gateway.metrics import Metrics
from tests.deploy.tools import DEPLOY, run

PROMETHEUS = DEPLOY / "prometheus"


@pytest.mark.debian
def test_prometheus_takes_its_files() -> None:
    """The rules by themselves, and the configuration that loads them."""
    run("promtool", "check", "rules", PROMETHEUS / "rules.yml")
    run("promtool", "check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml")


@pytest.mark.debian
def test_each_alert_fires_when_its_fault_is_there_and_clears_after() -> None:
    """By promtool, on made-up series; rules_test.yml reads as a list of faults."""
    run("promtool", "test", "rules", "rules_test.yml", cwd=PROMETHEUS)


@pytest.mark.debian
def test_alertmanager_takes_its_file() -> None:
    """Routes, receivers and what silences what."""
    run("amtool", "check-config", DEPLOY / "alertmanager" / "alertmanager.yml")


def test_each_alert_has_tests_of_firing_and_of_clearing() -> None:
    """A rule that was never seen firing is a hope."""
    tests = (PROMETHEUS / "rules_test.yml").read_text(encoding="utf-8")
    for alert in re.findall(r"- alert: (\w+)", rules()):
        assert re.search(rf"alertname: {alert}\n +exp_alerts:\n", tests), f"{alert} is never seen firing"
        assert f"alertname: {alert}, exp_alerts: []" in tests, f"{alert} is never seen clear"


def test_each_alert_is_fired_by_a_real_fault() -> None:
    """Made-up series prove the rule, not that anything ever makes such series."""
    watched = (Path(__file__).parent / "test_watch.py").read_text(encoding="utf-8")
    assert [] == [alert for alert in re.findall(r"- alert: (\w+)", rules()) if f'"{alert}"' not in watched]


def test_rules_and_dashboards_ask_for_metrics_that_exist() -> None:
    """A name that is mistyped is an alert that never comes, and a panel that stays empty."""
    ends = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    known = {family.name + end for family in Metrics().registry.collect() for end in ends[family.type]}
    asking = re.sub(r"^ +(action|summary):.*$", "", rules(), flags=re.MULTILINE)
    texts = [asking, *(path.read_text(encoding="utf-8") for path in (DEPLOY / "grafana").rglob("*.json"))]
    asked = {name for text in texts for name in re.findall(r"\bgateway_\w+", text)}
    assert set() == asked - known


def rules() -> str:
    return (PROMETHEUS / "rules.yml").read_text(encoding="utf-8")
