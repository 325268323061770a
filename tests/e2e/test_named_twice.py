"""An upstream that names one image job twice: it is the first one's, and nobody is given back another's money."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from gateway.billing.ledger import violations
from tests.books import read_books
from tests.e2e.client import IMAGES, JOBS, Answer, send
from tests.e2e.waiting import until
from tests.stack import Admin, Process, Stack

PRICE_NANO_USD = 1_500_000


@dataclass(frozen=True)
class Painters:
    """Two teams at one gateway that leaves jobs to who asked for them."""

    stack: Stack
    gateway: Process
    admin: Admin
    first: str
    second: str

    def submit(self, key: str) -> Answer:
        """In MiniToolAI's shape."""
        return send(self.gateway.url, IMAGES, {"model": "dreamshaper", "prompt": "A lake"}, key)

    def ask(self, key: str, count: int = 1) -> Answer:
        """In OpenAI's shape."""
        body = {"model": "dreamshaper", "prompt": "A lake", "n": count}
        return send(self.gateway.url, "/v1/images/generations", body, key)

    def order(self, fault: str) -> None:
        """The next submission at the emulator meets a fault."""
        self.stack.emulator.post("/__faults", json={"fault": fault, "kind": "image"})

    def fail(self, job: Answer) -> None:
        """Poll a job until the upstream says that it failed, and its owner has its refund."""
        pair = {name: job.json[name] for name in ("jobid", "signature")}
        while send(self.gateway.url, JOBS, pair).json["status"] != "error":
            continue
        until(lambda: REFUNDED in self.entries(job))

    def entries(self, call: Answer) -> "list[Told]":
        entries = self.admin.ledger(request_id=call.request_id)
        return [(entry["type"], entry["cost_nano_usd"], entry["flags"]) for entry in entries]


@pytest.fixture
def painters(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Painters]:
    gateway = stack.gateway(job_first_poll_s="3600")
    admin = Admin(gateway.url)
    yield Painters(stack, gateway, admin, admin.key("first")["key"], admin.key("second")["key"])
    assert [] == violations(read_books(stack.redis_url))


Told = tuple[str, int, list[str]]

CHARGED: Told = ("capture", PRICE_NANO_USD, [])
REFUNDED: Told = ("refund", -PRICE_NANO_USD, [])
NOT_ITS_OWN: Told = ("capture", PRICE_NANO_USD, ["anomaly"])


def test_another_teams_job_is_neither_waited_for_nor_refunded(painters: Painters) -> None:
    """The second team's call hears so at once, and stays charged; the refund is the first one's."""
    painters.order("job_fails")
    first = painters.submit(painters.first)
    painters.order("job_again")
    second = painters.ask(painters.second)
    assert (502, "upstream_error", "false", "0.0015") == (
        second.status,
        second.error["code"],
        second.headers["x-should-retry"],
        second.headers["x-gateway-cost-usd"],
    )
    (failed,) = second.error["failed"]
    assert ("0.0015", "0.00") == (failed["cost_usd"], failed["refunded_usd"])
    assert "another one's" in failed["message"]
    painters.fail(first)
    assert [CHARGED, REFUNDED] == painters.entries(first)
    assert [NOT_ITS_OWN] == painters.entries(second)


def test_on_minitoolais_path_another_teams_job_is_not_refunded_either(painters: Painters) -> None:
    """Its answer passes as it is; the books say that something is wrong with it."""
    painters.order("job_fails")
    first = painters.submit(painters.first)
    painters.order("job_again")
    second = painters.submit(painters.second)
    assert (200, first.json) == (second.status, second.json)
    painters.fail(first)
    assert [CHARGED, REFUNDED] == painters.entries(first)
    assert [NOT_ITS_OWN] == painters.entries(second)


def test_one_job_for_two_images_of_a_call_gives_back_one(painters: Painters) -> None:
    """The answer says what the ledger says: two were charged, one came back."""
    painters.order("job_fails")
    painters.order("job_again")
    answer = painters.ask(painters.first, 2)
    assert (502, "0.0015", "false") == (
        answer.status,
        answer.headers["x-gateway-cost-usd"],
        answer.headers["x-should-retry"],
    )
    assert "of the $0.003 charged $0.0015 was given back" in answer.error["message"]
    assert ["0.00", "0.0015"] == sorted(failed["refunded_usd"] for failed in answer.error["failed"])
    assert [("capture", 2 * PRICE_NANO_USD, ["anomaly"]), REFUNDED] == painters.entries(answer)
