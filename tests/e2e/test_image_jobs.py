"""Image jobs: who may poll what, and a failed job gives its price back exactly once."""

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.client import IMAGES, JOBS, Answer, send
from tests.e2e.waiting import until
from tests.stack import ADMIN_KEY, UPSTREAM_KEY, Admin, Stack

PRICE_NANO_USD = 1_500_000
AT_ONCE = 24


@dataclass(frozen=True)
class Studio:
    """A gateway that leaves jobs to their owners, and two teams."""

    stack: Stack
    url: str
    admin: Admin
    painters: str
    others: str

    def submit(self, fault: str = "", key: str = "") -> tuple[dict[str, Any], str]:
        """A new job as a poll names it, and the id of its request."""
        marker = f"[[fault:{fault}]]" if fault else ""
        body = {"model": "dreamshaper", "prompt": f"A quiet lake {marker}"}
        answer = send(self.url, IMAGES, body, key or self.painters)
        assert (200, "success") == (answer.status, answer.json["status"])
        return {name: answer.json[name] for name in ("jobid", "signature")}, answer.request_id

    def poll(self, job: dict[str, Any], key: str | None = None) -> Answer:
        return send(self.url, JOBS, job, key)

    def costs(self, request_id: str) -> list[tuple[str, int]]:
        return [(entry["type"], entry["cost_nano_usd"]) for entry in self.admin.ledger(request_id=request_id)]

    def calls_seen(self) -> int:
        """How many polls the emulator received."""
        requests = self.stack.emulator.get("/__requests").json()["requests"]
        return sum(request["path"].rstrip("/") == JOBS.rstrip("/") for request in requests)


@pytest.fixture(scope="module")
def studio(stack: Stack) -> Studio:
    url = stack.gateway(job_first_poll_s="3600").url
    admin = Admin(url)
    return Studio(stack, url, admin, admin.key("painters", "an")["key"], admin.key("others", "binh")["key"])


def test_a_job_pends_and_then_has_its_picture(studio: Studio) -> None:
    """The pending state is not documented and passes through; the end is the documented answer."""
    job, request_id = studio.submit("job_pending=2")
    states = [studio.poll(job).json["status"] for _ in range(3)]
    assert ["processing", "processing", "success"] == states
    assert studio.poll(job).json["image_url"].startswith("http")
    assert [("capture", PRICE_NANO_USD)] == studio.costs(request_id)


def test_polls_cost_nothing_and_pass_the_upstreams_bytes(studio: Studio) -> None:
    """An answer to a poll is the upstream's own, and no entry comes of it."""
    job, _ = studio.submit()
    before = len(studio.admin.ledger())
    first = studio.poll(job)
    direct = send(studio.stack.emulator_url, JOBS, job)
    host = studio.stack.emulator_url.removeprefix("http://")
    assert 200 == first.status
    assert direct.json["image_url"] == f"http://{host}/images/{job['jobid']}.png"
    assert direct.body == studio.poll(job).body
    assert before == len(studio.admin.ledger())


def test_a_failed_job_is_refunded_once_however_many_poll_it(studio: Studio) -> None:
    """Clients that poll at the same moment all learn of the failure; the money comes back once."""
    job, request_id = studio.submit("job_fails")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda _: studio.poll(job), range(AT_ONCE)))
    assert {"processing", "error"} >= {answer.json["status"] for answer in answers}
    assert "error" == studio.poll(job).json["status"]
    until(lambda: len(studio.costs(request_id)) > 1)
    assert "error" == studio.poll(job).json["status"]
    assert [("capture", PRICE_NANO_USD), ("refund", -PRICE_NANO_USD)] == studio.costs(request_id)


def test_a_refund_frees_the_budget(studio: Studio) -> None:
    """A budget of one image can pay for the next one once the first has failed."""
    key = studio.admin.key("painters", "an", budgets=[{"window": "total", "limit_usd": "0.0015"}])["key"]
    body = {"model": "realism", "prompt": "A boat"}
    job, request_id = studio.submit("job_fails", key)
    refused = send(studio.url, IMAGES, body, key)
    assert (402, "error", None) == (refused.status, refused.json["status"], refused.json["jobid"])
    while studio.poll(job).json["status"] == "processing":
        continue
    until(lambda: len(studio.costs(request_id)) > 1)
    assert 200 == send(studio.url, IMAGES, body, key).status


def test_the_gateways_themselves_poll_jobs_that_nobody_polls(stack: Stack) -> None:
    """A client that submits and leaves still gets its money back, once, though two gateways look after its jobs."""
    with contextlib.ExitStack() as processes:
        # Books of their own: the other gateway of this module would put the jobs off for an hour.
        apart = Stack(f"{stack.redis_url}?db=1", stack.emulator_url, processes)
        urls = [apart.gateway(job_first_poll_s="0.1").url for _ in range(2)]
        admin = Admin(urls[0])
        key = admin.key("painters")["key"]
        body = {"model": "dreamshaper", "prompt": "Nobody waits [[fault:job_fails]]"}
        request_ids = [send(urls[n % 2], IMAGES, body, key).request_id for n in range(6)]
        until(lambda: len(admin.ledger(type="refund")) >= len(request_ids))
        entries = admin.ledger()
    for request_id in request_ids:
        costs = [entry["cost_nano_usd"] for entry in entries if entry["request_id"] == request_id]
        assert [PRICE_NANO_USD, -PRICE_NANO_USD] == costs


@pytest.mark.parametrize("spelling", [int, str])
def test_a_jobid_may_be_a_number_or_a_string(studio: Studio, spelling: Callable[[Any], object]) -> None:
    """The submission answers an integer and the documented poll sends a string: both name the job."""
    job, _ = studio.submit()
    answer = studio.poll({**job, "jobid": spelling(job["jobid"])})
    assert (200, "processing") == (answer.status, answer.json["status"])


def test_a_poll_needs_no_key_but_a_pair_that_was_submitted_here(studio: Studio) -> None:
    """Whoever knows jobid and signature may ask. A pair this gateway never saw makes no upstream call, even if the
    upstream knows it."""
    job, _ = studio.submit()
    body = {"model": "realism", "prompt": "Elsewhere"}
    elsewhere = send(studio.stack.emulator_url, IMAGES, body, UPSTREAM_KEY).json
    seen = studio.calls_seen()
    strangers = [
        {**job, "signature": "0123456789abcdef"},
        {**job, "jobid": 12345678},
        {"jobid": elsewhere["jobid"], "signature": elsewhere["signature"]},
    ]
    for stranger in strangers:
        answer = studio.poll(stranger)
        assert (404, "job_not_found") == (answer.status, answer.error["code"])
        assert ("error", None, None) == tuple(answer.json[name] for name in ("status", "jobid", "signature"))
    assert seen == studio.calls_seen()
    assert 200 == studio.poll(job).status
    assert seen + 1 == studio.calls_seen()


def test_with_a_key_a_poll_is_its_teams_alone(studio: Studio) -> None:
    """A key that is sent must be valid, and another team's job does not exist for it."""
    job, _ = studio.submit("job_never")
    seen = studio.calls_seen()
    revoked = studio.admin.key("painters")
    studio.admin.post(f"/keys/{revoked['id']}/revoke")
    wrong = ["sk-mt-default-guessed", ADMIN_KEY, revoked["key"]]
    assert [(401, "invalid_api_key")] * 3 == [(a.status, a.error["code"]) for a in (studio.poll(job, k) for k in wrong)]
    foreign = studio.poll(job, studio.others)
    assert (404, "job_not_found") == (foreign.status, foreign.error["code"])
    assert seen == studio.calls_seen()
    assert 200 == studio.poll(job, studio.painters).status


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"jobid": "12345678"}, "signature"),
        ({"signature": "abc"}, "jobid"),
        ({"jobid": True, "signature": "abc"}, "jobid"),
        ({"jobid": 1.5, "signature": "abc"}, "jobid"),
        ({"jobid": "", "signature": "abc"}, "jobid"),
        ({"jobid": "1", "signature": ["abc"]}, "signature"),
        ({"jobid": "1", "signature": "abc", "wait": 1}, "wait"),
    ],
)
def test_a_poll_that_breaks_the_contract_names_the_field(studio: Studio, body: dict[str, Any], param: str) -> None:
    """400 in both shapes: the gateway's error, and beside it the members MiniToolAI's clients look at."""
    answer = studio.poll(body)
    assert (400, param, "error") == (answer.status, answer.error["param"], answer.json["status"])


def test_an_upstream_that_fails_a_poll_changes_nothing(studio: Studio) -> None:
    """A poll that is answered by an error, or not at all, neither refunds nor ends the job."""
    job, request_id = studio.submit("job_pending=0")
    for fault, status in (("status=500", 500), ("status=401", 502), ("reset", 502), ("html200", 200)):
        studio.stack.emulator.post("/__faults", json={"fault": fault, "kind": "poll"})
        answer = studio.poll(job)
        assert status == answer.status, fault
        if status >= 400:
            assert "upstream" == answer.headers["x-gateway-error-source"]
    assert [("capture", PRICE_NANO_USD)] == studio.costs(request_id)
    assert "success" == studio.poll(job).json["status"]
