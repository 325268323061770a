"""The list of changes: written before, ended after, and bounded."""

from dataclasses import replace

from gateway.store.changes import Change, Changes, Outcome
from tests.store.bench import ORG, Bench


def change(number: int) -> Change:
    return Change(f"req-{number}", "admin", "admin", "create", "teams", f"team-{number}", {"id": f"team-{number}"})


def begin_and_end(bench: Bench, changes: Changes, number: int, fields: dict[str, str] | None = None) -> None:
    change_id = bench.run(changes.begin(ORG, replace(change(number), fields=fields)))
    assert change_id is not None
    bench.run(changes.end(ORG, change_id, Outcome(201)))


def listed(bench: Bench, changes: Changes) -> list[str]:
    rows = bench.run(changes.page(ORG, from_ms=0, to_ms=bench.now_ms() + 60_000, after=None, limit=1000))
    return [row.change.request_id for row in rows]


def test_a_change_is_there_before_it_is_made_and_has_its_end_after(bench: Bench) -> None:
    """Until then nobody knows how it ended, which is what a killed gateway leaves."""
    changes = Changes(bench.redis, bench.scripts)
    change_id = bench.run(changes.begin(ORG, change(1)))
    assert change_id is not None
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
        begin_and_end(bench, changes, number)
    rows = bench.run(changes.page(ORG, from_ms=0, to_ms=bench.now_ms() + 60_000, after=None, limit=10))
    assert ["req-2", "req-3", "req-4"] == [row.change.request_id for row in rows]
    assert [201] * 3 == [row.outcome.status for row in rows]
    assert 3 == bench.run(bench.redis.hlen(f"gw:{{{ORG}}}:outcomes"))


def test_large_ones_push_out_more(bench: Bench) -> None:
    """What is bounded is the memory, too; one that is larger than all of it is not kept, and was written down."""
    changes = Changes(bench.redis, bench.scripts, bytes_kept=2_000)
    for number in range(4):
        begin_and_end(bench, changes, number)
    begin_and_end(bench, changes, 4, {"note": "x" * 1_500})
    assert ["req-2", "req-3", "req-4"] == listed(bench, changes)
    begin_and_end(bench, changes, 5, {"note": "x" * 3_000})
    assert [] == listed(bench, changes)
    begin_and_end(bench, changes, 6)
    assert ["req-6"] == listed(bench, changes)


def test_a_team_has_a_quota_and_the_organisation_none(bench: Bench) -> None:
    """So a team's administrator cannot push what the organisation's did out of the list."""
    changes = Changes(bench.redis, bench.scripts, quota=2)
    begun = [bench.run(changes.begin(ORG, change(number), team="red")) for number in range(4)]
    assert [True, True, False, False] == [each is not None for each in begun]
    assert bench.run(changes.begin(ORG, change(4), team="blue"))
    assert bench.run(changes.begin(ORG, change(5)))
    assert ["req-0", "req-1", "req-4", "req-5"] == listed(bench, changes)
