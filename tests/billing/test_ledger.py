"""The invariants: silent over books that are right, and loud about each error planted in them."""

from dataclasses import replace

import pytest

from gateway.billing.ledger import ANOMALY, ESTIMATED, OVERRUN, UNANSWERED, Books, Credit, Entry, OpenHold, violations
from gateway.billing.principal import Scope

ORGANISATION, TEAM, USER, KEY = Scope("organisation", "o"), Scope("team", "t"), Scope("user", "u"), Scope("key", "k")
SPARE_KEY = Scope("key", "spare")

CAPTURE = Entry(
    id="1-0",
    at_ms=2,
    admitted_at_ms=1,
    type="capture",
    hold_id="h1",
    cost_nano_usd=100,
    request_id="h1",
    org="o",
    team="t",
    user="u",
    key="k",
    kind="chat",
    model="gpt-4o-mini",
    prompt_tokens=1,
    completion_tokens=1,
    units=0,
    usage_source="upstream",
    price_version="v",
    paid_by=("user",),
)
RELEASED = replace(CAPTURE, id="2-0", type="release", hold_id="h2", cost_nano_usd=0, key="spare", user=None, paid_by=())
REFUND = replace(CAPTURE, id="3-0", type="refund", cost_nano_usd=-40)
HOLD = OpenHold("h3", "h3", "o", "t", "u", "k", hold_nano_usd=7, admitted_at_ms=1, deadline_ms=9, paid_by=("user",))
PAID_IN = replace(
    CAPTURE,
    id="0-1",
    type="credit",
    hold_id="c1",
    cost_nano_usd=0,
    key="",
    request_id="",
    credit_nano_usd=5,
    paid_by=(),
)
GIVEN = replace(PAID_IN, id="0-2", type="transfer", hold_id="c2", user=None, credit_nano_usd=1)
CREDIT = {USER: Credit(5, 60, 7), TEAM: Credit(1, 0, 0)}
SUMS = {ORGANISATION: 60, TEAM: 60, USER: 60, KEY: 60}

RIGHT = Books(
    entries=(PAID_IN, GIVEN, CAPTURE, RELEASED, REFUND),
    holds=(HOLD,),
    spent={**SUMS, SPARE_KEY: 0},
    held=dict.fromkeys((ORGANISATION, TEAM, USER, KEY), 7),
    reported=SUMS,
    credit=CREDIT,
)


def test_right_books_are_silent() -> None:
    """A credit, a transfer, a capture, a release, a refund, an open hold; scopes without calls may be absent."""
    assert [] == violations(RIGHT)
    assert [] == violations(Books((), (), {}, {}, {}))


@pytest.mark.parametrize(
    ("books", "found"),
    [
        (replace(RIGHT, spent={**RIGHT.spent, USER: 61}), ["user u: spent is 61 nano-USD, its sum is 60 (off by 1)"]),
        (replace(RIGHT, spent={**SUMS, SPARE_KEY: 5}), ["key spare: spent is 5 nano-USD, its sum is 0 (off by 5)"]),
        (replace(RIGHT, held={**RIGHT.held, KEY: 0}), ["key k: held is 0 nano-USD, its sum is 7 (off by -7)"]),
        (replace(RIGHT, holds=(HOLD, replace(HOLD, id="h4", key="spare", user=None, paid_by=()))),
         ["key spare: held is 0 nano-USD, its sum is 7 (off by -7)",
          "organisation o: held is 7 nano-USD, its sum is 14 (off by -7)",
          "team t: held is 7 nano-USD, its sum is 14 (off by -7)"]),
        (replace(RIGHT, reported={**SUMS, USER: 0}), ["user u: reported is 0 nano-USD, its sum is 60 (off by -60)"]),
        (replace(RIGHT, credit={**CREDIT, USER: Credit(6, 60, 7)}),
         ["user u: paid in is 6 nano-USD, its sum is 5 (off by 1)"]),
        (replace(RIGHT, credit={**CREDIT, USER: Credit(5, 0, 0)}),
         ["user u: spent of credit is 0 nano-USD, its sum is 60 (off by -60)",
          "user u: held of credit is 0 nano-USD, its sum is 7 (off by -7)"]),
        (replace(RIGHT, credit={USER: CREDIT[USER]}),
         ["team t: paid in is 0 nano-USD, its sum is 1 (off by -1)"]),
        (replace(RIGHT, entries=(*RIGHT.entries, replace(CAPTURE, id="4-0", cost_nano_usd=0))),
         ["hold h1 was resolved 2 times"]),
        (replace(RIGHT, entries=(*RIGHT.entries, replace(RELEASED, id="4-0", hold_id="h3"))),
         ["hold h3 is open and resolved"]),
        (replace(RIGHT, reported={**SUMS, TEAM: 59}),
         ["team t: reported is 59 nano-USD, its sum is 60 (off by -1)",
          "team t: reported is 59 nano-USD, its sum is 60 (off by -1)"]),
    ],
)  # fmt: skip
def test_a_planted_error_is_found_with_its_difference(books: Books, found: list[str]) -> None:
    """Scope, both numbers and how far they are apart: enough to start looking."""
    assert found == [text.split(": ", 1)[1] for text in violations(books)]


def test_a_missing_entry_is_found_at_every_scope() -> None:
    """An entry that someone deletes leaves its traces in four balances, four reports and the credit that paid it."""
    assert 9 == len(violations(replace(RIGHT, entries=RIGHT.entries[:-1])))


def test_a_refund_is_no_second_end() -> None:
    """It corrects the capture's cost by an entry of its own; the hold still ended once."""
    assert [] == [text for text in violations(RIGHT) if "resolved" in text]


@pytest.mark.parametrize(
    ("flags", "estimated"),
    [((), 0), ((OVERRUN,), 0), ((ESTIMATED,), 100), ((ESTIMATED, UNANSWERED), 100), ((ANOMALY,), 100)],
)
def test_what_rests_on_an_estimate_says_so(flags: tuple[str, ...], estimated: int) -> None:
    """An overrun is exact: the upstream proved it."""
    assert estimated == replace(CAPTURE, flags=flags).estimated_nano_usd
