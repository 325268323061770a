"""`/admin/v1/upstream`: what is taken and answered, and that the outlook is the ledger's."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from gateway.billing.money import format_usd
from tests.stack import Admin, Process, Stack, bearer, chat
from tests.web.conftest import METRICS_TOKEN, Series, scraped

ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
BALANCE = "gateway_upstream_balance_estimated_usd"


def enter(admin: Admin, key: str | None = None, **body: Any) -> httpx.Response:
    return admin.http.post("/admin/v1/upstream", json=body, headers={"idempotency-key": key} if key else {})


def refused(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


@pytest.fixture(scope="module", autouse=True)
def at_first(admin: Admin, gateway: Process) -> tuple[dict[str, Any], Series]:
    """The answer and the scrape before anything was entered; a call is made before that, which no balance pays."""
    spend(admin, "upstream-before")
    return admin.get("/upstream"), scraped(gateway.url)


def spend(admin: Admin, team: str) -> int:
    """A chat call; what it cost."""
    key = admin.key(team)["key"]
    answer = admin.http.post("/api/chat-completions/", json=chat(), headers=bearer(key))
    assert 200 == answer.status_code
    cost: int = admin.ledger(team=team)[-1]["cost_nano_usd"]
    return cost


def spent(admin: Admin) -> int:
    return sum(entry["cost_nano_usd"] for entry in admin.ledger())


def test_before_a_top_up_there_is_no_balance(at_first: tuple[dict[str, Any], Series]) -> None:
    """Nor a day it runs out; what a day costs is known all the same. The metric has no sample, not 0."""
    answer, series = at_first
    assert ([], None, None, None, None) == tuple(
        answer[name]
        for name in ("data", "next_cursor", "balance_estimated_usd", "balance_estimated_nano_usd", "runs_out_on")
    )
    assert answer["burn_per_day_nano_usd"] > 0
    assert BALANCE not in series


def test_every_gateway_shows_the_balance(stack: Stack, admin: Admin, gateway: Process) -> None:
    """The same one: a call through one lowers it at the other, by what it cost."""
    second = stack.gateway(timezone="Asia/Ho_Chi_Minh", metrics_token=METRICS_TOKEN)
    assert 201 == enter(admin, balance_usd="10.00").status_code
    cost = spend(admin, "upstream-metric")
    assert [10_000_000_000 - cost] * 2 == [round(scraped(url)[BALANCE] * 1e9) for url in (gateway.url, second.url)]


def test_a_top_up_less_what_was_charged_is_left(admin: Admin) -> None:
    """To the nano-dollar, and told in both units; the newest entry is first."""
    assert "0.00" == enter(admin, balance_usd="0.00", note="new account").json()["balance_usd"]
    paid = enter(admin, amount_usd="25.00", note="Tháng mười một").json()
    assert ("top_up", "25.00", 25_000_000_000, "25.00", "Tháng mười một", "admin") == tuple(
        paid[name] for name in ("type", "amount_usd", "amount_nano_usd", "balance_usd", "note", "author")
    )
    cost = spend(admin, "upstream-after")
    shown = admin.get("/upstream", limit="1")
    assert [paid] == shown["data"]
    assert paid["entry"] == shown["next_cursor"]
    left = 25_000_000_000 - cost
    assert (left, format_usd(left)) == (shown["balance_estimated_nano_usd"], shown["balance_estimated_usd"])


def test_a_balance_says_by_how_much_the_estimate_was_off(admin: Admin) -> None:
    """The way to put a slip right: entries are never edited."""
    enter(admin, balance_usd="30.00")
    cost = spend(admin, "upstream-balance")
    entry = enter(admin, balance_usd="20.00").json()
    assert ("balance", "20.00", cost - 10_000_000_000) == tuple(
        entry[name] for name in ("type", "balance_usd", "amount_nano_usd")
    )
    assert "20.00" == admin.get("/upstream")["balance_estimated_usd"]


def test_the_day_it_runs_out_is_a_local_one(admin: Admin) -> None:
    """By what the last seven days cost a day; an organisation of minutes counts as one of a day."""
    burn = admin.get("/upstream")["burn_per_day_nano_usd"]
    assert spent(admin) == burn
    enter(admin, balance_usd=format_usd(burn * 10))
    before = datetime.now(ZONE).date()
    runs_out_on = admin.get("/upstream")["runs_out_on"]
    after = datetime.now(ZONE).date()
    assert runs_out_on in {(day + timedelta(days=10)).isoformat() for day in (before, after)}
    enter(admin, balance_usd="0.00")
    assert admin.get("/upstream")["runs_out_on"] in {before.isoformat(), datetime.now(ZONE).date().isoformat()}
    enter(admin, balance_usd="9000000.00")
    assert admin.get("/upstream")["runs_out_on"] is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (400, "invalid_request", "amount_usd")),
        *[({"amount_usd": wrong}, (400, "invalid_request", "amount_usd"))
          for wrong in (10, "0", "-1", "1e3", "9000000.01", "", True)],
        *[({"balance_usd": wrong}, (400, "invalid_request", "balance_usd")) for wrong in (0, "-1", "x", "9000000.01")],
        ({"amount_usd": "1", "balance_usd": "1"}, (400, "invalid_request", "balance_usd")),
        ({"amount_usd": "1", "note": "a\nb"}, (400, "invalid_request", "note")),
        ({"amount_usd": "1", "scope": "team"}, (400, "unknown_field", "scope")),
        ({"amount_usd": "1", "org": "other"}, (403, "permission_denied", "org")),
        ({"amount_usd": "9000000.00"}, (400, "invalid_request", "amount_usd")),
    ],
)  # fmt: skip
def test_a_wrong_entry_names_its_field(
    admin: Admin, body: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    """And is not entered."""
    enter(admin, balance_usd="1.00")
    before = admin.get("/upstream")
    assert expected == refused(enter(admin, **body))
    assert before == admin.get("/upstream")


def test_a_repeat_is_answered_and_not_entered(admin: Admin) -> None:
    """Many at once and once more later; the same key for something else says so. A credit's key is another one."""
    enter(admin, balance_usd="5.00")
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: enter(admin, "key-1", amount_usd="2.00"), range(30)))
    answers.append(enter(admin, "key-1", amount_usd="2"))
    assert ({201}, 1) == ({answer.status_code for answer in answers}, len({answer.content for answer in answers}))
    assert 30 == sum(answer.headers.get("idempotent-replayed") == "true" for answer in answers)
    assert "7.00" == admin.get("/upstream")["balance_estimated_usd"]
    assert (409, "idempotency_conflict", "Idempotency-Key") == refused(enter(admin, "key-1", balance_usd="2.00"))
    admin.post("/teams", {"id": "upstream-credit", "budgets": [{"window": "prepaid"}]})
    credit = {"scope": "team", "id": "upstream-credit", "amount_usd": "2.00"}
    paid = admin.http.post("/admin/v1/credits", json=credit, headers={"idempotency-key": "key-1"})
    assert (201, None) == (paid.status_code, paid.headers.get("idempotent-replayed"))


@pytest.mark.parametrize(
    ("role", "reads", "writes"),
    [("admin", 200, 201), ("auditor", 200, 403), ("team_admin", 403, 403), ("member", 403, 403)],
)
def test_administrators_enter_and_auditors_read(
    admin: Admin, gateway: Process, role: str, reads: int, writes: int
) -> None:
    """What the organisation has is nobody else's business."""
    key = admin.key("upstream-roles", role=role)
    with httpx.Client(base_url=gateway.url, headers=bearer(key["key"])) as http:
        assert reads == http.get("/admin/v1/upstream").status_code
        assert writes == http.post("/admin/v1/upstream", json={"amount_usd": "1.00"}).status_code
    if writes == 201:
        assert f"key {key['id']}" == admin.get("/upstream", limit="1")["data"][0]["author"]


def test_a_query_that_is_not_known_is_refused(admin: Admin) -> None:
    """A cursor that is none, too."""
    assert (400, "invalid_request", "team") == refused(admin.http.get("/admin/v1/upstream?team=x"))
    assert (400, "invalid_request", "cursor") == refused(admin.http.get("/admin/v1/upstream?cursor=x"))
    assert (403, "permission_denied", "org") == refused(admin.http.get("/admin/v1/upstream?org=other"))
