"""Alive, ready, and what was counted: for those who watch the gateway."""

import os
import signal

import httpx
import pytest

from gateway.store.embedded import EmbeddedRedis
from tests.stack import ADMIN_KEY, Admin, Process, bearer, chat
from tests.web.conftest import METRICS_TOKEN


def test_alive_and_ready_are_open_to_all(gateway: Process) -> None:
    """An orchestrator has no key; they say nothing of anyone."""
    assert (200, "alive") == answer(gateway, "/livez")
    assert (200, "ready") == answer(gateway, "/readyz")


def test_without_redis_it_is_alive_but_not_ready(gateway: Process, valkey: EmbeddedRedis) -> None:
    """Restarting it would help nobody; sending it calls neither. It recovers by itself."""
    assert valkey.pid is not None
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        assert (503, "not ready") == answer(gateway, "/readyz")
        assert (200, "alive") == answer(gateway, "/livez")
        assert 200 == httpx.get(f"{gateway.url}/metrics", headers=bearer(METRICS_TOKEN), timeout=30).status_code
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    assert (200, "ready") == answer(gateway, "/readyz")


@pytest.mark.parametrize("token", [METRICS_TOKEN, ADMIN_KEY])
def test_metrics_open_to_their_token_and_the_administrators_key(gateway: Process, token: str) -> None:
    """In Prometheus's text form."""
    response = httpx.get(f"{gateway.url}/metrics", headers=bearer(token))
    assert 200 == response.status_code
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")


def test_metrics_open_to_nobody_else(admin: Admin, gateway: Process) -> None:
    """They name teams and what these spend: no sub-key opens them, whatever its role."""
    key = admin.key("curious", role="admin")["key"]
    for headers in ({}, bearer(key), bearer(METRICS_TOKEN + "x"), bearer("None"), {"x-api-key": METRICS_TOKEN}):
        response = httpx.get(f"{gateway.url}/metrics", headers=headers)
        assert 401 == response.status_code
        assert "authentication_error" == response.json()["error"]["type"]


def test_a_call_is_counted_without_a_secret(admin: Admin, gateway: Process) -> None:
    """By endpoint, model, team, status and error; tokens and dollars as the ledger has them."""
    key = admin.key("counted")["key"]
    url = f"{gateway.url}/api/chat-completions/"
    assert 200 == httpx.post(url, json=chat("hello"), headers=bearer(key), timeout=30).status_code
    assert 404 == httpx.post(url, json=chat(model="unheard-of"), headers=bearer(key)).status_code
    (entry,) = admin.ledger(team="counted")
    text = httpx.get(f"{gateway.url}/metrics", headers=bearer(METRICS_TOKEN)).text
    series = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert (
        "1.0"
        == series[
            'gateway_requests_total{endpoint="/api/chat-completions/",error="",model="gpt-4o-mini",status="200",team="counted"}'
        ]
    )
    tokens = 'gateway_tokens_total{direction="input",model="gpt-4o-mini",team="counted"}'
    assert entry["prompt_tokens"] == float(series[tokens])
    cost = 'gateway_cost_usd_total{kind="chat",model="gpt-4o-mini",team="counted"}'
    assert entry["cost_nano_usd"] == round(float(series[cost]) * 1e9)
    assert 'error="model_not_found",model="none",status="404",team="counted"' in text
    for secret in (key, ADMIN_KEY, METRICS_TOKEN, "unheard-of"):
        assert secret not in text


def answer(gateway: Process, path: str) -> tuple[int, str]:
    response = httpx.get(gateway.url + path, timeout=30)
    return response.status_code, response.json()["status"]
