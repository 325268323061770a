"""Wrong keys leave a trace and slow down where they come from; who has the right one from elsewhere notices nothing."""

import json
import re
import secrets
import string
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from gateway.billing.principal import SECRET_CHARS, make_sub_key
from tests.dashboard.conftest import Visit
from tests.stack import ADMIN_KEY, Process, Stack, bearer


@pytest.fixture(scope="module")
def gateway(stack: Stack) -> Process:
    """Behind a proxy: the tests, each of which says another address."""
    return stack.gateway(trusted_proxies="127.0.0.0/8")


def from_address(gateway: Process, address: str, **headers: str) -> Visit:
    return Visit(gateway.url, **{"x-forwarded-for": f"8.8.8.8, {address}", **headers})


def failed_logins(gateway: Process) -> dict[str, float]:
    text = httpx.get(f"{gateway.url}/metrics", headers=bearer(ADMIN_KEY)).text
    return {code: float(count) for code, count in re.findall(r'failed_logins_total\{code="(\w+)"\} (\S+)', text)}


def logged(gateway: Process, address: str) -> list[dict[str, Any]]:
    lines = [line[line.index("{") :] for line in gateway.output.splitlines() if '"event":"failed_login"' in line]
    return [line for line in map(json.loads, lines) if line["address"] == address]


def made_up_key() -> str:
    """Well spelled, and nobody's: it takes a look into Redis to know."""
    return make_sub_key("default", "".join(secrets.choice(string.ascii_letters) for _ in range(SECRET_CHARS)))


def test_repeated_failures_from_one_address_are_slowed(gateway: Process) -> None:
    """Ten are looked at; then not even the right key is, while from elsewhere it opens."""
    guesser = from_address(gateway, "203.0.113.9", **{"accept-language": "vi"})
    before = failed_logins(gateway)
    guesses = [guesser.log_in(f"wrong-key-{number}") for number in range(10)]
    assert [401] * 10 == [answer.status_code for answer in guesses]
    for key in ("wrong-key-again", ADMIN_KEY):
        slowed = guesser.log_in(key)
        assert (429, False) == (slowed.status_code, "set-cookie" in slowed.headers)
        assert 1 <= int(slowed.headers["retry-after"]) <= 6
        assert "Địa chỉ này đã gửi quá nhiều khóa không hợp lệ." in slowed.text
        assert "no-store" == slowed.headers["cache-control"]
    assert 303 == from_address(gateway, "203.0.113.10").log_in(ADMIN_KEY).status_code
    after = failed_logins(gateway)
    assert (10, 2) == tuple(after[code] - before[code] for code in ("invalid_api_key", "too_many_failures"))


def test_guesses_at_the_same_time_are_no_way_round(gateway: Process) -> None:
    """Each is counted before it is looked at, and the look takes its time."""
    keys = [made_up_key() for _ in range(30)]
    with ThreadPoolExecutor(15) as pool:
        visit = from_address(gateway, "203.0.113.20")
        answers = list(pool.map(lambda key: visit.log_in(key).status_code, keys))
    assert {401: 10, 429: 20} == {status: answers.count(status) for status in set(answers)}


def test_a_failed_login_is_a_line_in_the_log(gateway: Process) -> None:
    """Why and from where, and nothing of the key."""
    key = made_up_key()
    assert 401 == from_address(gateway, "203.0.113.30").log_in(key).status_code
    assert 401 == from_address(gateway, "203.0.113.30").log_in("").status_code
    assert 303 == from_address(gateway, "203.0.113.30").log_in(ADMIN_KEY).status_code
    lines = logged(gateway, "203.0.113.30")
    assert ["invalid_api_key", "missing_api_key"] == [line["error"] for line in lines]
    assert {"at", "event", "error", "address"} == set(lines[0])
    assert key not in gateway.output
    assert ADMIN_KEY not in gateway.output


def test_those_who_log_in_are_never_slowed(gateway: Process) -> None:
    """A whole office comes from one address."""
    office = from_address(gateway, "203.0.113.40")
    assert [303] * 15 == [office.log_in(ADMIN_KEY).status_code for _ in range(15)]
