"""The account at MiniToolAI: what was entered less what the ledger charged since, whoever enters at the same time."""

import itertools

import pytest

from gateway.billing.errors import LedgerUnavailable
from gateway.billing.money import NANO_USD_MAX
from gateway.billing.upstream_account import AccountChange, AccountEntry, AccountEntryType, Entered, NotEntered
from gateway.store.upstream_account import UpstreamAccounts
from tests.store.bench import BY_DESK, ORG, Bench, capture

_IDS = itertools.count(1)


@pytest.fixture
def accounts(bench: Bench) -> UpstreamAccounts:
    return UpstreamAccounts(bench.redis, bench.scripts)


def top_up(amount_nano_usd: int, *, kind: AccountEntryType = "top_up", note: str = "") -> AccountChange:
    return AccountChange(f"u{next(_IDS)}", kind, amount_nano_usd, note, "admin")


def entered(bench: Bench, accounts: UpstreamAccounts, change: AccountChange) -> AccountEntry:
    outcome = bench.run(accounts.enter(ORG, change))
    assert isinstance(outcome, Entered)
    return outcome.entry


def spend(bench: Bench, cost_nano_usd: int) -> None:
    request = bench.call(cost_nano_usd, BY_DESK)
    bench.admit(request)
    bench.settle(request, capture(cost_nano_usd))


def test_before_anything_is_entered_nothing_is_known(bench: Bench, accounts: UpstreamAccounts) -> None:
    """Not even that the account is empty."""
    spend(bench, 100)
    assert bench.run(accounts.balance(ORG)) is None
    assert [] == bench.run(accounts.page(ORG, before=None, limit=10))


def test_only_what_is_charged_after_the_first_entry_is_taken_off(bench: Bench, accounts: UpstreamAccounts) -> None:
    """A failed image comes back; a hold is not yet a charge."""
    spend(bench, 100)
    first = entered(bench, accounts, top_up(1_000))
    assert (1_000, 1_000, 100) == (first.amount_nano_usd, first.balance_nano_usd, first.spent_nano_usd)
    spend(bench, 30)
    job = bench.submitted_job(400)
    bench.admit(bench.call(50))
    assert 570 == bench.run(accounts.balance(ORG))
    bench.refund(job)
    assert 970 == bench.run(accounts.balance(ORG))
    second = entered(bench, accounts, top_up(5))
    assert (5, 975) == (second.amount_nano_usd, second.balance_nano_usd)
    spend(bench, 2_000)
    assert -1_025 == bench.run(accounts.balance(ORG))


def test_a_balance_that_was_read_is_the_balance(bench: Bench, accounts: UpstreamAccounts) -> None:
    """Its entry says by how much the estimate was off, either way; none is lost from the sum."""
    first = entered(bench, accounts, top_up(500, kind="balance"))
    assert (500, 500) == (first.amount_nano_usd, first.balance_nano_usd)
    spend(bench, 100)
    for there, off in ((390, -10), (1_000, 610), (0, -1_000)):
        entry = entered(bench, accounts, top_up(there, kind="balance"))
        assert (off, there) == (entry.amount_nano_usd, entry.balance_nano_usd)
        assert there == bench.run(accounts.balance(ORG))


def test_the_balance_is_the_sum_of_its_entries_less_the_ledgers(bench: Bench, accounts: UpstreamAccounts) -> None:
    """After each of many top-ups, balances and charges, to the nano-dollar, with amounts of all 16 digits."""
    spent_before = 0
    for number in range(60):
        size = number * 7_919_000_000_003 % 80_000_000_000_007
        if number % 3 == 0:
            spend(bench, size // 10_000 + 1)
        else:
            entered(bench, accounts, top_up(size, kind="balance" if number % 5 == 4 else "top_up"))
        entries = bench.run(accounts.page(ORG, before=None, limit=100))
        charged = sum(entry.cost_nano_usd for entry in bench.entries())
        if not entries:
            spent_before = charged
            continue
        expected = sum(entry.amount_nano_usd for entry in entries) - (charged - spent_before)
        assert expected == bench.run(accounts.balance(ORG)), number


def test_what_is_sent_again_is_entered_once(bench: Bench, accounts: UpstreamAccounts) -> None:
    """Fifty at once; each hears of the same entry, whatever the balance is by then."""
    change = top_up(1_000, note="November")
    outcomes = bench.together([accounts.enter(ORG, change) for _ in range(50)])
    spend(bench, 10)
    outcomes.append(bench.run(accounts.enter(ORG, change)))
    assert 1 == len({outcome.entry for outcome in outcomes if isinstance(outcome, Entered)})
    assert [False] + [True] * 50 == sorted(outcome.repeated for outcome in outcomes if isinstance(outcome, Entered))
    assert 990 == bench.run(accounts.balance(ORG))


@pytest.mark.parametrize(
    "other",
    [
        AccountChange("same", "top_up", 1_001, "n", "admin"),
        AccountChange("same", "balance", 1_000, "n", "admin"),
        AccountChange("same", "top_up", 1_000, "m", "admin"),
    ],
    ids=["amount", "type", "note"],
)
def test_an_id_stands_for_one_entry(bench: Bench, accounts: UpstreamAccounts, other: AccountChange) -> None:
    """What differs in anything is not taken for a repeat, and changes nothing."""
    bench.run(accounts.enter(ORG, AccountChange("same", "top_up", 1_000, "n", "admin")))
    before = bench.everything()
    assert NotEntered("conflict") == bench.run(accounts.enter(ORG, other))
    assert before == bench.everything()


def test_what_cannot_be_counted_exactly_is_refused(bench: Bench, accounts: UpstreamAccounts) -> None:
    """All of it fits, a nano-dollar more does not, and nothing is written."""
    entered(bench, accounts, top_up(NANO_USD_MAX - 5))
    before = bench.everything()
    assert NotEntered("too_much", NANO_USD_MAX - 5) == bench.run(accounts.enter(ORG, top_up(6)))
    assert before == bench.everything()
    assert NANO_USD_MAX == entered(bench, accounts, top_up(5)).balance_nano_usd


def test_pages_go_back_in_time(bench: Bench, accounts: UpstreamAccounts) -> None:
    """The newest first, each entry once; texts come back as they were."""
    for amount_nano_usd in range(1, 6):
        entered(bench, accounts, top_up(amount_nano_usd, note=f"số {amount_nano_usd}"))
    seen: list[AccountEntry] = []
    while page := bench.run(accounts.page(ORG, before=seen[-1].id if seen else None, limit=2)):
        seen += page
    assert [(n, f"số {n}", "admin") for n in (5, 4, 3, 2, 1)] == [
        (entry.amount_nano_usd, entry.note, entry.author) for entry in seen
    ]


def test_an_unknown_organisation_has_no_account(bench: Bench, accounts: UpstreamAccounts) -> None:
    """The script ends before its first write."""
    before = bench.everything()
    with pytest.raises(LedgerUnavailable):
        bench.run(accounts.enter("stranger", top_up(1)))
    assert before == bench.everything()
