"""Whoever comes again and again with a key that is not good is slowed down; nobody else at that address is.

Two buckets for each address (ADRs 0037 and 0042). Nobody finds a random secret by trying: wrong ones are told so, then
429, and right ones are served all the while. The administrator's key and the metrics token may be words that somebody
chose, so what may be a guess at them is counted before it is looked at, and once there were too many it is not looked
at: an answer would tell which one is right.
"""

import contextlib
import math
import time
from collections.abc import Collection, Iterator

from gateway.billing.errors import AuthenticationError, GatewayError, InvalidAPIKey, TooManyBadKeys
from gateway.billing.principal import organisation_of
from gateway.brake import Brake, Network, address_of


class BadKeys:
    """`proxies`: those whose X-Forwarded-For is believed."""

    def __init__(self, proxies: Collection[Network] = ()) -> None:
        self._guesses = Brake()
        self._failures = Brake()
        self._proxies = proxies

    @contextlib.contextmanager
    def looking_at(self, secret: str, peer: str | None, forwarded_for: str, *, proven: bool) -> Iterator[None]:
        """Around the look at a secret. `proven`: it is a random one of the settings, and the right one.

        Raises TooManyBadKeys: this address has to wait.
        """
        if proven:
            yield
        elif organisation_of(secret) is None:
            with self._guessing(self.address(peer, forwarded_for)):
                yield
        else:
            try:
                yield
            except InvalidAPIKey as error:
                raise self.answer_to(error, peer, forwarded_for) from None

    def answer_to(self, error: GatewayError, peer: str | None, forwarded_for: str) -> GatewayError:
        """What a refused call is answered: what refused it, or for one wrong key too many that it is to wait."""
        if not isinstance(error, InvalidAPIKey):
            return error
        wait_s = self._failures.enter(self.address(peer, forwarded_for), time.monotonic())
        return error if wait_s <= 0 else _too_many(wait_s)

    def address(self, peer: str | None, forwarded_for: str) -> str:
        """Whom a wrong key is counted against."""
        return address_of(peer, forwarded_for, self._proxies)

    @contextlib.contextmanager
    def _guessing(self, address: str) -> Iterator[None]:
        wait_s = self._guesses.enter(address, time.monotonic())
        if wait_s > 0:
            raise _too_many(wait_s)
        try:
            yield
        except AuthenticationError:
            raise  # it stays counted
        except BaseException:
            self._guesses.take_back(address)  # nobody's guess: the ledger is away, or the client
            raise
        self._guesses.take_back(address)


def _too_many(wait_s: float) -> TooManyBadKeys:
    retry_after_s = math.ceil(wait_s)
    return TooManyBadKeys(
        "Too many keys that are not valid came from your address. Check the key you send, and try again in "
        f"{retry_after_s} s.",
        retry_after_s=retry_after_s,
    )
