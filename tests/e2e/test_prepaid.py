"""Prepaid credit as clients meet it: two gateways, many callers, a gateway that is killed in between."""

import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

from gateway.billing.ledger import violations
from gateway.billing.principal import Scope
from tests.books import read_books
from tests.e2e.client import CHAT, IMAGES, Answer, send
from tests.stack import Admin, Process, Stack, chat

CALLERS = 200
AT_ONCE = 32
PREPAID = [{"window": "prepaid", "soft_percent": [50, 100]}]
IMAGE = {"model": "realvision", "prompt": "A tree"}


@dataclass(frozen=True)
class Office:
    """Two gateways on one Redis, and the administrator of each."""

    stack: Stack
    gateways: tuple[Process, Process]
    admins: tuple[Admin, Admin]

    def pay(self, team: str, usd: str, number: int = 0, *, key: str = "", source: str | None = None) -> httpx.Response:
        body = {"scope": "team", "id": team, "amount_usd": usd, "from": source}
        headers = {"idempotency-key": key} if key else {}
        return self.admins[number % 2].http.post("/admin/v1/credits", json=body, headers=headers)

    def send(self, path: str, body: object, key: str, number: int = 0) -> Answer:
        return send(self.gateways[number % 2].url, path, body, key)


@pytest.fixture(scope="module")
def office(stack: Stack) -> Office:
    gateways = (stack.gateway(), stack.gateway())
    return Office(stack, gateways, (Admin(gateways[0].url), Admin(gateways[1].url)))


def test_exactly_what_was_paid_in_is_served(office: Office) -> None:
    """Credit for forty images, two hundred callers through two gateways, and a transfer of credit that is not there in
    the middle of them: forty are drawn, and each threshold is told once."""
    admin = office.admins[0]
    key = admin.key("painters")["key"]
    for team in ("painters", "heirs"):
        admin.http.post("/admin/v1/teams", json={"id": team})
        admin.patch(f"/teams/{team}", {"budgets": PREPAID})
    assert 201 == office.pay("painters", "0.06").status_code

    def act(number: int) -> tuple[int, str]:
        if number % 10 == 9:
            moved = office.pay("heirs", "0.07", number, source="painters")
            return moved.status_code, moved.json()["error"]["code"]
        answer = office.send(IMAGES, IMAGE, key, number)
        return answer.status, "" if answer.status == 200 else answer.error["code"]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        counted = Counter(pool.map(act, range(CALLERS)))
    assert {(200, ""), (402, "credit_exhausted"), (429, "budget_held")} >= set(counted)
    assert 40 >= counted[200, ""]
    while office.send(IMAGES, IMAGE, key).status == 200:
        counted[200, ""] += 1
    assert 40 == counted[200, ""]
    (budget,) = admin.get("/teams/painters")["budgets"]
    assert ("0.06", "0.06", "0.00", "0.00") == tuple(
        budget[f"{name}_usd"] for name in ("paid_in", "spent", "held", "remaining")
    )
    alerts = [alert for alert in admin.get("/alerts", limit="1000")["data"] if alert["id"] == "painters"]
    assert [100, 50] == [alert["percent"] for alert in alerts]
    assert 2 == sum(
        gateway.output.count('"event":"threshold","scope":"team","id":"painters"') for gateway in office.gateways
    )
    assert [] == violations(read_books(office.stack.redis_url))


def test_a_stream_pays_from_credit(office: Office) -> None:
    """While it runs its bound is held, then what it cost is spent; what was held too much may go elsewhere."""
    admin = office.admins[0]
    key = admin.key("writers")["key"]
    admin.patch("/teams/writers", {"budgets": PREPAID})
    office.pay("writers", "1.00")
    admin.http.post("/admin/v1/teams", json={"id": "readers", "budgets": PREPAID})
    withheld = chat("Wait [[fault:withhold;tokens=4]]", max_completion_tokens=4)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(office.send, CHAT, withheld, key)
        office.stack.emulator.get("/__withheld", params={"at_least": "1"})
        all_of_it = office.pay("readers", "1.00", source="writers")
        assert (402, "credit_exhausted") == (all_of_it.status_code, all_of_it.json()["error"]["code"])
        office.stack.emulator.post("/__release")
        assert 200 == running.result().status
    (entry,) = admin.ledger(team="writers", type="capture")
    (budget,) = admin.get("/teams/writers")["budgets"]
    assert (["team"], entry["cost_nano_usd"], 0) == (
        entry["paid_by"],
        budget["spent_nano_usd"],
        budget["held_nano_usd"],
    )
    assert 201 == office.pay("readers", budget["remaining_usd"], source="writers").status_code
    assert "0.00" == admin.get("/teams/writers")["budgets"][0]["remaining_usd"]


def test_a_gateway_that_is_killed_pays_once(office: Office) -> None:
    """Credits under one key each, sent to a gateway that is killed meanwhile, then all of them to the others: each is
    paid once, whatever its first sender heard."""
    admin = office.admins[0]
    admin.post("/teams", {"id": "survivors", "budgets": PREPAID})
    doomed = office.stack.gateway()
    body = {"scope": "team", "id": "survivors", "amount_usd": "0.01"}

    def first(number: int) -> bool:
        try:
            with httpx.Client(base_url=doomed.url, headers=dict(admin.http.headers), timeout=30) as client:
                answer = client.post("/admin/v1/credits", json=body, headers={"idempotency-key": f"pay-{number}"})
        except httpx.TransportError:
            return False
        if number == 20:
            doomed.signal(signal.SIGKILL)
        return answer.status_code == 201

    with ThreadPoolExecutor(8) as pool:
        heard = sum(pool.map(first, range(100)))
    assert 0 < heard < 100
    for number in range(100):
        assert 201 == office.pay("survivors", "0.01", number, key=f"pay-{number}").status_code
    assert "1.00" == admin.get("/teams/survivors")["budgets"][0]["paid_in_usd"]
    assert 100 == len(admin.get("/credits", team="survivors", limit="1000")["data"])
    books = read_books(office.stack.redis_url)
    assert 1_000_000_000 == books.credit[Scope("team", "survivors")].paid_in_nano_usd
    assert [] == violations(books)
