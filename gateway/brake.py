"""Slow down whoever fails again and again, such as at guessing keys. Pure: who asks says what time it is.

For each address there is a bucket of failures: so many at once are forgiven, and it leaks one every few seconds. An
attempt is counted before it is made and taken back where it succeeds, so attempts at the same time count too.
Memory is bounded: beyond `addresses_max` the address is forgotten that tried longest ago.
"""

from collections import OrderedDict
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network

_SUBSCRIBER_BITS = 64
"""Of an IPv6 address: one subscriber has at least so many addresses behind these bits."""


class Brake:
    def __init__(self, failures_max: int = 10, failure_s: float = 6.0, addresses_max: int = 10_000) -> None:
        self._full_s = failures_max * failure_s
        self._failure_s = failure_s
        self._addresses_max = addresses_max
        self._empty_at_s: OrderedDict[str, float] = OrderedDict()

    def enter(self, address: str, now_s: float) -> float:
        """Count an attempt that is about to be made, and return 0; or, where the bucket is full, count nothing and
        return how many seconds to wait. `now_s` is of any clock that never goes back."""
        empty_at_s = max(self._empty_at_s.get(address, now_s), now_s) + self._failure_s
        wait_s = empty_at_s - now_s - self._full_s
        if wait_s > 0:
            return wait_s
        self._empty_at_s[address] = empty_at_s
        self._empty_at_s.move_to_end(address)
        if len(self._empty_at_s) > self._addresses_max:
            self._empty_at_s.popitem(last=False)
        return 0.0

    def take_back(self, address: str) -> None:
        """The attempt that was counted was no failure."""
        if address in self._empty_at_s:
            self._empty_at_s[address] -= self._failure_s


def address_of(peer: str | None, forwarded_for: str, proxies: Collection[Network]) -> str:
    """Whom to count an attempt against: the nearest hop that is none of our proxies, of IPv6 its /64.

    `peer` is who is connected (None: through a socket that has no address), `forwarded_for` what X-Forwarded-For says,
    which counts only as far as trusted proxies wrote it. Without any the peer is who came.
    """
    found: IPv4Address | IPv6Address | None = None
    for hop in (peer or "", *reversed(forwarded_for.split(","))):
        address = _parsed(hop.strip())
        if address is None:
            break
        found = address
        if not any(address in network for network in proxies):
            break
    if isinstance(found, IPv6Address):
        return str(ip_network((found, _SUBSCRIBER_BITS), strict=False))
    return str(found) if found else "unknown"


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
