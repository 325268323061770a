"""The quarantine: what is taken out leaves one entry, however many people take it out at once."""

from gateway.billing.ledger import violations
from gateway.store.quarantine import DISMISSED, Quarantine
from tests.store.bench import ORG, Bench, capture


def test_a_charge_is_dismissed_once_by_whoever_is_first(bench: Bench) -> None:
    """Two entries would look like two charges that somebody let go."""
    quarantine = Quarantine(bench.redis, bench.scripts)
    lost = bench.call(100)
    bench.settle(lost, capture(30))
    results = bench.together([quarantine.dismiss(ORG, lost.hold_id, f"key k{number}") for number in range(20)])
    ((charge, entry_id),) = [result for result in results if result is not None]
    (entry,) = bench.entries()
    assert (lost.hold_id, 30, entry.id) == (charge.hold_id, charge.cost_nano_usd, entry_id)
    assert ("adjustment", 0, (DISMISSED,), lost.request_id) == (
        entry.type,
        entry.cost_nano_usd,
        entry.flags,
        entry.request_id,
    )
    assert [] == bench.run(quarantine.page(ORG, after=(0, ""), limit=10))
    assert [] == violations(bench.books())
