"""Coming in, staying in, and being put out."""

from collections.abc import Iterator

import httpx
import pytest
import redis

from gateway.store.embedded import EmbeddedRedis
from tests.dashboard.conftest import Visit, logged_in
from tests.stack import ADMIN_KEY, Admin, Process, Stack

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


@pytest.fixture
def stranger(gateway: Process) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=30) as client:
        yield client


@pytest.mark.parametrize("path", ["", "/", "/teams", "/teams/red", "/keys/x", "/nowhere/at/all"])
def test_a_stranger_is_sent_to_the_form(stranger: httpx.Client, path: str) -> None:
    """Wherever they knock; and learns nothing of what is there."""
    answer = stranger.get(f"/dashboard{path}")
    assert (303, "/dashboard/login", "") == (answer.status_code, answer.headers["location"], answer.text)


def test_every_answer_keeps_foreign_code_out(gateway: Process, stranger: httpx.Client) -> None:
    """Pages, the form, redirects, faults and files alike; nothing of a page is written to a disk on the way."""
    visit = logged_in(gateway.url, ADMIN_KEY)
    form = stranger.get("/dashboard/login")
    for answer in (form, stranger.get("/dashboard"), visit.http.get("/dashboard"), visit.http.get("/dashboard/x/y/z")):
        assert POLICY == answer.headers["content-security-policy"]
        assert "no-store" == answer.headers["cache-control"]
        assert "nosniff" == answer.headers["x-content-type-options"]
        assert "<script>" not in answer.text
        assert "style=" not in answer.text
        assert not any(f" {name}=" in answer.text for name in ("onclick", "onload", "onerror"))
    style = form.text.split('rel="stylesheet" href="')[1].split('"')[0]
    sheet = stranger.get(style)
    assert (200, "text/css; charset=utf-8", POLICY) == (
        sheet.status_code,
        sheet.headers["content-type"],
        sheet.headers["content-security-policy"],
    )
    assert "immutable" in sheet.headers["cache-control"]


def test_the_cookie_is_out_of_reach(gateway: Process) -> None:
    """Of scripts, of other sites, of paths that are not the dashboard's; and of plain HTTP behind TLS."""
    plain = Visit(gateway.url).log_in(ADMIN_KEY).headers["set-cookie"].lower()
    assert "gateway-session=default." in plain
    for attribute in ("httponly", "samesite=strict", "path=/dashboard", "max-age=43200"):
        assert attribute in plain
    assert "secure" not in plain
    assert (
        "secure" in Visit(gateway.url, **{"x-forwarded-proto": "https"}).log_in(ADMIN_KEY).headers["set-cookie"].lower()
    )


def test_no_secret_is_in_the_cookie_or_in_redis(gateway: Process, admin: Admin, valkey: EmbeddedRedis) -> None:
    """Neither the key nor the token itself: who reads Redis cannot log in with what stands there."""
    key = admin.key("secrets")["key"]
    visit = logged_in(gateway.url, key)
    token = visit.http.cookies["gateway-session"]
    assert key not in token
    with redis.Redis.from_url(valkey.url) as client:
        names = [name.decode() for name in client.scan_iter("*")]
        values = [client.get(name) for name in names if ":session:" in name]
    assert values
    assert not any(token in name or key in name for name in names)
    assert not any(secret.encode() in value for value in values for secret in (token, key) if value)


@pytest.mark.parametrize("key", ["", "   ", "sk-mt-default-wrong", "не ключ", "x" * 5000])
def test_a_wrong_key_does_not_open(stranger: httpx.Client, key: str) -> None:
    """The form comes back, says so, and repeats nothing of what was typed."""
    answer = stranger.post("/dashboard/login", data={"key": key})
    assert (401, False) == (answer.status_code, "set-cookie" in answer.headers)
    assert 'role="alert"' in answer.text
    assert not key.strip() or key not in answer.text


@pytest.mark.parametrize("token", ["", "x", "default.", "default." + "A" * 43, "other." + "A" * 43, "default.é" * 9])
def test_a_made_up_session_is_none(stranger: httpx.Client, token: str) -> None:
    """Whatever it looks like."""
    answer = stranger.get("/dashboard", headers=[(b"cookie", f"gateway-session={token}".encode())])
    assert (303, "/dashboard/login") == (answer.status_code, answer.headers["location"])


def test_leaving_ends_the_session_itself(gateway: Process) -> None:
    """Not only in this browser: a copy of its cookie opens nothing any more."""
    visit = logged_in(gateway.url, ADMIN_KEY)
    copy = Visit(gateway.url)
    copy.http.cookies = httpx.Cookies(visit.http.cookies)
    assert 200 == copy.http.get("/dashboard").status_code
    left = visit.http.post("/dashboard/logout")
    assert (303, "/dashboard/login") == (left.status_code, left.headers["location"])
    assert "gateway-session" not in visit.http.cookies
    assert 303 == copy.http.get("/dashboard").status_code
    assert (
        405 == visit.http.get("/dashboard/logout").status_code or 303 == visit.http.get("/dashboard/logout").status_code
    )


@pytest.mark.parametrize("path", ["login", "logout"])
@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ],
)
def test_another_sites_form_does_nothing(gateway: Process, path: str, headers: dict[str, str]) -> None:
    """It logs nobody in (as somebody else) and nobody out."""
    visit = logged_in(gateway.url, ADMIN_KEY)
    answer = visit.http.post(f"/dashboard/{path}", data={"key": ADMIN_KEY}, headers=headers)
    assert (403, False) == (answer.status_code, "set-cookie" in answer.headers)
    assert 200 == visit.http.get("/dashboard").status_code
    own = {"sec-fetch-site": "same-origin", "origin": gateway.url}
    assert 303 == visit.http.post(f"/dashboard/{path}", data={"key": ADMIN_KEY}, headers=own).status_code


def test_a_session_is_no_better_than_its_key(gateway: Process, admin: Admin) -> None:
    """Blocked, expired or revoked, it closes at the next page; a blocked key opens no new one."""
    key = admin.key("closing", "mortal", id="mortal")
    visit = logged_in(gateway.url, key["key"])
    assert 200 == visit.http.get("/dashboard").status_code
    admin.post("/teams/closing/block")
    shut = visit.http.get("/dashboard")
    assert (303, "/dashboard/login") == (shut.status_code, shut.headers["location"])
    assert 403 == Visit(gateway.url).log_in(key["key"]).status_code
    admin.post("/teams/closing/unblock")
    visit = logged_in(gateway.url, key["key"])
    admin.post("/keys/mortal/revoke")
    assert 303 == visit.http.get("/dashboard").status_code
    assert 401 == Visit(gateway.url).log_in(key["key"]).status_code


def test_gateways_on_one_redis_know_each_others_sessions(gateway: Process, stack: Stack) -> None:
    """Behind a balancer every request may meet another one."""
    other = stack.gateway(timezone="Asia/Ho_Chi_Minh")
    visit = logged_in(gateway.url, ADMIN_KEY)
    token = visit.http.cookies["gateway-session"]
    answer = httpx.get(f"{other.url}/dashboard", headers={"cookie": f"gateway-session={token}"})
    assert 200 == answer.status_code
