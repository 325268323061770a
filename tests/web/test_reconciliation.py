"""`/admin/v1/reconciliation`: what is taken and answered, and that the drift is the ledger's less the bill."""

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from gateway.billing.money import format_usd
from tests.stack import Admin, Process, Stack, bearer, chat
from tests.web.conftest import Series, scraped

ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
DRIFT = "gateway_ledger_drift_nano_usd"


def reconcile(admin: Admin, key: str | None = None, **body: Any) -> httpx.Response:
    return admin.http.post("/admin/v1/reconciliation", json=body, headers={"idempotency-key": key} if key else {})


def around_today() -> dict[str, str]:
    """Yesterday to tomorrow, so that midnight may come between two calls."""
    today = datetime.now(ZONE).date()
    return {"from": (today - timedelta(days=1)).isoformat(), "to": (today + timedelta(days=1)).isoformat()}


def refused(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


@pytest.fixture(scope="module", autouse=True)
def at_first(admin: Admin, gateway: Process) -> Series:
    """The scrape before anything was reconciled; then two exact calls, an image and an estimate."""
    series = scraped(gateway.url)
    key = admin.key("reconciled")["key"]
    for path, body in (
        ("chat-completions", chat("one")),
        ("chat-completions", chat("two [[fault:no_usage]]")),
        ("texttoimage", {"model": "realvision", "prompt": "a fox"}),
    ):
        assert 200 == admin.http.post(f"/api/{path}/", json=body, headers=bearer(key)).status_code
    return series


def test_the_drift_is_the_ledger_less_the_bill(stack: Stack, admin: Admin) -> None:
    """With the emulator's own bill as MiniToolAI's figure: all that can be off is what was estimated."""
    entries = admin.ledger()
    ledger = sum(entry["cost_nano_usd"] for entry in entries)
    (guess,) = [entry for entry in entries if entry["flags"]]
    billed = {line["request_id"]: line["generated_nano_usd"] for line in stack.bill()["lines"]}
    found = reconcile(admin, **around_today(), billed_usd=format_usd(sum(billed.values())))
    assert 201 == found.status_code
    body = found.json()
    assert (ledger, format_usd(ledger)) == (body["ledger_nano_usd"], body["ledger_usd"])
    assert guess["cost_nano_usd"] - billed[guess["request_id"]] == body["drift_nano_usd"]
    assert (guess["cost_nano_usd"], 1) == (body["estimated_nano_usd"], body["flagged"])
    share = guess["cost_nano_usd"] * 10_000 // ledger
    assert f"{share // 100}.{share % 100:02d}" == body["estimated_percent"]


def test_a_drift_has_a_sign(admin: Admin) -> None:
    """Above zero the ledger has more; a nano-dollar is enough."""
    ledger = sum(entry["cost_nano_usd"] for entry in admin.ledger())
    for billed, drift, text in ((ledger, 0, "0.00"), (ledger + 1, -1, "-0.000000001"), (ledger - 1, 1, "0.000000001")):
        found = reconcile(admin, **around_today(), billed_usd=format_usd(billed)).json()
        assert (drift, text) == (found["drift_nano_usd"], found["drift_usd"])


def test_the_metric_is_the_latest_drift(admin: Admin, gateway: Process, at_first: Series) -> None:
    """Absent before the first, signed, in nano-dollars."""
    assert DRIFT not in at_first
    ledger = reconcile(admin, **around_today(), billed_usd="0.00").json()["ledger_nano_usd"]
    assert ledger == scraped(gateway.url)[DRIFT] > 0
    reconcile(admin, **around_today(), billed_usd=format_usd(ledger + 7))
    assert -7 == scraped(gateway.url)[DRIFT]


def test_a_date_is_a_whole_local_day_and_an_instant_is_itself(admin: Admin) -> None:
    """The answer has the instants, so nobody has to guess which calls were counted: those admitted between them."""
    days = reconcile(admin, **{"from": "2026-01-01", "to": "2026-01-31"}, billed_usd="0.00").json()
    assert ("2025-12-31T17:00:00Z", "2026-01-31T17:00:00Z") == (days["from"], days["to"])
    assert (0, None, 0) == (days["ledger_nano_usd"], days["estimated_percent"], days["flagged"])
    admitted = [entry["admitted_at"] for entry in admin.ledger(team="reconciled")]
    cost = admin.ledger(team="reconciled")[0]["cost_nano_usd"]
    span = {"from": admitted[0], "to": admitted[1]}
    found = reconcile(admin, **span, billed_usd=format_usd(cost)).json()
    assert (span["from"], span["to"], cost, 0) == tuple(
        found[name] for name in ("from", "to", "ledger_nano_usd", "drift_nano_usd")
    )


def test_what_was_found_is_listed_with_who_looked_and_why(admin: Admin) -> None:
    """The newest first, page by page."""
    made = [reconcile(admin, **around_today(), billed_usd="0.00", note=f"hoá đơn {n}").json() for n in range(3)]
    assert [("admin", f"hoá đơn {n}") for n in range(3)] == [(one["author"], one["note"]) for one in made]
    first = admin.get("/reconciliation", limit="2")
    rest = admin.get("/reconciliation", limit="1", cursor=first["next_cursor"])
    assert list(reversed(made)) == first["data"] + rest["data"]


def test_a_repeat_is_answered_with_what_was_found_first(admin: Admin) -> None:
    """Whatever the ledger has by now; the same key for another figure says so."""
    span = around_today()
    first = reconcile(admin, "key-1", **span, billed_usd="1.00")
    key = admin.key("reconciled")["key"]
    admin.http.post("/api/chat-completions/", json=chat(), headers=bearer(key))
    again = reconcile(admin, "key-1", **span, billed_usd="1.00")
    assert (first.content, "true") == (again.content, again.headers["idempotent-replayed"])
    other = reconcile(admin, "key-1", **span, billed_usd="1.01")
    assert (409, "idempotency_conflict", "Idempotency-Key") == refused(other)


SPAN = {"from": "2026-01-01", "to": "2026-01-31"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (400, "invalid_request", "from")),
        ({"from": "2026-01-01", "billed_usd": "1"}, (400, "invalid_request", "to")),
        (SPAN, (400, "invalid_request", "billed_usd")),
        *[({**SPAN, "billed_usd": wrong}, (400, "invalid_request", "billed_usd"))
          for wrong in (1, 1.5, "-1", "1e3", "0.0000000001", "9000000.01", "", None)],
        *[({**SPAN, "from": wrong, "billed_usd": "1"}, (400, "invalid_request", "from"))
          for wrong in ("", "January", "2026-13-01", "2026-02-30", "2026-01-01T00:00:00", 20260101, "2026-02-01",
                        "2999-01-01")],
        ({"from": "2999-01-01", "to": "2999-01-02", "billed_usd": "1"}, (400, "invalid_request", "from")),
        ({"from": "2020-01-01", "to": "2026-01-31", "billed_usd": "1"}, (400, "invalid_request", "to")),
        ({**SPAN, "billed_usd": "1", "note": "a\nb"}, (400, "invalid_request", "note")),
        ({**SPAN, "billed_usd": "1", "model": "gpt-4o"}, (400, "unknown_field", "model")),
        ({**SPAN, "billed_usd": "1", "org": "other"}, (403, "permission_denied", "org")),
    ],
)  # fmt: skip
def test_a_wrong_figure_names_its_field(
    admin: Admin, body: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    """And leaves no entry."""
    before = admin.get("/reconciliation", limit="1")
    assert expected == refused(reconcile(admin, **body))
    assert before == admin.get("/reconciliation", limit="1")


@pytest.mark.parametrize(
    ("role", "reads", "writes"),
    [("admin", 200, 201), ("auditor", 200, 403), ("team_admin", 403, 403), ("member", 403, 403)],
)
def test_administrators_enter_and_auditors_read(
    admin: Admin, gateway: Process, role: str, reads: int, writes: int
) -> None:
    """What the organisation was billed is nobody else's business."""
    key = admin.key("reconcilers", role=role)
    with httpx.Client(base_url=gateway.url, headers=bearer(key["key"])) as http:
        assert reads == http.get("/admin/v1/reconciliation").status_code
        body = {**around_today(), "billed_usd": "1.00"}
        assert writes == http.post("/admin/v1/reconciliation", json=body).status_code
