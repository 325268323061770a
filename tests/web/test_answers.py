"""What every answer of the data plane tells beside itself, and whose fault its failures count as."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.waiting import until
from tests.stack import ADMIN_KEY, Admin, Process, Stack, bearer, chat
from tests.web.conftest import METRICS_TOKEN, Series, scraped

CHAT, IMAGES, JOBS = "/api/chat-completions/", "/api/texttoimage/", "/api/texttoimage/jobs/"
IMAGE = {"model": "realvision", "prompt": "A tree"}
BODY_BYTES_MAX = 2_000
SLOW_S = 0.3
LIMITS: dict[str, Any] = {
    "limits": {"requests_per_minute": 600, "tokens_per_minute": 1_000_000},
    "budgets": [{"window": "month", "limit_usd": "1.00"}],
}
TOLD = {
    "x-request-id",
    *(f"x-ratelimit-{what}-{rate}" for what in ("limit", "remaining", "reset") for rate in ("requests", "tokens")),
    "x-gateway-budget-remaining-usd",
    "x-gateway-cost-usd",
}


@pytest.fixture(scope="module")
def gateway(stack: Stack) -> Process:
    return stack.gateway(
        metrics_token=METRICS_TOKEN,
        body_bytes_max=str(BODY_BYTES_MAX),
        body_timeout_s=str(SLOW_S * 4),
        upstream_answer_timeout_s="1",
    )


@pytest.fixture(scope="module")
def client(gateway: Process, admin: Admin) -> Iterator[httpx.Client]:
    """Of a key with a limit and a budget."""
    key = admin.key("answers", "an", **LIMITS)["key"]
    with httpx.Client(base_url=gateway.url, headers=bearer(key), timeout=30) as one:
        yield one


def send_text(client: httpx.Client) -> httpx.Response:
    return client.post(CHAT, content=b"Hello", headers={"content-type": "text/plain"})


def send_too_much(client: httpx.Client) -> httpx.Response:
    return client.post(CHAT, json=chat("x" * BODY_BYTES_MAX))


def send_fault(fault: str, path: str = CHAT) -> Callable[[httpx.Client], httpx.Response]:
    body = chat(f"[[fault:{fault}]]") if path == CHAT else {**IMAGE, "prompt": f"[[fault:{fault}]]"}
    return lambda client: client.post(path, json=body)


@pytest.mark.parametrize(
    ("send", "status"),
    [
        (send_text, 415),
        (send_too_much, 413),
        (lambda client: client.post(CHAT, json={}), 400),
        (lambda client: client.post(CHAT, json=chat(), headers={"idempotency-key": ""}), 400),
        (lambda client: client.post(CHAT, json=chat(), headers={"x-gateway-max-cost-usd": "much"}), 400),
        (lambda client: client.post(CHAT, json=chat(), headers={"x-gateway-max-cost-usd": "0.00"}), 402),
        (lambda client: client.post(CHAT, json=chat(model="gpt-5")), 404),
        (lambda client: client.post(JOBS, json={"jobid": "1", "signature": "x"}), 404),
        (lambda client: client.get("/v1/me"), 200),
        (send_fault("status=400"), 400),
        (send_fault("status=500"), 500),
        (send_fault("status=401"), 502),
        (send_fault("reset"), 502),
        (send_fault("gzip"), 502),
        (send_fault("delay=3"), 504),
        (send_fault("json200"), 200),
        (send_fault("no_job", IMAGES), 200),
    ],
)
def test_every_whole_answer_tells_what_is_left_and_what_it_cost(
    client: httpx.Client, send: Callable[[httpx.Client], httpx.Response], status: int
) -> None:
    """Refused before its body was read, failed upstream or answered: whoever watches headers watches one set."""
    answer = send(client)
    assert (status, set()) == (answer.status_code, TOLD - answer.headers.keys())


def test_a_body_that_does_not_arrive_is_told_what_is_left(gateway: Process, client: httpx.Client) -> None:
    """408, by a client that speaks no more; the headers are the same."""
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: {client.headers['authorization']}\r\n"
    answer = on_socket(gateway.url, [f"{head}content-type: application/json\r\ncontent-length: 9\r\n\r\n{{".encode()])
    names = {line.partition(":")[0] for line in answer.split("\r\n\r\n")[0].splitlines()[1:]}
    assert (True, set()) == (answer.startswith("HTTP/1.1 408 "), TOLD - names)


def test_what_failed_and_was_booked_says_what_it_cost(admin: Admin, client: httpx.Client) -> None:
    """A call that broke off may have been billed: its answer names the estimate that stands in the ledger."""
    for fault in ("reset", "gzip", "delay=3"):
        answer = send_fault(fault)(client)
        (entry,) = [one for one in admin.ledger(request_id=answer.headers["x-request-id"]) if one["cost_nano_usd"]]
        assert entry["cost_usd"] == answer.headers["x-gateway-cost-usd"]
    assert "0.00" == send_fault("status=500")(client).headers["x-gateway-cost-usd"]


def test_a_poll_costs_nothing_and_says_so(client: httpx.Client) -> None:
    """With a key; the image itself was charged when it was submitted."""
    submitted = client.post(IMAGES, json=IMAGE)
    assert "0.0015" == submitted.headers["x-gateway-cost-usd"]
    poll = client.post(JOBS, json={name: submitted.json()[name] for name in ("jobid", "signature")})
    assert (200, "0.00", set()) == (poll.status_code, poll.headers["x-gateway-cost-usd"], TOLD - poll.headers.keys())


def test_a_blocked_key_hears_that_before_anything_else(admin: Admin, gateway: Process) -> None:
    """Whatever is wrong with its request, and with what is left to it."""
    made = admin.key("barred", **LIMITS, blocked=True)
    with httpx.Client(base_url=gateway.url, headers=bearer(made["key"]), timeout=30) as client:
        answers = [
            send_text(client),
            send_too_much(client),
            client.post(CHAT, json=chat()),
            client.post(CHAT, json=chat(), headers={"idempotency-key": ""}),
            client.post(JOBS, json={"jobid": "1", "signature": "x"}),
            client.get("/v1/me"),
        ]
    assert [(403, "scope_blocked")] * 6 == [(one.status_code, one.json()["error"]["code"]) for one in answers]
    assert [set()] * 6 == [TOLD - one.headers.keys() for one in answers]


@pytest.mark.parametrize("path", [CHAT, IMAGES, JOBS])
def test_who_is_slowed_down_upstream_is_told_when_to_come_back(stack: Stack, client: httpx.Client, path: str) -> None:
    """MiniToolAI's 429 passes as it is; SDKs that find no Retry-After in it would hammer."""
    job = client.post(IMAGES, json=IMAGE).json()
    kind = {CHAT: "chat", IMAGES: "image", JOBS: "poll"}[path]
    stack.emulator.post("/__faults", json={"fault": "status=429", "kind": kind})
    poll = {name: job[name] for name in ("jobid", "signature")}
    answer = client.post(path, json={CHAT: chat(), IMAGES: IMAGE, JOBS: poll}[path])
    assert (429, "upstream") == (answer.status_code, answer.headers["x-gateway-error-source"])
    assert 1 <= int(answer.headers["retry-after"])


@pytest.mark.parametrize(
    ("status", "source", "code"),
    [(400, "caller", "upstream_rejected"), (429, "caller", "upstream_rejected"), (500, "upstream", "upstream_error")],
)
def test_a_failure_that_passes_counts_as_whose_fault_it_is(
    gateway: Process, client: httpx.Client, status: int, source: str, code: str
) -> None:
    """Requests that MiniToolAI itself finds bad are no outage of it, and no refusal of the gateway."""
    before = scraped(gateway.url)
    assert status == send_fault(f"status={status}")(client).status_code
    after = scraped(gateway.url)
    errors = f'gateway_errors_total{{code="{code}",source="{source}"}}'
    assert {errors: 1.0} == grown(before, after, "gateway_errors_total")
    assert {} == grown(before, after, "gateway_refusals_total")
    (request,) = grown(before, after, "gateway_requests_total")
    assert (f'error="{code}"' in request, f'status="{status}"' in request) == (True, True)


def test_only_refusals_of_the_gateway_are_listed_as_refused_calls(
    admin: Admin, gateway: Process, client: httpx.Client
) -> None:
    """The dashboard's "Refused calls" of a key: what MiniToolAI answered 4xx was not refused here."""
    send_fault("status=422")(client)
    client.post(CHAT, json=chat(model="gpt-5"))
    key = httpx.get(f"{gateway.url}/v1/me", headers=client.headers).json()["key"]["id"]
    with httpx.Client(base_url=gateway.url, timeout=30) as visitor:
        visitor.post("/dashboard/login", data={"key": ADMIN_KEY})
        page = until(lambda: listing(visitor.get(f"/dashboard/keys/{key}?lang=en").text))
    assert "upstream" not in page


def listing(page: str) -> str:
    """The part of a dashboard page that lists refused calls, once they are flushed."""
    part = page[page.index("Refused calls</h2>") :]
    return part if "model_not_found" in part else ""


def test_waiting_for_the_client_is_no_overhead(gateway: Process, client: httpx.Client) -> None:
    """A body that arrives slowly says nothing about the gateway; an alert on its overhead must stay silent."""
    body = json.dumps(chat("slow")).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: {client.headers['authorization']}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    ).encode()
    before = scraped(gateway.url)
    assert on_socket(gateway.url, [head + body[:10], body[10:]]).startswith("HTTP/1.1 200 ")
    after = scraped(gateway.url)
    seconds = {
        name: after[f"{name}_sum{CHAT_ONLY}"] - before.get(f"{name}_sum{CHAT_ONLY}", 0)
        for name in ("gateway_request_duration_seconds", "gateway_overhead_seconds")
    }
    # The wait is in one and not in the other, whatever else took how long on this machine.
    overhead_s = seconds["gateway_overhead_seconds"]
    assert SLOW_S <= seconds["gateway_request_duration_seconds"] - overhead_s


CHAT_ONLY = f'{{endpoint="{CHAT}"}}'


def on_socket(url: str, parts: list[bytes]) -> str:
    """Send the parts with a pause between them; everything that comes back."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port or 80), timeout=30) as connection:
        connection.sendall(parts[0])
        for part in parts[1:]:
            time.sleep(SLOW_S)  # the slowness is what is tested
            connection.sendall(part)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return received.decode()


def grown(before: Series, after: Series, name: str) -> Series:
    """The series of a metric that grew, by how much."""
    return {
        series: number - before.get(series, 0)
        for series, number in after.items()
        if series.startswith(f"{name}{{") and number != before.get(series, 0)
    }
