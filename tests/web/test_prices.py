"""`/admin/v1/prices`: what is taken and answered; the organisation's days are Vietnam's here."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from tests.stack import Admin, bearer

CHAT = {"model": "gpt-4o", "kind": "chat", "input_usd_per_million": "3.00", "output_usd_per_million": "12.00"}


def day(ahead: int) -> str:
    """A date so many days from now, in Vietnam."""
    return (datetime.now(ZoneInfo("Asia/Ho_Chi_Minh")).date() + timedelta(days=ahead)).isoformat()


def enter(admin: Admin, key: str | None = None, **body: Any) -> httpx.Response:
    return admin.http.post("/admin/v1/prices", json=body, headers={"idempotency-key": key} if key else {})


def refused(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


def test_the_file_is_what_is_in_force_at_first(admin: Admin) -> None:
    """Every model of it, since ever; entered by the file."""
    page = admin.get("/prices", state="current", limit="1000")
    listed = {row["model"]: row for row in page["data"]}
    assert 20 == len(listed)
    mini = {name: value for name, value in listed["gpt-4o-mini"].items() if name not in ("price", "at", "model")}
    assert {
        "kind": "chat", "effective_from": None, "input_usd_per_million": "0.15", "cached_usd_per_million": "0.15",
        "output_usd_per_million": "0.60", "context_tokens": 128000, "output_tokens": 16384, "image_tokens_low": 2833,
        "image_tokens_high": 48169, "image_tile_tokens": 5667, "note": "", "author": "price file", "state": "current",
    } == mini  # fmt: skip
    assert ("image", "0.0015") == (listed["realvision"]["kind"], listed["realvision"]["usd"])
    assert 12 == len(page["version"])


def test_a_price_begins_with_its_day_where_the_organisation_is(admin: Admin) -> None:
    """At its first instant; sizes stay; it is told with who entered it and why, and when the list changes next."""
    made = enter(admin, **CHAT, effective_from=day(3), note="mail")
    assert 201 == made.status_code
    begins = datetime.fromisoformat(f"{day(3)}T00:00:00+07:00").astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    row = made.json()
    assert (begins, "3.00", "3.00", "12.00", 128000, "mail", "admin") == tuple(
        row[name]
        for name in (
            "effective_from", "input_usd_per_million", "cached_usd_per_million", "output_usd_per_million",
            "context_tokens", "note", "author",
        )
    )  # fmt: skip
    page = admin.get("/prices", model="gpt-4o")
    assert ["current", "upcoming"] == [one["state"] for one in page["data"]]
    assert row | {"state": "upcoming"} == page["data"][1]
    assert page["next_change_at"] <= begins


def test_a_price_is_entered_once_for_its_key(admin: Admin) -> None:
    """Sent again it is answered as the first time, and marked; another price under the key is refused."""
    body = {"model": "campursari", "usd": "0.002", "effective_from": day(5)}
    first, again = enter(admin, "price-1", **body), enter(admin, "price-1", **body)
    assert (201, None) == (first.status_code, first.headers.get("idempotent-replayed"))
    assert (first.json(), "true") == (again.json(), again.headers.get("idempotent-replayed"))
    other = enter(admin, "price-1", **body | {"usd": "0.003"})
    assert (409, "idempotency_conflict", "Idempotency-Key") == refused(other)
    assert 2 == len(admin.get("/prices", model="campursari")["data"])


def test_what_was_entered_wrongly_is_replaced_before_it_begins(admin: Admin) -> None:
    """Both stay in the list; by default only what counts is shown."""
    for usd in ("9", "0.003"):
        assert 201 == enter(admin, model="reality", usd=usd, effective_from=day(4)).status_code
    assert [("current", "0.0015"), ("upcoming", "0.003")] == [
        (row["state"], row["usd"]) for row in admin.get("/prices", model="reality")["data"]
    ]
    assert ["9.00"] == [row["usd"] for row in admin.get("/prices", model="reality", state="replaced")["data"]]
    assert [] == admin.get("/prices", model="reality", state="past")["data"]


def test_a_model_may_be_withdrawn_and_a_new_one_announced(admin: Admin) -> None:
    """Neither needs the other's fields; a new one needs its sizes."""
    gone = enter(admin, model="simplemix", withdrawn=True, effective_from=day(4)).json()
    assert (True, False) == (gone["withdrawn"], "usd" in gone)
    sizes: dict[str, Any] = {"context_tokens": 10, "output_tokens": 5, "image_tokens_low": 1, "image_tokens_high": 2}
    new = CHAT | {"model": "gpt-6", "effective_from": day(4)}
    assert (400, "invalid_request", "context_tokens") == refused(enter(admin, **new))
    assert 201 == enter(admin, **new, **sizes).status_code
    assert ["upcoming"] == [row["state"] for row in admin.get("/prices", model="gpt-6")["data"]]


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"effective_from": "2020-01-01"}, "invalid_request", "effective_from"),
        ({"effective_from": None}, "invalid_request", "effective_from"),
        ({"effective_from": "soon"}, "invalid_request", "effective_from"),
        ({"effective_from": "2027-02-30"}, "invalid_request", "effective_from"),
        ({"effective_from": 1}, "invalid_request", "effective_from"),
        ({"model": None}, "invalid_request", "model"),
        ({"model": "a|b"}, "invalid_request", "model"),
        ({"kind": "speech"}, "invalid_request", "kind"),
        ({"kind": "image"}, "invalid_request", "kind"),
        ({"input_usd_per_million": 3}, "invalid_request", "input_usd_per_million"),
        ({"input_usd_per_million": "-3"}, "invalid_request", "input_usd_per_million"),
        ({"input_usd_per_million": "1e400000000"}, "invalid_request", "input_usd_per_million"),
        ({"output_usd_per_million": None}, "invalid_request", "output_usd_per_million"),
        ({"output_usd_per_million": "0.0000001"}, "invalid_request", "output_usd_per_million"),
        ({"context_tokens": 0}, "invalid_request", "context_tokens"),
        ({"usd": "1"}, "invalid_request", "usd"),
        ({"withdrawn": True}, "invalid_request", "withdrawn"),
        ({"withdrawn": "yes"}, "invalid_request", "withdrawn"),
        ({"note": "a\nb"}, "invalid_request", "note"),
        ({"price": "3"}, "unknown_field", "price"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_entered(
    admin: Admin, change: dict[str, Any], code: str, param: str
) -> None:
    """A price that is read wrongly is wrong on every bill."""
    every = "current,upcoming,past,replaced"
    before = admin.get("/prices", state=every, limit="1000")["data"]
    assert (400, code, param) == refused(enter(admin, **CHAT | {"effective_from": day(9)} | change))
    assert before == admin.get("/prices", state=every, limit="1000")["data"]


def test_an_auditor_reads_and_nobody_else_does(admin: Admin) -> None:
    """Nor enters anything: only administrators do."""
    for role, reads in (("auditor", 200), ("member", 403), ("team_admin", 403)):
        key = bearer(admin.key("pricing", role=role)["key"])
        assert reads == httpx.get(f"{admin.http.base_url}/admin/v1/prices", headers=key).status_code
        body = CHAT | {"effective_from": day(9)}
        assert 403 == httpx.post(f"{admin.http.base_url}/admin/v1/prices", json=body, headers=key).status_code


def test_a_list_is_read_page_by_page(admin: Admin) -> None:
    """Oldest first, each once; what cannot be asked is refused."""
    rows, cursor = [], ""
    while True:
        page = admin.get("/prices", limit="7", state="current", **({"cursor": cursor} if cursor else {}))
        rows += [row["price"] for row in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert 20 == len(set(rows)) == len(rows)
    for query, param in (("state=now", "state"), ("limit=0", "limit"), ("cursor=x", "cursor"), ("at=1", "at")):
        assert (400, "invalid_request", param) == refused(admin.http.get(f"/admin/v1/prices?{query}"))
    assert (403, "permission_denied", "org") == refused(admin.http.get("/admin/v1/prices?org=other"))
