"""POST /v1/images/generations: one hold for n jobs, charged and refunded exactly; the answer says what failed."""

import base64
import contextlib
import json
import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import redis

from gateway.billing.ledger import violations
from tests.books import read_books
from tests.e2e.client import Answer, send, stream
from tests.e2e.waiting import until
from tests.stack import UPSTREAM_KEY, Admin, Process, Stack

IMAGES = "/v1/images/generations"
PRICE_NANO_USD = 1_500_000
NEVER_S = "3600"


@dataclass(frozen=True)
class Painter:
    """One sub-key of a team of its own."""

    stack: Stack
    gateway: Process
    admin: Admin
    team: str
    secret: str

    def ask(
        self, count: int = 1, prompt: str = "A lake", headers: Mapping[str, str] | None = None, **more: Any
    ) -> Answer:
        body = {"model": "dreamshaper", "prompt": prompt, "n": count, **more}
        return send(self.gateway.url, IMAGES, body, self.secret, headers)

    def request(self, request_id: str) -> dict[str, Any]:
        """What its owner is told of a call."""
        with stream(self.gateway.url, f"/v1/requests/{request_id}", b"", self.secret, method="GET") as answer:
            assert 200 == answer.status
            told: dict[str, Any] = json.loads(answer.read_rest())
            return told

    def entries(self) -> list[tuple[str, int]]:
        return [(entry["type"], entry["cost_nano_usd"]) for entry in self.admin.ledger(team=self.team)]

    def spent_and_held_usd(self) -> tuple[str, str]:
        team = self.admin.get(f"/teams/{self.team}")
        return team["budgets"][0]["spent_usd"], team["budgets"][0]["held_usd"]

    def submitted(self, prompt: str) -> int:
        """How many submissions with this prompt the emulator was sent."""
        requests = self.stack.emulator.get("/__requests").json()["requests"]
        return sum(prompt in str(request) for request in requests)

    def order(self, fault: str, count: int = 1, kind: str = "image") -> None:
        """Of the next calls at the emulator so many meet a fault."""
        self.stack.emulator.post("/__faults", json={"fault": fault, "count": count, "kind": kind})


@pytest.fixture(scope="module")
def gateway(stack: Stack) -> Process:
    """Leaves jobs to who asked for them."""
    return stack.gateway(job_first_poll_s=NEVER_S)


@pytest.fixture
def painter(stack: Stack, gateway: Process, request: pytest.FixtureRequest) -> Iterator[Painter]:
    """Afterwards the books are right, whatever happened."""
    yield painter_at(stack, gateway, request.node.name)
    assert [] == violations(read_books(stack.redis_url))


def painter_at(stack: Stack, gateway: Process, name: str) -> Painter:
    team = name.removeprefix("test_").split("[")[0].replace("_", "-")[:40].strip("-")
    admin = Admin(gateway.url)
    secret = admin.key(team)["key"]
    admin.patch(f"/teams/{team}", {"budgets": [{"window": "total", "limit_usd": "1.00"}]})
    return Painter(stack, gateway, admin, team, secret)


def test_n_images_are_n_jobs_and_one_charge(painter: Painter) -> None:
    """OpenAI's shape: as many URLs as were asked for; one hold, one capture of n prices."""
    answer = painter.ask(4, "Four boats", size="512x768", response_format=None, user="an", steps=2)
    assert 200 == answer.status, answer.body
    assert 4 == len({picture["url"] for picture in answer.json["data"]})
    assert (answer.request_id, True) == (answer.json["id"], "failed" not in answer.json)
    assert ("0.006", "0.006") == (answer.headers["x-gateway-cost-usd"], answer.headers["x-gateway-hold-usd"])
    assert [("capture", 4 * PRICE_NANO_USD)] == painter.entries()
    assert ("0.006", "0.00") == painter.spent_and_held_usd()
    assert 4 == painter.submitted("Four boats")
    series = f'gateway_images_total{{model="dreamshaper",team="{painter.team}"}} 4.0'
    assert series in painter.admin.http.get("/metrics").text


def test_the_cost_stands_in_the_answer_where_it_is_asked_for(painter: Painter) -> None:
    """As on the chat path: what the call cost in the end, refunds taken off."""
    painter.order("job_fails")
    answer = painter.ask(2, headers={"x-gateway-include-cost": "1"})
    assert {"cost_usd": "0.0015", "cost_nano_usd": PRICE_NANO_USD} == answer.json["usage"]
    wrong = painter.ask(2, headers={"x-gateway-include-cost": "please"})
    assert (400, "x-gateway-include-cost") == (wrong.status, wrong.error["param"])


def test_the_pictures_themselves_are_answered_where_they_are_asked_for(painter: Painter) -> None:
    """Byte for byte what is at their URLs."""
    answer = painter.ask(2, response_format="b64_json", size="256x256")
    assert 200 == answer.status
    kept = [job["url"] for job in painter.request(answer.request_id)["jobs"]]
    assert [httpx.get(url).content for url in kept] == [
        base64.b64decode(picture["b64_json"]) for picture in answer.json["data"]
    ]


def test_a_picture_that_cannot_be_fetched_keeps_its_url(painter: Painter) -> None:
    """The upstream says that it is on this very machine: the gateway does not look there, and nothing is lost."""
    painter.order("job_elsewhere")
    answer = painter.ask(2, response_format="b64_json", size="256x256")
    assert [["b64_json"], ["url"]] == sorted(list(picture) for picture in answer.json["data"])
    (failed,) = answer.json["failed"]
    assert ("image_not_fetched", "0.0015") == (failed["code"], failed["cost_usd"])
    assert "not a public one" in failed["message"]
    assert [("capture", 2 * PRICE_NANO_USD)] == painter.entries()


def test_of_four_one_fails_and_gives_back_its_share(painter: Painter) -> None:
    """Charged four, given back one; the answer has three, and says which is missing."""
    painter.order("job_fails")
    answer = painter.ask(4)
    assert (200, 3) == (answer.status, len(answer.json["data"]))
    (failed,) = answer.json["failed"]
    assert ("image_failed", "0.0015", "0.00") == (failed["code"], failed["refunded_usd"], failed["cost_usd"])
    assert failed["index"] in range(4)
    assert [("capture", 4 * PRICE_NANO_USD), ("refund", -PRICE_NANO_USD)] == painter.entries()
    assert "0.0045" == answer.headers["x-gateway-cost-usd"]
    assert ("0.0045", "0.00") == painter.spent_and_held_usd()
    ours = [line for line in painter.stack.bill()["lines"] if line["request_id"].startswith(answer.request_id)]
    assert {f"{answer.request_id}-{number}" for number in range(1, 5)} == {line["request_id"] for line in ours}
    assert 3 * PRICE_NANO_USD == sum(line["generated_nano_usd"] for line in ours)


@pytest.mark.parametrize(
    ("fault", "code", "charged"), [("status=500", "upstream_error", 3), ("no_job", "upstream_error", 3)]
)
def test_what_is_not_accepted_is_not_charged(painter: Painter, fault: str, code: str, charged: int) -> None:
    """The hold was for four; three were accepted, and three are paid."""
    painter.order(fault)
    answer = painter.ask(4)
    assert (200, 3) == (answer.status, len(answer.json["data"]))
    assert [code] == [failed["code"] for failed in answer.json["failed"]]
    assert [("capture", charged * PRICE_NANO_USD)] == painter.entries()[-1:]


def test_a_submission_without_an_answer_is_booked_as_an_estimate(painter: Painter) -> None:
    """It may have been billed: the one entry says that its charge is no proof."""
    painter.order("reset")
    answer = painter.ask(2)
    assert (200, 1) == (answer.status, len(answer.json["data"]))
    (failed,) = answer.json["failed"]
    assert ("upstream_error", "0.0015", "0.00") == (failed["code"], failed["cost_usd"], failed["refunded_usd"])
    (entry,) = painter.admin.ledger(team=painter.team)
    assert (2 * PRICE_NANO_USD, 2, "estimated", ["estimated", "unanswered"]) == (
        entry["cost_nano_usd"],
        entry["images"],
        entry["usage_source"],
        entry["flags"],
    )


@pytest.mark.parametrize(
    ("fault", "status", "code"), [("status=500", 502, "upstream_error"), ("status=402", 502, "upstream_refused")]
)
def test_nothing_accepted_costs_nothing(painter: Painter, fault: str, status: int, code: str) -> None:
    """Released, and an error that names what the upstream did."""
    painter.order(fault, 3)
    answer = painter.ask(3)
    assert (status, code, "0.00") == (answer.status, answer.error["code"], answer.headers["x-gateway-cost-usd"])
    assert answer.request_id == answer.error["request_id"]
    assert [("release", 0)] == painter.entries()[-1:]


@pytest.mark.parametrize(
    ("status", "kind", "retry_after"),
    [(400, "invalid_request_error", None), (404, "invalid_request_error", None), (429, "rate_limit_error", "2")],
)
def test_what_minitoolai_rejects_is_the_callers_to_put_right(
    painter: Painter, status: int, kind: str, retry_after: str | None
) -> None:
    """Its own status and words: no SDK repeats what cannot succeed, and each waits with what may. Nothing is paid."""
    painter.order(f"status={status}", 2)
    answer = painter.ask(2)
    assert (status, "upstream_rejected", kind) == (answer.status, answer.error["code"], answer.error["type"])
    assert f"status {status}: emulated status {status}" in answer.error["message"]
    assert ("upstream", "0.00", retry_after) == (
        answer.headers["x-gateway-error-source"],
        answer.headers["x-gateway-cost-usd"],
        answer.headers.get("retry-after"),
    )
    assert 2 * ["upstream_rejected"] == [failed["code"] for failed in answer.error["failed"]]
    assert [("release", 0)] == painter.entries()[-1:]


@pytest.mark.parametrize("other", ["status=500", "status=429", "no_job"])
def test_a_request_is_not_at_fault_unless_all_its_images_say_so(painter: Painter, other: str) -> None:
    """What befell another of its images has nothing to do with the request: 502, which may be tried again."""
    painter.order("status=400")
    painter.order(other)
    answer = painter.ask(2)
    assert (502, "upstream_error", None) == (
        answer.status,
        answer.error["code"],
        answer.headers.get("x-should-retry"),
    )


def test_the_organisations_key_is_in_no_message(painter: Painter) -> None:
    """MiniToolAI repeats it in its error, and what that says is told."""
    painter.order("echo_key")
    answer = painter.ask()
    assert (502, "upstream_error") == (answer.status, answer.error["code"])
    assert "*" * len(UPSTREAM_KEY) in answer.error["message"]
    assert UPSTREAM_KEY.encode() not in answer.body


def test_what_is_rejected_under_an_idempotency_key_can_be_asked_again(painter: Painter) -> None:
    """It cost nothing, so its key is free: a 429 is not the answer for a day."""
    same = {"idempotency-key": "busy"}
    painter.order("status=429")
    assert [429, 200] == [painter.ask(1, "Busy", same).status for _ in range(2)]


def test_all_jobs_failing_gives_everything_back(painter: Painter) -> None:
    """An error that no SDK repeats by itself: another try is another purchase."""
    painter.order("job_fails", 3)
    answer = painter.ask(3)
    assert (502, "upstream_error", "false") == (
        answer.status,
        answer.error["code"],
        answer.headers["x-should-retry"],
    )
    assert [0, 1, 2] == [failed["index"] for failed in answer.error["failed"]]
    assert "what they cost was given back" in answer.error["message"]
    assert [("capture", 3 * PRICE_NANO_USD)] + 3 * [("refund", -PRICE_NANO_USD)] == painter.entries()
    assert ("0.00", "0.00", "0.00") == (answer.headers["x-gateway-cost-usd"], *painter.spent_and_held_usd())


def test_an_answer_without_pictures_says_what_was_not_given_back(stack: Stack, painter: Painter) -> None:
    """Where one submission was never answered, or where failed images stay charged."""
    painter.order("job_fails")
    painter.order("reset")
    mixed = painter.ask(2)
    assert (502, "0.0015") == (mixed.status, mixed.headers["x-gateway-cost-usd"])
    assert "of the $0.003 charged $0.0015 was given back" in mixed.error["message"]
    keeping = stack.gateway(job_first_poll_s=NEVER_S, refund_failed_images="false")
    painter.order("job_fails", 2)
    kept = painter_at(stack, keeping, "keeping").ask(2)
    assert (502, "0.003") == (kept.status, kept.headers["x-gateway-cost-usd"])
    assert "they stay charged ($0.003)" in kept.error["message"]


def test_what_is_not_done_in_time_is_answered_as_pending(stack: Stack) -> None:
    """With those that are; where none is, a timeout that no SDK repeats by itself."""
    painter = painter_at(stack, stack.gateway(image_wait_s="1.5", job_first_poll_s=NEVER_S), "deadline")
    painter.order("job_never")
    some = painter.ask(2)
    assert (200, 1) == (some.status, len(some.json["data"]))
    assert ["image_pending"] == [failed["code"] for failed in some.json["failed"]]
    assert f"/v1/requests/{some.request_id}" in some.json["failed"][0]["message"]
    known = [job["state"] for job in painter.request(some.request_id)["jobs"]]
    assert ["pending", "success"] == sorted(known)
    painter.order("job_never", 2)
    none = painter.ask(2)
    assert (504, "upstream_timeout", "false") == (none.status, none.error["code"], none.headers["x-should-retry"])
    assert f"/v1/requests/{none.request_id}" in none.error["message"]
    assert 2 * [("capture", 2 * PRICE_NANO_USD)] == painter.entries()
    assert [] == violations(read_books(stack.redis_url))


def test_a_gateway_that_ends_waits_no_longer(stack: Stack) -> None:
    """When its grace is over the call is answered with what there is; the job is the next gateway's."""
    gateway = stack.gateway(grace_s="0.2", job_first_poll_s=NEVER_S)
    painter = painter_at(stack, gateway, "ending")
    painter.order("job_never")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(painter.ask)
        until(painter.entries)
        gateway.signal(signal.SIGTERM)
        answer = running.result()
    assert (504, "upstream_timeout") == (answer.status, answer.error["code"])
    assert 0 == gateway.wait()


def test_all_or_nothing_is_held(painter: Painter) -> None:
    """Money for three of four images buys none, and nothing is submitted."""
    painter.admin.patch(f"/teams/{painter.team}", {"budgets": [{"window": "total", "limit_usd": "0.0045"}]})
    answer = painter.ask(4, "Too dear")
    assert (402, "budget_exceeded", "0.006") == (answer.status, answer.error["code"], answer.error["required_usd"])
    assert (0, []) == (painter.submitted("Too dear"), painter.entries())
    assert 200 == painter.ask(3, "Just right").status


def test_n_images_are_one_request_and_n_of_the_image_rate(painter: Painter) -> None:
    """A limit of five images a minute takes four and then not two more; requests are counted once."""
    limits = {"images_per_minute": 5, "requests_per_minute": 3}
    painter.admin.patch(f"/teams/{painter.team}", {"limits": limits})
    first, second, third = painter.ask(4), painter.ask(2, "Too many"), painter.ask(6)
    assert (200, "2") == (first.status, first.headers["x-ratelimit-remaining-requests"])
    assert (429, "rate_limit_exceeded", 0) == (second.status, second.error["code"], painter.submitted("Too many"))
    assert (400, "request_exceeds_limit") == (third.status, third.error["code"])


def test_a_client_that_leaves_is_charged_for_what_was_accepted(painter: Painter) -> None:
    """It left while its images were submitted: all of them are settled, and none is submitted again."""
    painter.order("withhold", 3)
    body = {"model": "dreamshaper", "prompt": "Nobody waits", "n": 3}
    with left_alone(painter.gateway.url, body, painter.secret):
        painter.stack.emulator.get("/__withheld", params={"at_least": "3"})
    painter.stack.emulator.post("/__release")
    until(lambda: [("capture", 3 * PRICE_NANO_USD)] == painter.entries())
    assert 3 == painter.submitted("Nobody waits")
    (entry,) = painter.admin.ledger(team=painter.team)
    assert 3 == len(painter.request(entry["request_id"])["jobs"])


@contextlib.contextmanager
def left_alone(url: str, body: object, secret: str) -> Iterator[None]:
    """A request whose client is gone after the block, without having read anything."""
    leave = threading.Event()

    def client() -> None:
        with contextlib.suppress(OSError), stream(url, IMAGES, body, secret, timeout_s=0.5):
            leave.wait()

    with ThreadPoolExecutor(1) as pool:
        running: Future[None] = pool.submit(client)
        yield
        leave.set()
        running.result()


def test_a_repeat_hears_that_it_runs_and_then_gets_the_answer(painter: Painter) -> None:
    """Settled long before the pictures are there: until then 409, after that the answer, billed once."""
    same = {"idempotency-key": "triptych"}
    painter.order("job_pending=3", 2)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(painter.ask, 2, "A triptych", same)
        until(painter.entries)
        early = painter.ask(2, "A triptych", same)
        assert (409, "idempotency_in_progress", "1") == (
            early.status,
            early.error["code"],
            early.headers["retry-after"],
        )
        first = running.result()
    again = painter.ask(2, "A triptych", same)
    assert (200, first.body, "true") == (again.status, again.body, again.headers["idempotent-replayed"])
    assert first.headers["x-gateway-cost-usd"] == again.headers["x-gateway-cost-usd"]
    assert (2, [("capture", 2 * PRICE_NANO_USD)]) == (painter.submitted("A triptych"), painter.entries())
    other = painter.ask(2, "A triptych", same, response_format="b64_json")
    assert (409, "idempotency_conflict") == (other.status, other.error["code"])


def test_an_answer_without_pictures_is_repeated_too(painter: Painter) -> None:
    """What was charged and given back is not bought again by a repeat under the same key."""
    same = {"idempotency-key": "sunk"}
    painter.order("job_fails", 2)
    first, again = painter.ask(2, "Sunk", same), painter.ask(2, "Sunk", same)
    assert (502, 502, first.body) == (first.status, again.status, again.body)
    assert 2 == painter.submitted("Sunk")


def test_what_cost_nothing_is_bought_by_a_repeat(painter: Painter) -> None:
    """Refused by the upstream: asked again under the same key, it is submitted again."""
    same = {"idempotency-key": "at-last"}
    painter.order("status=500")
    first, again = painter.ask(1, "At last", same), painter.ask(1, "At last", same)
    assert (502, 200, False) == (first.status, again.status, "idempotent-replayed" in again.headers)
    assert [("release", 0), ("capture", PRICE_NANO_USD)] == painter.entries()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": 11}, "n"),
        ({"n": True}, "n"),
        ({"n": 1.5}, "n"),
        ({"size": "1024"}, "size"),
        ({"size": "255x512"}, "size"),
        ({"size": "512x1345"}, "size"),
        ({"size": 512}, "size"),
        ({"response_format": "png"}, "response_format"),
        ({"response_format": ""}, "response_format"),
        ({"user": 7}, "user"),
        ({"steps": 9}, "steps"),
        ({"scheduler": "Nobody's"}, "scheduler"),
        ({"width": 512}, "width"),
        ({"quality": "hd"}, "quality"),
        ({"model": None}, "model"),
        ({"prompt": ""}, "prompt"),
    ],
)
def test_what_is_not_understood_is_refused(painter: Painter, fields: dict[str, Any], param: str) -> None:
    """400 that names the field, before anything is held."""
    answer = painter.ask(**{"count": 1, **fields}) if "n" not in fields else send_raw(painter, fields)
    assert (400, param) == (answer.status, answer.error["param"])
    assert [] == painter.entries()


def send_raw(painter: Painter, fields: dict[str, Any]) -> Answer:
    body = {"model": "dreamshaper", "prompt": "A lake", **fields}
    return send(painter.gateway.url, IMAGES, body, painter.secret)


def test_a_gateway_killed_while_it_waits_leaves_jobs_that_others_bring_to_their_end(stack: Stack) -> None:
    """Two of three submissions are answered and bound; then SIGKILL. The hold expires, and the job that fails gives its
    share back by another gateway."""
    with contextlib.ExitStack() as processes:
        apart = Stack(f"{stack.redis_url}?db=3", stack.emulator_url, processes)
        processes.callback(apart.emulator.close)
        killed = apart.gateway(lease_s="1", job_first_poll_s="0.1")
        painter = painter_at(apart, killed, "killed")
        painter.order("job_fails")
        painter.order("job_pending=0")
        painter.order("withhold")
        body = {"model": "dreamshaper", "prompt": "Killed", "n": 3}
        with left_alone(killed.url, body, painter.secret):
            painter.stack.emulator.get("/__withheld", params={"at_least": "1"})
            until(lambda: bound_jobs(apart) == 2)
            killed.signal(signal.SIGKILL)
            killed.wait()
        painter.stack.emulator.post("/__release")
        admin = Admin(apart.gateway(lease_s="1", job_first_poll_s="0.1").url)
        until(lambda: len(admin.ledger(team="killed")) >= 2)
        entries = [(entry["type"], entry["cost_nano_usd"]) for entry in admin.ledger(team="killed")]
        assert [("expire", 3 * PRICE_NANO_USD), ("refund", -PRICE_NANO_USD)] == entries
        assert [] == violations(read_books(apart.redis_url))


def bound_jobs(stack: Stack) -> int:
    """How many image jobs Redis knows."""
    with redis.Redis.from_url(stack.redis_url) as client:
        return len(client.keys("gw:{default}:job:*"))
