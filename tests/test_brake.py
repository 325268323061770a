"""Who fails again and again waits; nobody else does, and memory stays bounded."""

from ipaddress import ip_network

import pytest

from gateway.brake import Brake, address_of


def test_so_many_failures_are_forgiven_and_then_one_every_few_seconds() -> None:
    """The wait that is told is the one after which an attempt is let through; being refused makes it no longer."""
    brake = Brake(failures_max=3, failure_s=6)
    assert [0, 0, 0, 6, 6] == [brake.enter("a", 100) for _ in range(5)]
    assert [2, 0, 6] == [brake.enter("a", now_s) for now_s in (104, 106, 106)]
    assert [0, 0, 0, 6] == [brake.enter("a", 1000) for _ in range(4)]


def test_each_address_has_failures_of_its_own() -> None:
    """One that guesses keeps nobody else out."""
    brake = Brake(failures_max=1, failure_s=6)
    assert [0, 6, 0] == [brake.enter(address, 100) for address in ("a", "a", "b")]


def test_what_succeeds_is_no_failure() -> None:
    """An office behind one address logs in all morning; what had failed before stays counted."""
    brake = Brake(failures_max=2, failure_s=6)
    for _ in range(10):
        assert 0 == brake.enter("a", 100)
        brake.take_back("a")
    assert [0, 0, 6] == [brake.enter("a", 100) for _ in range(3)]
    brake.take_back("never-came")


def test_no_more_addresses_are_remembered_than_the_bound_says() -> None:
    """Forgotten is who tried longest ago: whoever goes on guessing stays remembered."""
    brake = Brake(failures_max=2, failure_s=6, addresses_max=2)
    for address in ("a", "b", "a", "c"):
        assert 0 == brake.enter(address, 100)
    assert [6, 0] == [brake.enter(address, 100) for address in ("a", "b")]


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "proxies", "expected"),
    [
        ("203.0.113.9", "", (), "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", (), "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1", ("10.0.0.0/8",), "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.9", ("10.0.0.0/8",), "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.9, 10.0.0.2", ("10.0.0.0/8",), "203.0.113.9"),
        ("10.0.0.1", "", ("10.0.0.0/8",), "10.0.0.1"),
        ("10.0.0.1", "unknown, <script>", ("10.0.0.0/8",), "10.0.0.1"),
        ("10.0.0.1", "10.0.0.3,10.0.0.2", ("10.0.0.0/8",), "10.0.0.3"),
        ("2001:db8::1:2:3:4", "", (), "2001:db8::/64"),
        ("::ffff:203.0.113.9", "", (), "203.0.113.9"),
        ("::ffff:10.0.0.1", "203.0.113.9", ("10.0.0.1",), "203.0.113.9"),
        ("fe80::1%eth0", "", (), "fe80::/64"),
        (None, "", (), "unknown"),
        (None, "203.0.113.9", ("10.0.0.0/8",), "unknown"),
    ],
)
def test_an_address_is_the_nearest_that_no_trusted_proxy_has(
    peer: str | None, forwarded_for: str, proxies: tuple[str, ...], expected: str
) -> None:
    """Whatever a client writes into X-Forwarded-For by itself, it stands before what our proxies add."""
    assert expected == address_of(peer, forwarded_for, [ip_network(text) for text in proxies])
