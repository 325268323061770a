"""Credits and alerts over HTTP: who may, what is taken, what is answered, and that a repeat pays nothing."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.stack import Admin, Process, bearer, chat

PREPAID = [{"window": "prepaid", "soft_percent": [50]}]


def pay(admin: Admin, key: str | None = None, **body: Any) -> httpx.Response:
    headers = {"idempotency-key": key} if key else {}
    return admin.http.post("/admin/v1/credits", json={"scope": "team", "amount_usd": "10.00", **body}, headers=headers)


def team(admin: Admin, name: str, **settings: Any) -> dict[str, Any]:
    return admin.post("/teams", {"id": name, "budgets": PREPAID, **settings})


def refused(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


def test_a_prepaid_budget_shows_what_was_paid_in(admin: Admin) -> None:
    """It has no limit of its own, and neither begins nor resets."""
    (empty,) = team(admin, "topped")["budgets"]
    assert "limit_usd" not in empty
    answer = pay(admin, id="topped", note="November")
    assert 201 == answer.status_code
    body = answer.json()
    assert ("credit", "team", "topped", None, "November") == tuple(
        body[name] for name in ("type", "scope", "id", "from", "note")
    )
    (budget,) = admin.get("/teams/topped")["budgets"]
    assert {
        "window": "prepaid",
        "soft_percent": [50],
        **{f"{name}_usd": "10.00" for name in ("paid_in", "remaining")},
        **{f"{name}_nano_usd": 10_000_000_000 for name in ("paid_in", "remaining")},
        **{f"{name}_usd": "0.00" for name in ("spent", "held")},
        **{f"{name}_nano_usd": 0 for name in ("spent", "held")},
        "starts_at": None,
        "resets_at": None,
    } == budget
    assert {name: budget[name] for name in budget if name.endswith("_usd")}.items() <= body.items()


def test_the_ledger_says_who_paid_and_why(admin: Admin) -> None:
    """The same entry in the ledger and in the list of credits; reports know nothing of it."""
    team(admin, "listed")
    paid = pay(admin, id="listed", note="Tháng mười một").json()
    (entry,) = admin.get("/credits", team="listed")["data"]
    assert [entry] == admin.ledger(team="listed", type="credit")
    assert (paid["entry"], paid["credit"], "credit", "admin", "Tháng mười một") == tuple(
        entry[name] for name in ("id", "hold_id", "type", "author", "note")
    )
    assert ("10.00", 0, None, None, None) == tuple(
        entry[name] for name in ("credit_usd", "cost_nano_usd", "user", "key", "model")
    )
    assert [] == [row for row in admin.get("/usage", group_by="team")["data"] if row["team"] == "listed"]


def test_a_transfer_moves_credit_between_siblings(admin: Admin) -> None:
    """Teams of the organisation, users of a team, keys of a user; nobody else's."""
    for name in ("giver", "taker"):
        team(admin, name)
        for user in ("a", "b"):
            admin.post("/users", {"id": f"{name}-{user}", "team": name, "budgets": PREPAID})
    pay(admin, id="giver")
    moved = pay(admin, id="taker", amount_usd="4.00", **{"from": "giver"}).json()
    assert ("transfer", "giver", "4.00") == tuple(moved[name] for name in ("type", "from", "paid_in_usd"))
    assert "6.00" == admin.get("/teams/giver")["budgets"][0]["remaining_usd"]
    short = pay(admin, id="taker", amount_usd="6.01", **{"from": "giver"})
    assert (402, "credit_exhausted", "amount_usd") == refused(short)
    assert "Team giver has $6.00 of credit" in short.json()["error"]["message"]
    assert "false" == short.headers["x-should-retry"]
    pay(admin, scope="user", id="giver-a")
    assert 201 == pay(admin, scope="user", id="giver-b", **{"from": "giver-a"}).status_code
    stranger = pay(admin, scope="user", id="taker-a", **{"from": "giver-b"})
    assert (400, "invalid_request", "from") == refused(stranger)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"id": "nobody"}, (404, "not_found", None)),
        ({"id": "unpaid"}, (400, "invalid_request", "id")),
        ({"id": "payee", "from": "nobody"}, (404, "not_found", None)),
        ({"id": "payee", "from": "payee"}, (400, "invalid_request", "from")),
        ({"id": "payee", "from": 1}, (400, "invalid_request", "from")),
        ({"id": "payee", "scope": "month"}, (400, "invalid_request", "scope")),
        ({"id": "payee", "scope": "organisation"}, (404, "not_found", None)),
        ({"id": "default", "scope": "organisation"}, (400, "invalid_request", "id")),
        ({"id": "A"}, (400, "invalid_request", "id")),
        ({}, (400, "invalid_request", "id")),
        *[({"id": "payee", "amount_usd": wrong}, (400, "invalid_request", "amount_usd"))
          for wrong in (None, 10, "0", "0.00", "-1", "1e3", "0.0000000001", "9000000.01", "")],
        ({"id": "payee", "note": "a\nb"}, (400, "invalid_request", "note")),
        ({"id": "payee", "note": "n" * 501}, (400, "invalid_request", "note")),
        ({"id": "payee", "to": "x"}, (400, "unknown_field", "to")),
        ({"id": "payee", "org": "other"}, (403, "permission_denied", "org")),
    ],
)  # fmt: skip
def test_a_wrong_credit_names_its_field(
    admin: Admin, body: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    """And pays nothing."""
    admin.http.post("/admin/v1/teams", json={"id": "payee", "budgets": PREPAID})
    admin.http.post("/admin/v1/teams", json={"id": "unpaid"})
    assert expected == refused(pay(admin, **body))
    assert "0.00" == admin.get("/teams/payee")["budgets"][0]["paid_in_usd"]


def test_a_repeat_is_answered_and_not_paid(admin: Admin) -> None:
    """Fifty times at once and once more later, when the balance is another: one payment, one answer."""
    team(admin, "repeated")
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: pay(admin, "key-1", id="repeated"), range(50)))
    pay(admin, id="repeated")
    answers.append(pay(admin, "key-1", id="repeated"))
    assert {201} == {answer.status_code for answer in answers}
    assert 1 == len({answer.content for answer in answers})
    assert 50 == sum(answer.headers.get("idempotent-replayed") == "true" for answer in answers)
    assert "20.00" == admin.get("/teams/repeated")["budgets"][0]["paid_in_usd"]


def test_a_key_stands_for_one_credit(admin: Admin) -> None:
    """The same key for something else is a mistake, and says so; another administrator's key is another one."""
    team(admin, "conflicting")
    pay(admin, "key-2", id="conflicting")
    other = pay(admin, "key-2", id="conflicting", amount_usd="10.01")
    assert (409, "idempotency_conflict", "Idempotency-Key") == refused(other)
    assert "false" == other.headers["x-should-retry"]
    same = pay(admin, "key-2", id="conflicting", amount_usd="10")
    assert "true" == same.headers["idempotent-replayed"]
    second = admin.key("admins", id="admin", role="admin")
    theirs = httpx.post(
        f"{admin.http.base_url}/admin/v1/credits",
        json={"scope": "team", "id": "conflicting", "amount_usd": "1"},
        headers=bearer(second["key"]) | {"idempotency-key": "key-2"},
    )
    assert (201, None) == (theirs.status_code, theirs.headers.get("idempotent-replayed"))
    assert ["admin", "key admin"] == [entry["author"] for entry in admin.get("/credits", team="conflicting")["data"]]


@pytest.mark.parametrize("key", ["", "a b", "k" * 256])
def test_a_key_that_is_none_is_refused(admin: Admin, key: str) -> None:
    """A client that believes in its key must not pay twice under none."""
    team_id = "keyless"
    admin.http.post("/admin/v1/teams", json={"id": team_id, "budgets": PREPAID})
    body = {"scope": "team", "id": team_id, "amount_usd": "1"}
    answer = admin.http.post("/admin/v1/credits", json=body, headers={"idempotency-key": key})
    assert (400, "invalid_request", "Idempotency-Key") == refused(answer)


def test_only_administrators_pay(admin: Admin, gateway: Process) -> None:
    """Auditors read; of others each reads what was paid to their own, and nobody's alerts."""
    team(admin, "roles")
    body = {"scope": "team", "id": "roles", "amount_usd": "1"}
    for role, reads_alerts in (("auditor", 200), ("team_admin", 403), ("member", 403)):
        headers = bearer(admin.key("roles", role=role)["key"])
        assert 403 == httpx.post(f"{gateway.url}/admin/v1/credits", json=body, headers=headers).status_code
        assert 200 == httpx.get(f"{gateway.url}/admin/v1/credits", headers=headers).status_code
        assert reads_alerts == httpx.get(f"{gateway.url}/admin/v1/alerts", headers=headers).status_code


def test_spent_credit_is_402_until_it_is_topped_up(admin: Admin, gateway: Process) -> None:
    """The refusal says what was paid in; the key's own page shows what is left."""
    key = admin.key("ahead", "ahead", budgets=PREPAID)

    def call() -> httpx.Response:
        return httpx.post(
            f"{gateway.url}/api/chat-completions/",
            json=chat("Hi [[fault:tokens=4]]", max_completion_tokens=4),
            headers=bearer(key["key"]),
            timeout=30,
        )

    empty = call()
    assert (402, "credit_exhausted", None) == refused(empty)
    assert "false" == empty.headers["x-should-retry"]
    error = empty.json()["error"]
    assert ("key", key["id"], "prepaid", "0.00", None) == tuple(
        error[name] for name in ("scope", "id", "window", "spent_usd", "resets_at")
    )
    assert "paid in" in error["message"]
    pay(admin, scope="key", id=key["id"], amount_usd=error["required_usd"])
    assert 200 == call().status_code
    me = httpx.get(f"{gateway.url}/v1/me", headers=bearer(key["key"])).json()
    (budget,) = me["scopes"][-1]["budgets"]
    (entry,) = admin.ledger(key=key["id"], type="capture")
    assert ["key"] == entry["paid_by"]
    assert ("prepaid", entry["cost_usd"], error["required_usd"]) == tuple(
        budget[name] for name in ("window", "spent_usd", "paid_in_usd")
    )


def test_a_threshold_is_logged_counted_and_kept(admin: Admin, gateway: Process) -> None:
    """Once, whatever is spent after it."""
    budgets = [{"window": "day", "limit_usd": "0.006", "soft_percent": [25]}]
    key = admin.key("warned", budgets=budgets)
    for _ in range(2):
        image = {"model": "realvision", "prompt": "a fox"}
        httpx.post(f"{gateway.url}/api/texttoimage/", json=image, headers=bearer(key["key"]), timeout=30)
    (alert,) = [alert for alert in admin.get("/alerts", limit="1000")["data"] if alert["id"] == key["id"]]
    assert ("key", "day", 25, "0.006", "0.0015") == tuple(
        alert[name] for name in ("scope", "window", "percent", "limit_usd", "spent_usd")
    )
    assert alert["starts_at"].endswith("T17:00:00Z")
    counted = admin.http.get("/metrics").text
    assert 'gateway_budget_thresholds_total{percent="25",scope="key",window="day"} 1.0' in counted
    assert 1 == gateway.output.count(
        f'"event":"threshold","scope":"key","id":"{key["id"]}","window":"day","percent":25'
    )


def test_alerts_are_paged(admin: Admin, gateway: Process) -> None:
    """The newest first; a cursor is an alert's id."""
    budgets = [{"window": "day", "limit_usd": "0.0015", "soft_percent": [10, 20, 30]}]
    key = admin.key("pages", budgets=budgets)
    image = {"model": "realvision", "prompt": "a fox"}
    httpx.post(f"{gateway.url}/api/texttoimage/", json=image, headers=bearer(key["key"]), timeout=30)
    seen, cursor = [], ""
    for _ in range(3):
        page = admin.get("/alerts", limit="1", **({"cursor": cursor} if cursor else {}))
        cursor = page["next_cursor"]
        seen += [(alert["id"], alert["percent"]) for alert in page["data"]]
    assert [(key["id"], percent) for percent in (30, 20, 10)] == seen
    assert (400, "invalid_request", "cursor") == refused(admin.http.get("/admin/v1/alerts", params={"cursor": "x"}))
