"""The comparison that the demo's promise stands on: it must find what is wrong, or its Yes says nothing."""

from typing import Any

from gateway.cli.demo.books import differences_between


def entry(request_id: str, cost_nano_usd: int) -> dict[str, Any]:
    return {"request_id": request_id, "cost_nano_usd": cost_nano_usd}


def line(request_id: str, generated_nano_usd: int) -> dict[str, Any]:
    return {"request_id": request_id, "generated_nano_usd": generated_nano_usd}


def test_a_charge_and_its_refund_equal_a_voided_line() -> None:
    """A failed image is two entries here and one line of nothing there."""
    entries = [entry("image", 1_500_000), entry("image", -1_500_000), entry("chat", 4_350)]
    assert [] == differences_between(entries, [line("image", 0), line("chat", 4_350)])


def test_a_nano_dollar_is_a_difference() -> None:
    """Rounding once too often must show."""
    found = differences_between([entry("chat", 4_351)], [line("chat", 4_350)])
    assert ["call chat: booked 4351 nano-USD, billed 4350"] == found


def test_equal_sums_of_unequal_calls_are_differences() -> None:
    """Two mistakes that cancel out are two mistakes."""
    found = differences_between([entry("a", 1), entry("b", 2)], [line("a", 2), line("b", 1)])
    assert ["call a: booked 1 nano-USD, billed 2", "call b: booked 2 nano-USD, billed 1"] == found


def test_what_only_one_side_knows_is_a_difference() -> None:
    """A call that was never booked was free; one that was never billed was charged for nothing."""
    found = differences_between([entry("invented", 5)], [line("forgotten", 7)])
    assert [
        "call forgotten: booked 0 nano-USD, billed 7",
        "call invented: booked 5 nano-USD, billed 0",
    ] == found
