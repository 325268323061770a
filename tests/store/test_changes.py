"""The list of changes: written before, ended after, and bounded."""

from gateway.store.changes import Change, Changes, Outcome
from tests.store.bench import ORG, Bench


def change(number: int) -> Change:
    return Change(f"req-{number}", "admin", "admin", "create", "teams", f"team-{number}", {"id": f"team-{number}"})


def test_a_change_is_there_before_it_is_made_and_has_its_end_after(bench: Bench) -> None:
    """Until then nobody knows how it ended, which is what a killed gateway leaves."""
    changes = Changes(bench.redis, bench.scripts)
    change_id = bench.run(changes.begin(ORG, change(1)))
    span = {"from_ms": bench.now_ms() - 60_000, "to_ms": bench.now_ms() + 60_000}
    (begun,) = bench.run(changes.page(ORG, **span, after=None, limit=10))
    assert (change_id, change(1), Outcome()) == (begun.id, begun.change, begun.outcome)
    bench.run(changes.end(ORG, change_id, Outcome(409, "already_exists")))
    (ended,) = bench.run(changes.page(ORG, **span, after=None, limit=10))
    assert Outcome(409, "already_exists") == ended.outcome
    assert [] == bench.run(changes.page(ORG, **span, after=change_id, limit=10))
    assert [] == bench.run(changes.page(ORG, from_ms=0, to_ms=begun.at_ms, after=None, limit=10))


def test_the_oldest_are_forgotten_with_their_ends(bench: Bench) -> None:
    """A list that only grows would fill Redis, and a full Redis admits no call."""
    changes = Changes(bench.redis, bench.scripts, kept=3)
    for number in range(5):
        bench.run(changes.end(ORG, bench.run(changes.begin(ORG, change(number))), Outcome(201)))
    rows = bench.run(changes.page(ORG, from_ms=0, to_ms=bench.now_ms() + 60_000, after=None, limit=10))
    assert ["req-2", "req-3", "req-4"] == [row.change.request_id for row in rows]
    assert [201] * 3 == [row.outcome.status for row in rows]
    assert 3 == bench.run(bench.redis.hlen(f"gw:{{{ORG}}}:outcomes"))
