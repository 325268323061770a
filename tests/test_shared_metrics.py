"""What workers count together: names agreed on, files that outlive a worker and not its gateway."""

import asyncio
import contextlib
import multiprocessing
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.billing.ledger import Posting
from gateway.billing.principal import Principal
from gateway.call_log import CallRecord
from gateway.metrics import Metrics
from gateway.shared_metrics import MetricsFolder, Share

CHAT = "/api/chat-completions/"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[MetricsFolder]:
    """The files of two workers."""
    with MetricsFolder.open_in(tmp_path) as made:
        made.prepare(0)
        made.prepare(1)
        yield made


def test_a_scrape_shows_what_all_workers_counted(folder: MetricsFolder) -> None:
    """Counters and histograms summed, gauges of what is in flight, too; teams past the bound are other, whoever met
    them: `b` was first in the other worker."""
    in_process(count, folder.share(0), ["a", "a", "b"], 1)
    shown = in_process(count, folder.share(1), ["b", "c", "d", "a"], 2)
    assert {"a": 3.0, "b": 2.0, "other": 2.0} == costs(shown)
    assert 7.0 == value(shown, "gateway_request_duration_seconds_count")
    assert 3.0 == value(shown, "gateway_calls_in_flight")
    assert 0.0 == value(shown, "gateway_ledger_up")


def test_who_takes_a_workers_place_counts_on(folder: MetricsFolder) -> None:
    """No counter goes back and no file is added; what the dead one had in flight is gone."""
    in_process(count, folder.share(0), ["a", "b"], 5)
    before = sorted(path.name for path in folder.path.iterdir())
    folder.prepare(0)
    shown = in_process(count, folder.share(0), ["a", "c"], 1)
    assert {"a": 2.0, "b": 1.0, "other": 1.0} == costs(shown)
    assert 1.0 == value(shown, "gateway_calls_in_flight")
    assert before == sorted(path.name for path in folder.path.iterdir())


def test_a_worker_tells_the_others_by_itself(folder: MetricsFolder) -> None:
    """Again and again while it runs: who is scraped is not who counted."""
    assert 2.0 == value(in_process(tell, folder.share(0), folder.share(1)), "gateway_quarantined_total")


def test_what_a_killed_worker_had_not_told_is_missing_and_nothing_else(folder: MetricsFolder) -> None:
    """Who takes its place begins at what was told, not at what was counted."""
    in_process(count_in_vain, folder.share(0))
    shown = in_process(count, folder.share(0), ["a"], 0)
    assert 4.0 == value(shown, "gateway_quarantined_total")
    assert {"a": 1.0} == costs(shown)


def test_names_that_come_at_once_stay_within_the_bound(folder: MetricsFolder) -> None:
    """Eight workers, each meeting the same fifty names in another order: all agree on the same ten."""
    names = [f"team-{number}" for number in range(50)]
    with contextlib.ExitStack() as ends, ThreadPoolExecutor(8) as pool:
        workers = [folder.share(number).names("teams", 10) for number in range(8)]
        for worker in workers:
            ends.callback(worker.close)

        def known_to(number: int) -> set[str]:
            order = names[number * 6 :] + names
            return {name for name in order if workers[number].has(name)}

        known = list(pool.map(known_to, range(8)))
    assert 10 == len(known[0])
    assert [known[0]] * 8 == known


def test_the_folder_is_private_and_gone_with_its_gateway(tmp_path: Path) -> None:
    """Two gateways may share a data directory; each removes its own files, and what a killed one left."""
    left = tmp_path / "metrics" / "left-by-a-killed-one"
    with MetricsFolder.open_in(tmp_path) as first:
        left.mkdir()
        (left / "counter_0.db").write_bytes(b"old")
        with MetricsFolder.open_in(tmp_path) as second:
            assert {first.path, second.path} == set((tmp_path / "metrics").iterdir())
            assert [0o700, 0o700] == [stat.S_IMODE(one.path.stat().st_mode) for one in (first, second)]
        assert [first.path] == list((tmp_path / "metrics").iterdir())
    assert [] == list((tmp_path / "metrics").iterdir())


def in_process(work: object, *args: object) -> str:
    """Run it in a process of its own, as a worker is."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        shown: str = pool.apply(work, args)  # type: ignore[arg-type]  # any function of this module
    return shown


def count(share: Share, teams: list[str], in_flight: int) -> str:
    """One call of a dollar by each team, so many calls begun and not ended, and then a scrape."""
    metrics = Metrics(teams_max=2, users_max=2, share=share)
    metrics.calls_in_flight.inc(in_flight)
    for team in teams:
        principal = Principal(org="default", team=team, user=None, key="k")
        posting = Posting("capture", 1_000_000_000)
        metrics.observe(CallRecord(CHAT, "r", 0.0, principal, "chat", "gpt-4o", posting=posting))
    return asyncio.run(metrics.scrape(None)).decode()


def count_in_vain(share: Share) -> str:
    """Four charges in quarantine, and then one more that nobody is told of."""
    metrics = Metrics(share=share)
    metrics.quarantined.inc(4)
    metrics.share_out()
    metrics.quarantined.inc()
    return ""


def tell(counts: Share, is_scraped: Share) -> str:
    """Once and once again: count, and scrape the other until it shows that."""
    return asyncio.run(_tell(Metrics(share=counts), Metrics(share=is_scraped)))


async def _tell(counting: Metrics, scraped: Metrics) -> str:
    stop, shown = asyncio.Event(), ""
    running = asyncio.create_task(counting.run(stop))
    for expected in (1.0, 2.0):
        counting.quarantined.inc()
        while not shown or expected != value(shown, "gateway_quarantined_total"):
            shown = (await scraped.scrape(None)).decode()
    stop.set()
    await running
    return shown


def costs(shown: str) -> dict[str, float]:
    return {
        sample.labels["team"]: sample.value
        for family in text_string_to_metric_families(shown)
        for sample in family.samples
        if sample.name == "gateway_cost_usd_total"
    }


def value(shown: str, name: str) -> float:
    (found,) = [
        sample.value
        for family in text_string_to_metric_families(shown)
        for sample in family.samples
        if sample.name == name
    ]
    return found
