"""What owes a posting is never left behind, and never alarms without a cause."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from gateway.billing.errors import LedgerUnavailable
from gateway.billing.ledger import RELEASE, Posting
from gateway.billing.principal import Principal
from gateway.metrics import Metrics
from gateway.store.admission import HoldRequest
from gateway.store.jobs import Job, Jobs
from gateway.store.ledger import Ledger, Settled
from gateway.store.scripts import Begun, Script
from gateway.store.spool import Spool
from gateway.store.spool_file import Owed, framed, read_spool, record_of
from gateway.web.settlement import Ending, Settlements, Tasks

HOLD = HoldRequest("h", "r", Principal("o", "t", None, "k"), "chat", "gpt-4o", 100, "v")
CHARGE = Posting("capture", 42)
OWED = Owed(HOLD, CHARGE)


class ScriptedLedger:
    """Answers settlements by the list it is given: a result, or a fault to raise."""

    def __init__(self, *answers: Settled | Exception, before: Callable[[], None] = lambda: None) -> None:
        self._answers = list(answers)
        self._before = before
        self.postings: list[Posting] = []

    def begin_settle(self, _hold: HoldRequest, _posting: Posting, **_answer: bytes) -> None:
        """Nothing is begun: all that is tested here goes on in the background."""

    async def settle(self, _hold: HoldRequest, posting: Posting, **_answer: bytes) -> Settled:
        await asyncio.sleep(0)
        self.postings.append(posting)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def settlements(ledger: ScriptedLedger, tasks: Tasks, wait_s: float = 10, spool: Spool | None = None) -> Settlements:
    return Settlements(cast(Ledger, ledger), cast(Jobs, None), tasks, Metrics(), cast(Spool, spool), wait_s)


def test_waiting_for_tasks_waits_for_those_they_start() -> None:
    """A call that ends during the shutdown starts its settlement then: it must be waited for as well."""

    async def scenario() -> list[str]:
        tasks, done = Tasks(), []

        async def settlement() -> None:
            await asyncio.sleep(0.02)
            done.append("settled")

        async def call() -> None:
            await asyncio.sleep(0.01)
            tasks.start(settlement())
            done.append("call ended")

        tasks.start(call())
        assert 0 == await tasks.finished(10)
        return done

    assert ["call ended", "settled"] == asyncio.run(scenario())


def test_waiting_for_tasks_ends_with_its_time() -> None:
    """A ledger that stays away must not keep the process for ever; how many are left is told."""

    async def scenario() -> int:
        tasks = Tasks()
        stuck = tasks.start(asyncio.Event().wait())
        left = await tasks.finished(0.01)
        stuck.cancel()
        return left

    assert 1 == asyncio.run(scenario())


def test_who_comes_when_the_grace_time_is_over_is_hurried_at_once() -> None:
    """A call that is admitted in the last moment must not keep the process."""
    tasks, told = Tasks(), list[str]()

    def running() -> None:
        told.append("running")

    def over() -> None:
        told.append("over")

    def late() -> None:
        told.append("late")

    tasks.on_hurry(running)
    tasks.on_hurry(over)
    tasks.forget(over)
    tasks.hurry()
    tasks.on_hurry(late)
    assert ["running", "late"] == told


@pytest.mark.parametrize("fault", [LedgerUnavailable("away"), RuntimeError("a fault of ours")])
def test_a_settlement_is_sent_until_it_is_answered(fault: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """No fault, known or not, may drop a charge; a lost reply is no alarm."""
    ledger = ScriptedLedger(fault, Settled(changed=False, posted_nano_usd=42))

    async def scenario() -> int:
        owed = settlements(ledger, Tasks())
        task = asyncio.create_task(owed.settle(OWED))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        in_between = owed.owed
        await task
        assert 0 == owed.owed
        return in_between

    with caplog.at_level(logging.ERROR, "gateway.settlement"):
        assert 1 == asyncio.run(scenario())
    assert [CHARGE, CHARGE] == ledger.postings
    assert [] == [record for record in caplog.records if "not posted" in record.message]


class Hasty(ScriptedLedger):
    """Its first attempts fail in the way they are told to."""

    def __init__(self, faulty: str, *answers: Settled | Exception) -> None:
        super().__init__(*answers)
        self._faulty = faulty

    def begin_settle(self, _hold: HoldRequest, _posting: Posting, **_answer: bytes) -> Begun | None:  # type: ignore[override]
        if self._faulty == "sending":
            raise ValueError("a fault of ours")
        reply = asyncio.get_running_loop().create_future()
        reply.set_result([b"?"])
        return Begun(reply, Script("settle", "", ""), 0.0)

    def settled(self, _begun: Begun, _hold: HoldRequest, _posting: Posting) -> Settled | None:
        if self._faulty == "reading":
            raise ValueError("a fault of ours")
        return None


@pytest.mark.parametrize("faulty", ["sending", "reading", "the reply"])
def test_a_first_attempt_that_fails_is_made_again(faulty: str) -> None:
    """It is the short way of most settlements; no charge may end with it."""
    ledger = Hasty(faulty, Settled(changed=True, posted_nano_usd=42))

    async def scenario() -> int:
        owed = settlements(ledger, Tasks())
        await owed.settle(OWED)
        return owed.owed

    assert 0 == asyncio.run(scenario())
    assert [CHARGE] == ledger.postings


@pytest.mark.parametrize("posted", [None, 7])
def test_a_charge_that_stands_in_no_ledger_is_told(posted: int | None, caplog: pytest.LogCaptureFixture) -> None:
    """Redis lost the hold, or it ended at another amount: someone must look."""
    ledger = ScriptedLedger(Settled(changed=False, posted_nano_usd=posted))

    async def scenario() -> None:
        await settlements(ledger, Tasks()).settle(OWED)

    with caplog.at_level(logging.ERROR, "gateway.settlement"):
        asyncio.run(scenario())
    (record,) = caplog.records
    assert "42 nano-USD are" in record.message
    assert ("quarantine" if posted is None else f"the ledger has {posted}") in record.message


def test_a_hold_ends_once_by_whoever_posts_first() -> None:
    """Later postings of the same call are ignored, whatever path they come from."""
    ledger = ScriptedLedger(Settled(changed=True, posted_nano_usd=42))

    async def scenario() -> Posting | None:
        ending = Ending(settlements(ledger, Tasks()), HOLD)
        await ending.post(CHARGE)
        await ending.post(RELEASE)
        return ending.posting

    assert CHARGE == asyncio.run(scenario())
    assert [CHARGE] == ledger.postings


class Away:
    """A ledger that answers no settlement before it is told to."""

    def __init__(self) -> None:
        self.back = asyncio.Event()
        self.postings: list[Posting] = []

    def begin_settle(self, _hold: HoldRequest, _posting: Posting, **_answer: bytes) -> None:
        """No connection to send anything on."""

    async def settle(self, _hold: HoldRequest, posting: Posting, **_answer: bytes) -> Settled:
        if not self.back.is_set():
            raise LedgerUnavailable("away")
        self.postings.append(posting)
        return Settled(changed=True, posted_nano_usd=posting.cost_nano_usd)


def test_a_posting_without_an_answer_is_kept_on_disk_until_it_has_one(tmp_path: Path) -> None:
    """The call ends then, and a crash loses nothing; once Redis has answered, the file is empty again."""

    async def scenario() -> None:
        ledger, tasks, spool = Away(), Tasks(), Spool(tmp_path)
        spool.open()
        owed = settlements(cast(ScriptedLedger, ledger), tasks, wait_s=0, spool=spool)
        await owed.settle(OWED)
        assert 1 == len(spool)
        assert [OWED] == contents(tmp_path)
        ledger.back.set()
        await tasks.finished(10)
        assert [CHARGE] == ledger.postings
        assert [] == contents(tmp_path)
        await spool.close()

    asyncio.run(scenario())


def test_what_another_process_left_behind_is_posted(tmp_path: Path) -> None:
    """Its file goes only when all of it is posted; until then nobody else takes it."""

    async def scenario() -> None:
        ledger, stop, spool = Away(), asyncio.Event(), Spool(tmp_path)
        killed = Spool(tmp_path)
        killed.open()
        await killed.keep(OWED)
        await killed.close()
        spool.open()
        owed = settlements(cast(ScriptedLedger, ledger), Tasks(), spool=spool)
        ledger.back.set()
        replaying = asyncio.create_task(owed.replay(stop))
        await owed.replayed.wait()
        stop.set()
        await replaying
        assert [CHARGE] == ledger.postings
        assert [] == contents(tmp_path)
        await spool.close()

    asyncio.run(scenario())


class Taken:
    """Jobs that are all another call's already."""

    async def bind(self, _job: Job, _first_poll_ms: int) -> bool:
        return False


def test_a_charge_for_another_calls_job_is_flagged(tmp_path: Path) -> None:
    """By whoever makes its posting: the process that submitted it, or the one that finds it in the spool."""
    owed = Owed(HOLD, CHARGE, (Job("1", "s", HOLD, 1),))
    flagged = CHARGE._replace(usage_source="estimated", flags=("anomaly",))

    async def scenario() -> None:
        ledger, stop, spool, killed = Away(), asyncio.Event(), Spool(tmp_path), Spool(tmp_path)
        ledger.back.set()
        settling = Settlements(cast(Ledger, ledger), cast(Jobs, Taken()), Tasks(), Metrics(), spool, 10)
        assert flagged == await settling.settle(owed)
        killed.open()
        await killed.keep(owed)
        await killed.close()
        spool.open()
        replaying = asyncio.create_task(settling.replay(stop))
        await settling.replayed.wait()
        stop.set()
        await replaying
        assert [flagged, flagged] == ledger.postings
        await spool.close()

    asyncio.run(scenario())


def test_files_that_cannot_be_read_whole_are_set_aside_and_keep_no_other_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the postings behind them, nor, for ever, the reaper, which waits until the spool is replayed."""
    other = Owed(HOLD._replace(hold_id="h2"), Posting("capture", 7))
    not_understood, damaged = framed(b'{"hold":{}}'), b"?" * 60
    (tmp_path / "0-bad.spool").write_bytes(not_understood)
    (tmp_path / "1-bad.spool").write_bytes(record_of(OWED) + damaged + record_of(other))
    (tmp_path / "2-good.spool").write_bytes(record_of(other))

    async def scenario() -> None:
        ledger, metrics, stop, spool = Away(), Metrics(), asyncio.Event(), Spool(tmp_path)
        ledger.back.set()
        spool.open()
        owed = Settlements(cast(Ledger, ledger), cast(Jobs, None), Tasks(), metrics, spool, 10)
        replaying = asyncio.create_task(owed.replay(stop))
        await asyncio.wait_for(owed.replayed.wait(), 10)
        stop.set()
        await replaying
        assert [CHARGE, other.posting, other.posting] == ledger.postings
        assert b"gateway_spool_unreadable_total 2.0" in metrics.render(None)
        await spool.close()

    asyncio.run(scenario())
    assert ["0-bad.unreadable", "1-bad.damaged"] == sorted(path.name for path in tmp_path.iterdir())
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert ["0-bad.unreadable: 0 records are damaged and 1", "1-bad.damaged: 1 records are damaged and 0"] == [
        message.rpartition("/")[2].partition(" are not")[0] for message in errors
    ]


def contents(folder: Path) -> list[Owed]:
    """All that a crash would leave to be posted."""
    return [owed for path in folder.glob("*.spool") for owed in read_spool(path.read_bytes()).owed]
