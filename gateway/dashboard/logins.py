"""Logging in: a key becomes a session. What fails is logged, counted, and slows down the address it came from."""

import math
import time
from collections.abc import Collection

from starlette.requests import Request

from gateway.billing.errors import AuthenticationError, ScopeBlocked, TooManyFailures
from gateway.billing.principal import digest_of
from gateway.brake import Brake, Network, address_of
from gateway.dashboard.visitors import Door
from gateway.metrics import Metrics
from gateway.store.sessions import Sessions


class Logins:
    """`brake` counts what fails, here and at other doors to the same keys. `proxies`: whose X-Forwarded-For is
    believed."""

    def __init__(
        self, door: Door, sessions: Sessions, metrics: Metrics, brake: Brake, proxies: Collection[Network]
    ) -> None:
        self._door = door
        self._sessions = sessions
        self._metrics = metrics
        self._proxies = proxies
        self._brake = brake

    async def open(self, request: Request, secret: str) -> str:
        """The token of a new session for the owner of a key.

        Raises AuthenticationError, ScopeBlocked: the key is none, or none any more. TooManyFailures: this address has
        to wait, whatever its key. LedgerUnavailable.
        """
        address = self._address(request)
        wait_s = self._brake.enter(address, time.monotonic())
        if wait_s > 0:
            self._metrics.observe_slowed_login()
            raise TooManyFailures(
                "Too many wrong keys came from this address; wait a little.",
                retry_after_s=math.ceil(wait_s),
            )
        try:
            visitor = await self._door.caller(None, secret.encode())
            token = await self._sessions.open(visitor.org, digest_of(secret))
        except (AuthenticationError, ScopeBlocked) as error:
            self._metrics.observe_failed_login(error.code, address)
            raise
        except BaseException:
            self._brake.take_back(address)  # nobody's guess: the ledger is away, or the client
            raise
        self._brake.take_back(address)
        return token

    def _address(self, request: Request) -> str:
        peer = request.client.host if request.client else None
        return address_of(peer, ",".join(request.headers.getlist("x-forwarded-for")), self._proxies)
