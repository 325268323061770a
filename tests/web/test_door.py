"""How many connections are let in, in all and of each address."""

from ipaddress import ip_network

import pytest

from gateway.web.door import Door, DoorRules


def let_in(door: Door, *peers: str | None) -> list[bool]:
    return [door.enter(peer) is None for peer in peers]


def test_one_address_has_a_bound_of_its_own() -> None:
    """Others still come in; who leaves makes room for the next."""
    door = Door(DoorRules(connections_max=4, connections_per_address_max=2))
    assert [True, True, False, True] == let_in(door, "192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2")
    door.leave("192.0.2.1")
    assert [True, False] == let_in(door, "192.0.2.1", "192.0.2.1")


def test_all_have_one_bound() -> None:
    """Whatever their addresses."""
    door = Door(DoorRules(connections_max=2))
    assert [True, True, False] == let_in(door, "192.0.2.1", "192.0.2.2", "192.0.2.3")
    door.leave("192.0.2.2")
    assert [True] == let_in(door, "192.0.2.3")


def test_a_subscriber_of_ipv6_is_one_address() -> None:
    """Each has 2^64 of them at least."""
    door = Door(DoorRules(connections_per_address_max=1))
    assert [True, False, True] == let_in(door, "2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:2::1")


@pytest.mark.parametrize("peer", ["10.1.2.3", None])
def test_a_proxy_is_many_clients(peer: str | None) -> None:
    """A trusted one, or whoever comes through a socket of this machine: bounded in all alone."""
    rules = DoorRules(connections_max=3, connections_per_address_max=1, trusted_proxies=(ip_network("10.0.0.0/8"),))
    door = Door(rules)
    assert [True, True, True, False] == let_in(door, peer, peer, peer, peer)
    door.leave(peer)
    assert [True, False] == let_in(door, peer, peer)


def test_a_proxy_that_nobody_named_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """A named one is not, nor who comes through a socket of this machine."""
    door = Door(DoorRules(trusted_proxies=(ip_network("10.0.0.0/8"),)))
    for peer in ("10.1.2.3", None, "172.18.0.5", "172.18.0.5", "172.18.0.6"):
        door.heard_forwarded(peer)
    warned = [record.getMessage() for record in caplog.records]
    assert [True, True] == [f"GATEWAY_TRUSTED_PROXIES=172.18.0.{n}" in line for n, line in enumerate(warned, 5)]


def test_who_makes_the_header_up_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """From however many addresses."""
    door = Door(DoorRules())
    for number in range(1000):
        door.heard_forwarded(f"2001:db8::{number:x}")
    assert 8 == len(caplog.records)


def test_a_refusal_says_when_to_come_again() -> None:
    """503 with Retry-After."""
    refusal = Door(DoorRules(connections_max=0)).enter("192.0.2.1")
    assert refusal is not None
    assert ("overloaded", 1) == (refusal.code, refusal.retry_after_s)


def test_so_many_may_linger() -> None:
    """Past them a connection is closed at once, whether its answer was read or not."""
    door = Door(DoorRules())
    assert 256 == sum(door.may_linger() for _ in range(300))
    door.lingered()
    assert [True, False] == [door.may_linger(), door.may_linger()]
