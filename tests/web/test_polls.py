"""What a poll's answer makes the gateway do."""

from types import SimpleNamespace
from typing import cast

import pytest

from gateway.web.polls import JobDesk, PollAnswer, PollRules
from gateway.web.services import Services
from tests.store.bench import ORG, Bench, open_bench

RULES = PollRules("/jobs/", "/jobs/", {}, refund_failed=True, first_s=1, longest_s=1, abandon_s=60)
FAILED = PollAnswer(200, [], b'{"status":"error"}')


def desk_of(bench: Bench) -> JobDesk:
    return JobDesk(RULES, cast(Services, SimpleNamespace(jobs=bench.jobs, ledger=bench.ledger)))


@pytest.mark.parametrize("what_is_left", ["its charge", "a charge of nothing", "no record of its charge"])
def test_a_failed_job_is_asked_about_no_more(redis_url: str, what_is_left: str) -> None:
    """Whether or not there is anything to give back: else the gateway would poll it every minute, for nothing."""
    with open_bench(redis_url) as (bench,):
        job = bench.submitted_job(0 if what_is_left == "a charge of nothing" else 5)
        if what_is_left == "no record of its charge":
            bench.run(bench.redis.delete(bench.keys.hold(job.hold.hold_id)))
        assert "error" == bench.run(desk_of(bench).act(job, FAILED)).state
        found = bench.run(bench.jobs.find(job.jobid, job.signature))
        assert found is not None
        assert "error" == found.state
        assert [] == bench.run(bench.jobs.claim_due(ORG, 10))
