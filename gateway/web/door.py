"""Who comes in: how many connections there are, in all and of each address, and what each is bounded by."""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from ipaddress import ip_address

from gateway.billing.errors import GatewayError, Overloaded
from gateway.brake import Network, address_of

log = logging.getLogger("gateway.door")

_LINGERING_MAX = 256
_WARNED_OF_MAX = 8
"""Addresses that are warned of: proxies are few, and whoever makes the header up fills no log."""
_RETRY_AFTER_S = 1
_FULL = "This gateway has as many connections as it takes; close idle ones, and try again."
_FULL_OF_ONE = "Your address has as many connections to this gateway as one may have; use those that are open."


@dataclass(frozen=True, slots=True)
class DoorRules:
    """Bounds of a process's connections. Those of `trusted_proxies` are many clients', so they count in all alone."""

    connections_max: int = 4096
    connections_per_address_max: int = 1024
    trusted_proxies: Collection[Network] = ()
    head_timeout_s: float = 10
    write_timeout_s: float = 60


class Door:
    """Counts the connections of one process. Every `enter` that let in is followed by one `leave`.

    `on_turned_away` is called with the code of each error that a connection is closed with.
    """

    def __init__(self, rules: DoorRules, on_turned_away: Callable[[str], None] = lambda code: None) -> None:
        self.rules = rules
        self.turned_away = on_turned_away
        self._inside = 0
        self._of_address: dict[str, int] = {}
        self._lingering = 0
        self._warned_of: set[str] = set()

    def enter(self, peer: str | None) -> GatewayError | None:
        """Let a connection in, or say why not. `peer` is its address; None: through a socket that has none."""
        address = self._counted_as(peer)
        if self._inside >= self.rules.connections_max:
            return Overloaded(_FULL, retry_after_s=_RETRY_AFTER_S)
        if address is not None:
            count = self._of_address.get(address, 0)
            if count >= self.rules.connections_per_address_max:
                return Overloaded(_FULL_OF_ONE, retry_after_s=_RETRY_AFTER_S)
            self._of_address[address] = count + 1
        self._inside += 1
        return None

    def leave(self, peer: str | None) -> None:
        self._inside -= 1
        address = self._counted_as(peer)
        if address is not None:
            self._of_address[address] -= 1
            if not self._of_address[address]:
                del self._of_address[address]

    def heard_forwarded(self, peer: str | None) -> None:
        """A request of this address says whom it comes for. That nobody listens to it is told once, for it is a proxy,
        or somebody who made the header up; what stands in it is not told."""
        if peer is None or peer in self._warned_of or len(self._warned_of) >= _WARNED_OF_MAX or self._is_trusted(peer):
            return
        self._warned_of.add(peer)
        log.warning(
            "X-Forwarded-For came from %s, which is not in trusted_proxies, and was ignored. If that is your proxy, "
            "all clients behind it count as one address: their wrong keys, and connections_per_address_max. Name it: "
            "GATEWAY_TRUSTED_PROXIES=%s",
            peer,
            peer,
        )

    def may_linger(self) -> bool:
        """Whether one more may stay a moment for its answer to be read; `lingered` follows."""
        if self._lingering >= _LINGERING_MAX:
            return False
        self._lingering += 1
        return True

    def lingered(self) -> None:
        self._lingering -= 1

    def _counted_as(self, peer: str | None) -> str | None:
        return None if peer is None or self._is_trusted(peer) else address_of(peer, "", ())

    def _is_trusted(self, peer: str) -> bool:
        return any(ip_address(peer) in network for network in self.rules.trusted_proxies)
