"""Checking, repairing, archiving and rebuilding the books on a real Valkey."""

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.billing.adjustment import Adjusted, Adjustment, NotAdjusted
from gateway.billing.audit import Difference
from gateway.billing.credit import Paid
from gateway.billing.errors import InvalidRequest, LedgerUnavailable
from gateway.billing.ledger import NOT_TOLD, RELEASE, violations
from gateway.billing.principal import Scope
from gateway.billing.scope import ScopeSettings
from gateway.store.adjustments import Adjustments
from gateway.store.archive import Archive, Archiver, UnfitArchive, read_archive
from gateway.store.audit import LOST, Audit, Findings
from gateway.store.bookkeeping import Bookkeeping, NotRepaired, NotTrimmed, Trimmed
from gateway.store.cells import Cell
from gateway.store.leases import Leases
from gateway.store.ledger import Ledger
from gateway.store.scopes import Stored
from tests.store.bench import AN, BY_DESK, BY_ROBOT, NOTEBOOK, ORGANISATION, RED, Bench, capture, open_bench

ABOVE_NOTEBOOK = (ORGANISATION, RED, AN, NOTEBOOK)
FAR_AHEAD_MS = 10**14


def audit(bench: Bench) -> Findings:
    return bench.run(Audit(bench.redis, bench.ledger, bench.reports, bench.calendar, bench.org).run())


def bookkeeping(bench: Bench) -> Bookkeeping:
    return Bookkeeping(bench.redis, bench.scripts, bench.reports, bench.org)


def adjust(bench: Bench, scope: Scope, amount: int, *, at_ms: int | None = None, each: str = "a1") -> object:
    adjustment = Adjustment(each, scope, amount, "why", "admin", at_ms)

    async def post() -> object:
        target, _ = await bench.scopes.get(bench.org, scope)
        return await Adjustments(bench.scripts, bench.calendar).post(
            bench.org, adjustment, target, await bench.scopes.now_ms()
        )

    return bench.run(post())


def lived_in(bench: Bench) -> None:
    """Every kind of entry, two open holds, a charge in quarantine."""
    for who, cost in ((BY_ROBOT, 5), (BY_DESK, 7)):
        request = bench.call(100, who, tokens=30)
        bench.admit(request)
        bench.settle(request, capture(cost))
    bench.admit(bench.call(40, tokens=9))
    released = bench.call(10)
    bench.admit(released)
    bench.settle(released, RELEASE)
    expired = bench.call(50)._replace(so_far=NOT_TOLD._replace(cost_nano_usd=20))
    bench.run(Ledger(bench.redis, bench.scripts, bench.calendar, lease_s=0).admit(expired))
    leases = Leases(bench.redis, bench.scripts, bench.ledger, 30)
    (hold,) = bench.run(leases.overdue(bench.org, bench.now_ms(), 10))
    bench.run(leases.expire(hold))
    bench.settle(expired, capture(23))
    bench.refund(bench.submitted_job(1_500))
    bench.prepaid(RED, 1_000)
    bench.prepaid(NOTEBOOK, 10)
    paid = bench.call(8)
    bench.admit(paid)
    bench.settle(paid, capture(6))
    bench.admit(bench.call(2))
    assert isinstance(adjust(bench, AN, 3), Adjusted)
    bench.settle(bench.call(1), capture(1))


def spoil(bench: Bench, scope: Scope, place: int, amount: int) -> None:
    """Change one number of a packed scope, behind the gateway's back."""
    name = bench.keys.state(scope)
    packed = bytearray(cast(bytes, bench.run(bench.redis.get(name))))
    (before,) = struct.unpack_from("<d", packed, place)
    struct.pack_into("<d", packed, place, before + amount)
    bench.run(bench.redis.set(name, bytes(packed)))


def archived(bench: Bench, path: Path) -> Archive:
    async def write() -> None:
        with path.open("wb") as file:
            async for line in Archiver(bench.redis, bench.org).lines():
                file.write(line)

    bench.run(write())
    return read_archive(path)


async def odd_hours(bench: Bench) -> list[Cell]:
    """A report that no cells make up."""
    return [cell async for cell in bench.reports.over(bench.org, "team", 5, 77)]


def test_right_books_have_no_differences(bench: Bench) -> None:
    """After every kind of entry, with calls on their way and a charge in quarantine."""
    lived_in(bench)
    findings = audit(bench)
    assert [] == findings.differences
    assert (8, 2, 1, 0) == (findings.scopes, findings.holds, findings.quarantined, findings.busy)
    assert len(bench.entries()) == findings.entries
    assert [] == violations(bench.books())


@pytest.mark.parametrize(
    ("place", "what"),
    [
        (56, "spent"),
        (64, "held"),
        (80, "spent of day"),
        (88, "held of day"),
        (104, "spent of week"),
        (136, "held of month"),
        (200, "tokens set aside"),
        (208, "calls at once"),
        (216, "paid in"),
        (224, "spent of credit"),
        (232, "held of credit"),
    ],
)
def test_a_number_that_is_wrong_is_found_and_repaired(bench: Bench, place: int, what: str) -> None:
    """Each number that admission decides by; the repair is an entry of its own, and no entry is edited."""
    lived_in(bench)
    before = bench.entries()
    spoil(bench, RED, place, 11)
    findings = audit(bench)
    (found,) = findings.differences
    assert ("team red", what, 11) == (found.place, found.what, found.stored - found.expected)
    assert [] == bench.run(bookkeeping(bench).repair(findings))
    assert [] == audit(bench).differences
    *same, told = bench.entries()
    assert before == same
    assert ("adjustment", 0, ("repair",)) == (told.type, told.cost_nano_usd, told.flags)
    assert f"team red: {what} is" in told.note


def test_a_difference_names_its_entries(bench: Bench) -> None:
    """Where to begin to look: the newest that count there."""
    lived_in(bench)
    spoil(bench, AN, 56, -2)
    (found,) = audit(bench).differences
    of_an = [entry.id for entry in bench.entries() if AN in entry.scopes()]
    assert tuple(of_an) == found.entries


def test_a_forged_entry_is_found_everywhere_it_counts(bench: Bench) -> None:
    """An entry that no script wrote adds up to what no balance has."""
    lived_in(bench)
    ((_, fields),) = cast(Any, bench.run(bench.redis.xrevrange(bench.keys.ledger, count=1)))
    fields[b"cost"] = b"1000"
    bench.run(bench.redis.xadd(bench.keys.ledger, fields))
    assert {"organisation acme", "team red", "user an"} <= {each.place for each in audit(bench).differences}


def test_a_report_that_is_wrong_is_found_and_repaired(bench: Bench) -> None:
    """An amount that was changed, one that is missing, one of nobody: in days, months and hours."""
    lived_in(bench)
    bench.run(bench.reports.catch_up(bench.org))
    sheets = sorted(cast(list[bytes], bench.run(bench.redis.keys(f"{bench.keys.sheets}*"))))
    changed, missing = sheets[0], sheets[-1]
    (field, *_) = cast(list[bytes], bench.run(bench.redis.hkeys(changed.decode())))
    bench.run(bench.redis.hincrby(changed.decode(), field.decode(), 3))
    count = bench.run(bench.redis.hlen(missing.decode()))
    bench.run(bench.redis.delete(missing))
    nobody = bench.keys.sheet("day", "2999-01", "team", "nobody")
    bench.run(bench.redis.hincrby(nobody, "2999-01-01|m|chat|requests", 1))
    findings = audit(bench)
    assert 2 + count == len(findings.differences)
    assert [] == bench.run(bookkeeping(bench).repair(findings))
    assert [] == audit(bench).differences
    assert [] == violations(bench.books())


def test_what_two_find_is_repaired_once(bench: Bench) -> None:
    """Both audits are of the same books; the later repair sees that somebody was faster and changes nothing."""
    lived_in(bench)
    bench.run(bench.reports.catch_up(bench.org))
    spoil(bench, RED, 56, 11)
    sheet = cast(list[bytes], bench.run(bench.redis.keys(f"{bench.keys.sheets}*")))[0].decode()
    (name, *_) = cast(list[bytes], bench.run(bench.redis.hkeys(sheet)))
    bench.run(bench.redis.hincrby(sheet, name.decode(), 3))
    one, other = audit(bench), audit(bench)
    assert [] == bench.run(bookkeeping(bench).repair(one))
    after = bench.everything()
    for late in (other, replace(other, differences=other.differences[1:])):
        with pytest.raises(NotRepaired, match="verify them again"):
            bench.run(bookkeeping(bench).repair(late))
    assert after == bench.everything()
    assert [] == audit(bench).differences


def test_a_window_that_is_over_is_not_repaired(bench: Bench) -> None:
    """Its difference went with it; the new day begins with nothing."""
    request = bench.call(10)
    bench.run(bench.at_windows(days_ago=3).admit(request))
    bench.settle(request, capture(5))
    spoil(bench, RED, 80, 4)
    findings = audit(bench)
    assert isinstance(adjust(bench, RED, 7), Adjusted)
    with pytest.raises(NotRepaired):
        bench.run(bookkeeping(bench).repair(findings))
    assert [] == audit(bench).differences


def test_the_audit_is_right_while_calls_go_on(bench: Bench) -> None:
    """Each lot of scopes is read as of one instant; whatever is written meanwhile is no difference."""

    async def calls() -> None:
        for number in range(150):
            request = bench.call(20, tokens=3, hold_id=f"live{number}")
            await bench.ledger.admit(request)
            await bench.ledger.settle(request, capture(number % 20))

    async def audits() -> Findings:
        return await Audit(bench.redis, bench.ledger, bench.reports, bench.calendar, bench.org).run()

    lived_in(bench)
    _, *findings = bench.together([calls(), *[audits() for _ in range(8)]])
    for each in findings:
        assert isinstance(each, Findings)
        assert [] == each.differences


def test_an_adjustment_counts_at_its_scope_and_above(bench: Bench) -> None:
    """Once, however often it is sent; what is asked differently under the same id is a conflict."""
    first = adjust(bench, NOTEBOOK, 30)
    assert isinstance(first, Adjusted)
    assert replace(first, repeated=True) == adjust(bench, NOTEBOOK, 30)
    assert NotAdjusted("conflict", NOTEBOOK) == adjust(bench, NOTEBOOK, 31)
    assert [(30, 0)] * 4 == [bench.spent_and_held(scope, "day") for scope in ABOVE_NOTEBOOK]
    (entry,) = bench.entries()
    assert ("adjustment", 30, "why", "admin") == (entry.type, entry.cost_nano_usd, entry.note, entry.author)
    assert [] == violations(bench.books())


def test_an_adjustment_of_the_past_leaves_todays_windows_alone(bench: Bench) -> None:
    """Its day is over: it counts in total and in that day's report."""
    long_ago_ms = bench.now_ms() - 70 * 24 * 3_600_000
    assert isinstance(adjust(bench, RED, 30, at_ms=long_ago_ms), Adjusted)
    assert (30, 0) == bench.spent_and_held(RED)
    assert (0, 0) == bench.spent_and_held(RED, "month")
    assert [] == audit(bench).differences


def test_no_more_is_given_back_than_was_spent(bench: Bench) -> None:
    """A window below zero would let more through than its limit."""
    adjust(bench, RED, 30)
    assert NotAdjusted("too_little", ORGANISATION, "total", 30) == adjust(bench, RED, -31, each="a2")
    assert isinstance(adjust(bench, RED, -30, each="a3"), Adjusted)
    assert NotAdjusted("ahead", RED) == adjust(bench, RED, 1, at_ms=FAR_AHEAD_MS, each="a4")


def test_books_are_built_again_from_an_archive(bench: Bench, tmp_path: Path) -> None:
    """In an empty Redis: balances, windows, credit, reports, settings, whom a sub-key belongs to; nothing is held."""
    lived_in(bench)
    bench.run(bench.redis.set(bench.keys.digest("d" * 64), json.dumps({"key": "robot", "team": "red", "user": None})))
    archive = archived(bench, tmp_path / "books")
    before, entries = bench.books(), bench.entries()
    bench.run(bench.redis.flushall())
    assert len(entries) == bench.run(bookkeeping(bench).rebuild([archive], bench.scopes))
    after = bench.books()
    assert (before.spent, entries) == (after.spent, bench.entries())
    assert set(after.held.values()) == {0}
    assert [] == audit(bench).differences
    assert [] == violations(after)
    assert bench.run(bench.redis.get(bench.keys.digest("d" * 64)))
    assert bench.spent_and_held(RED, "day") == (before.spent[RED], 0)


def test_an_archive_that_was_cut_or_changed_is_refused(bench: Bench, tmp_path: Path) -> None:
    """Half the entries would make wrong balances without a word."""
    lived_in(bench)
    path = tmp_path / "books"
    archived(bench, path)
    lines = path.read_bytes().splitlines(keepends=True)
    for spoilt in (lines[:-1], lines[:-2] + lines[-1:], [*lines[:-2], lines[-2].replace(b"cost", b"cast"), lines[-1]]):
        path.write_bytes(b"".join(spoilt))
        with pytest.raises(UnfitArchive):
            read_archive(path)


def test_what_is_archived_may_be_trimmed(bench: Bench, tmp_path: Path) -> None:
    """Behind an entry that carries it: the audit begins there, reports keep their cells, and calls go on."""
    lived_in(bench)
    first = archived(bench, tmp_path / "first")
    books = bench.books()
    count = len(bench.entries())
    trimmed = bench.run(bookkeeping(bench).trim(FAR_AHEAD_MS, first))
    assert count == trimmed.count
    (carrying,) = bench.entries()
    assert ("adjustment", 0, ("checkpoint",)) == (carrying.type, carrying.cost_nano_usd, carrying.flags)
    more = bench.call(100, BY_DESK)
    bench.admit(more)
    bench.settle(more, capture(9))
    findings = audit(bench)
    assert [] == findings.differences
    assert books.spent[ORGANISATION] + 9 == bench.books().spent[ORGANISATION]
    spoil(bench, RED, 56, 1)
    (wrong,) = audit(bench).differences
    assert ("team red", "spent", 1) == (wrong.place, wrong.what, wrong.stored - wrong.expected)
    spoil(bench, RED, 56, -1)
    second = archived(bench, tmp_path / "second")
    with pytest.raises(InvalidRequest, match="archived and taken out"):
        bench.run(odd_hours(bench))
    again = bench.run(bookkeeping(bench).trim(FAR_AHEAD_MS, second))
    assert 2 == again.count
    assert [] == audit(bench).differences


def test_what_is_not_archived_is_not_trimmed(bench: Bench, tmp_path: Path) -> None:
    """An entry that came after the export, or differs in it, stays where it is."""
    lived_in(bench)
    old = archived(bench, tmp_path / "old")
    more = bench.call(5, BY_DESK)
    bench.admit(more)
    bench.settle(more, capture(5))
    before = bench.everything()
    with pytest.raises(NotTrimmed, match="export anew"):
        bench.run(bookkeeping(bench).trim(FAR_AHEAD_MS, old))
    with pytest.raises(NotTrimmed, match="no entry that old"):
        bench.run(bookkeeping(bench).trim(0, old))
    assert before == bench.everything()


@pytest.mark.parametrize("given", [("first", "second"), ("second",)])
def test_trimmed_books_are_built_again(bench: Bench, tmp_path: Path, given: tuple[str, ...]) -> None:
    """From all archives, or from the newest alone, which carries the rest as sums."""
    lived_in(bench)
    archives = {"first": archived(bench, tmp_path / "first")}
    assert isinstance(bench.run(bookkeeping(bench).trim(FAR_AHEAD_MS, archives["first"])), Trimmed)
    more = bench.call(100, BY_DESK)
    bench.admit(more)
    bench.settle(more, capture(9))
    archives["second"] = archived(bench, tmp_path / "second")
    spent = bench.books().spent
    bench.run(bench.redis.flushall())
    bench.run(bookkeeping(bench).rebuild([archives[name] for name in given], bench.scopes))
    assert spent == bench.books().spent
    assert [] == audit(bench).differences


def test_archives_with_a_gap_between_them_are_refused(bench: Bench, tmp_path: Path) -> None:
    """A file is missing: what it had is not in the sums of those that are there."""
    lived_in(bench)
    files = []
    for number in range(3):
        files.append(archived(bench, tmp_path / str(number)))
        bench.run(bookkeeping(bench).trim(FAR_AHEAD_MS, files[-1]))
        more = bench.call(100, BY_DESK)
        bench.admit(more)
        bench.settle(more, capture(9))
    files.append(archived(bench, tmp_path / "last"))
    bench.run(bench.redis.flushall())
    with pytest.raises(UnfitArchive, match="missing between"):
        bench.run(bookkeeping(bench).rebuild([files[0], files[3]], bench.scopes))


def test_two_organisations_are_checked_apart(redis_url: str) -> None:
    """What is wrong in one is no difference of the other."""
    with open_bench(redis_url, "acme", "umbrella") as (one, other):
        lived_in(one)
        lived_in(other)
        spoil(one, RED, 56, 1)
        assert [Difference] == [type(each) for each in audit(one).differences]
        assert [] == audit(other).differences


def test_a_lost_balance_is_told_and_not_begun_anew(bench: Bench) -> None:
    """Its settings and entries are there: a balance of nothing would let a spent budget be spent again."""
    lived_in(bench)
    bench.limit(RED, 100)
    bench.run(bench.redis.delete(bench.keys.state(RED)))
    (found,) = [each for each in audit(bench).differences if each.place == "team red"]
    assert (LOST, 0) == (found.what, found.stored)
    assert found.expected > 0
    settings = bench.run(bench.redis.get(bench.keys.settings(RED)))
    old = Stored(ScopeSettings("team", "red"), bench.state(AN), cast(bytes, settings))
    with pytest.raises(LedgerUnavailable, match="balance of team red is lost"):
        bench.run(bench.scopes.replace(bench.org, old, ScopeSettings("team", "red")))
    assert bench.run(bench.redis.get(bench.keys.state(RED))) is None
    with pytest.raises(LedgerUnavailable, match="balance of team red is lost"):
        bench.run(bench.scopes.get(bench.org, RED))
    assert [found] == [each for each in bench.run(bookkeeping(bench).repair(audit(bench))) if each.place == "team red"]


def test_a_hold_that_ended_twice_is_told(bench: Bench) -> None:
    """Also where the balances were made to agree with it."""
    lived_in(bench)
    rows = cast(Any, bench.run(bench.redis.xrange(bench.keys.ledger)))
    fields = next(fields for _, fields in rows if fields[b"type"] == b"capture")
    bench.run(bench.redis.xadd(bench.keys.ledger, {**fields, b"cost": b"0"}))
    (found,) = [each for each in audit(bench).differences if each.place.startswith("hold ")]
    assert ("times it was ended", 2, 1) == (found.what, found.stored, found.expected)


def test_what_was_entered_once_is_entered_once_after_a_rebuild(bench: Bench, tmp_path: Path) -> None:
    """The receipt of a credit comes along: sent again, it is answered and not paid."""
    lived_in(bench)
    paid = bench.pay(RED, 77, payment_id="once")
    assert isinstance(paid, Paid)
    archive = archived(bench, tmp_path / "books")
    bench.run(bench.redis.flushall())
    bench.run(bookkeeping(bench).rebuild([archive], bench.scopes))
    again = bench.pay(RED, 77, payment_id="once")
    assert replace(paid, repeated=True) == again
