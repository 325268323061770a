"""Image jobs: found by who knows them, and polled by one gateway at a time."""

from dataclasses import replace

from gateway.store.jobs import KEEP_MS, LISTED_MAX, Job
from gateway.store.keys import job_digest, job_pointer
from tests.store.bench import BY_DESK, BY_NOTEBOOK, BY_ROBOT, ORG, Bench


def bound(bench: Bench, jobid: str = "7", *, due_in_ms: int = 0) -> Job:
    job = Job(jobid, f"signature-{jobid}", bench.call(1, kind="image"), bench.now_ms())
    bench.run(bench.jobs.bind(job, bench.now_ms() + due_in_ms))
    return job


def test_a_job_is_found_by_its_pair_alone(bench: Bench) -> None:
    """Whoever guesses a job's number learns nothing; a shifted border between the two is another pair."""
    job = bound(bench)
    assert job == bench.run(bench.jobs.find("7", "signature-7"))
    for jobid, signature in (("7", "signature-8"), ("8", "signature-7"), ("7s", "ignature-7"), ("", ""), ("7", "")):
        assert bench.run(bench.jobs.find(jobid, signature)) is None


def test_a_jobs_owner_is_kept_with_it(bench: Bench) -> None:
    """A key with a user and one without; what was held is what may be refunded."""
    for number, who in enumerate((BY_DESK, BY_ROBOT)):
        job = Job(str(number), "s", bench.call(5, who, kind="image", model="realvision"), 1)
        bench.run(bench.jobs.bind(job, 0))
        found = bench.run(bench.jobs.find(job.jobid, "s"))
        assert found is not None
        assert job.hold == found.hold


def test_signatures_are_no_part_of_any_key(bench: Bench) -> None:
    """Keys are shown by monitors and logs; the digest says nothing."""
    job = bound(bench)
    names = b"\n".join(bench.everything())
    assert job.signature.encode() not in names
    assert job_digest("7", "signature-7").encode() in names


def test_a_hundred_claims_at_once_take_each_job_once(bench: Bench) -> None:
    """Many gateways poll: no job is asked about twice in the same minute."""
    jobs = {bound(bench, str(number)).jobid for number in range(30)}
    claims = bench.together([bench.jobs.claim_due(ORG, 5) for _ in range(100)])
    claimed = [job.jobid for claim in claims for job in claim]
    assert sorted(jobs) == sorted(claimed)


def test_a_job_that_is_not_due_is_not_claimed(bench: Bench) -> None:
    """It is left to its client first."""
    bound(bench, due_in_ms=60_000)
    assert [] == bench.run(bench.jobs.claim_due(ORG, 10))


def test_a_claimed_job_can_be_made_due_again(bench: Bench) -> None:
    """It was still pending; later it is asked about once more."""
    job = bound(bench)
    assert [job] == bench.run(bench.jobs.claim_due(ORG, 10))
    assert [] == bench.run(bench.jobs.claim_due(ORG, 10))
    bench.run(bench.jobs.poll_again(job, bench.now_ms()))
    assert [job] == bench.run(bench.jobs.claim_due(ORG, 10))


def test_a_finished_job_stays_finished(bench: Bench) -> None:
    """A gateway that was slow with its poll neither brings it back nor ends it anew: it hears how it has ended."""
    job = bound(bench)
    ended = bench.run(bench.jobs.finish(job, "success", "https://pictures.example/7.png"))
    assert replace(job, state="success", image_url="https://pictures.example/7.png") == ended
    bench.run(bench.jobs.poll_again(job, bench.now_ms()))
    assert [] == bench.run(bench.jobs.claim_due(ORG, 10))
    assert [ended, ended] == [bench.run(bench.jobs.finish(job, state)) for state in ("abandoned", "error")]
    assert ended == bench.run(bench.jobs.find(job.jobid, job.signature))


def test_an_ended_job_that_is_due_all_the_same_is_taken_out(bench: Bench) -> None:
    """A gateway of before ended jobs in two steps, and may have been killed between them."""
    job = bound(bench)
    bench.run(bench.jobs.finish(job, "success"))
    bench.run(bench.redis.zadd(bench.keys.jobs_due, {job.digest: 1}))
    assert [] == bench.run(bench.jobs.claim_due(ORG, 10))
    assert 0 == bench.run(bench.redis.zcard(bench.keys.jobs_due))


def test_binding_twice_changes_nothing(bench: Bench) -> None:
    """A binding whose answer was lost is sent again, maybe after the job's end."""
    job = bound(bench)
    bench.run(bench.jobs.finish(job, "error"))
    assert bench.run(bench.jobs.bind(job, bench.now_ms()))
    assert replace(job, state="error") == bench.run(bench.jobs.find(job.jobid, job.signature))
    assert 0 == bench.run(bench.redis.zcard(bench.keys.jobs_due))


def test_a_job_stays_whose_it_is(bench: Bench) -> None:
    """An upstream that answers two submissions with one pair: the second neither takes the job over nor hears of it as
    its own; the first one's binding, sent again, is still its own."""
    first = Job("7", "s", bench.call(5, BY_DESK, kind="image"), 1)
    second = Job("7", "s", bench.call(9, BY_ROBOT, kind="image"), 2)
    bindings = [bench.run(bench.jobs.bind(job, bench.now_ms())) for job in (first, second, first)]
    assert [True, False, True] == bindings
    assert first == bench.run(bench.jobs.find("7", "s"))
    assert "foreign" == bench.run(bench.jobs.finish(second, "success", "https://pictures.example/7.png")).state
    assert first == bench.run(bench.jobs.find("7", "s"))
    assert [] == bench.run(bench.jobs.of_call(ORG, second.hold.hold_id))


def test_a_pair_for_two_images_of_one_call_is_the_firsts(bench: Bench) -> None:
    """The second is no job of its own, though one call pays for both."""
    first, second = (Job("7", "s", bench.call(2, hold_id="h"), 1, share_nano_usd=1, number=n) for n in (0, 1))
    assert [True, False] == [bench.run(bench.jobs.bind(job, 0)) for job in (first, second)]
    assert "foreign" == bench.run(bench.jobs.finish(second, "error")).state
    assert [first] == bench.run(bench.jobs.of_call(ORG, "h"))


def test_a_job_that_is_not_known_cannot_be_ended(bench: Bench) -> None:
    """Its week was over while it was being asked about, or it is not bound yet: then it is bound as pending."""
    job = bound(bench)
    bench.run(bench.redis.delete(bench.keys.job(job.digest)))
    assert job == bench.run(bench.jobs.finish(job, "error"))
    assert 0 == bench.run(bench.redis.exists(bench.keys.job(job.digest)))


def test_the_jobs_of_a_call_are_found_by_its_hold(bench: Bench) -> None:
    """In the order of its images, with what became of each; a pair that was another call's before is not among them."""
    call = bench.call(4, kind="image")
    jobs = [Job(str(n), "s", call, 1, share_nano_usd=1, number=n) for n in (3, 1, 0, 2)]
    foreign = bound(bench, "9")
    for job in [*jobs, replace(foreign, hold=call)]:
        bench.run(bench.jobs.bind(job, bench.now_ms()))
    bench.run(bench.jobs.finish(jobs[0], "success", "https://pictures.example/3.png"))
    found = bench.run(bench.jobs.of_call(ORG, call.hold_id))
    assert ["0", "1", "2", "3"] == [job.jobid for job in found]
    assert ("success", "https://pictures.example/3.png") == (found[3].state, found[3].image_url)
    assert [] == bench.run(bench.jobs.of_call(ORG, "h-unknown"))


def test_a_job_is_forgotten_after_a_week(bench: Bench) -> None:
    """Job and pointer alike; what stands in the list of jobs to poll without a job behind it is taken out."""
    job = bound(bench)
    for key in (
        bench.keys.job(job.digest),
        job_pointer(job.digest),
        bench.keys.jobs_of(job.hold.hold_id),
        bench.keys.image_calls(job.hold.principal.key),
    ):
        assert KEEP_MS - 60_000 < bench.run(bench.redis.pttl(key)) <= KEEP_MS
    bench.run(bench.redis.delete(bench.keys.job(job.digest)))
    assert [] == bench.run(bench.jobs.claim_due(ORG, 10))
    assert 0 == bench.run(bench.redis.zcard(bench.keys.jobs_due))


def test_a_keys_calls_are_listed_newest_first_and_page_by_page(bench: Bench) -> None:
    """Two of one millisecond by their ids, none twice; several jobs of a call are one; another key's are not here."""
    ids = []
    for at_ms in (3, 1, 2, 2):
        call = bench.call(1, BY_NOTEBOOK, kind="image")
        ids.append((at_ms, call.hold_id))
        for number in range(2):
            bench.run(bench.jobs.bind(Job(f"{call.hold_id}{number}", "s", call, at_ms + number, number=number), 0))
    bench.run(bench.jobs.bind(Job("7", "s", bench.call(1, BY_DESK, kind="image"), 9), 0))
    listed: list[tuple[int, str]] = []
    while page := bench.run(bench.jobs.calls(BY_NOTEBOOK, listed[-1] if listed else None, 3)):
        listed += page
    assert sorted(ids, reverse=True) == listed


def test_the_list_of_a_key_is_bounded_in_number_and_time(bench: Bench) -> None:
    """The oldest goes when there are too many, and what is older than its jobs are kept."""
    listed = bench.keys.image_calls(BY_NOTEBOOK.key)
    bench.run(bench.redis.zadd(listed, {"old": 1, **{f"h-{n}": KEEP_MS + n for n in range(LISTED_MAX)}}))
    bench.run(bench.jobs.bind(Job("1", "s", bench.call(1, BY_NOTEBOOK, kind="image"), 2 * KEEP_MS), 0))
    assert LISTED_MAX == bench.run(bench.redis.zcard(listed))
    assert [b"h-1"] == bench.run(bench.redis.zrange(listed, 0, 0))
