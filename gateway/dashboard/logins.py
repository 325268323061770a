"""Logging in: a key becomes a session. What fails is logged, counted, and slows down the address it came from."""

from contextlib import AbstractContextManager
from typing import Protocol

from starlette.requests import Request

from gateway.billing.errors import AuthenticationError, ScopeBlocked, TooManyBadKeys, TooManyFailures
from gateway.billing.principal import digest_of
from gateway.dashboard.visitors import Door
from gateway.metrics import Metrics
from gateway.store.sessions import Sessions


class BadKeys(Protocol):
    """Counts what fails, here and at other doors to the same keys, by the address it came from."""

    def looking_at(
        self, secret: str, peer: str | None, forwarded_for: str, *, proven: bool
    ) -> AbstractContextManager[None]: ...
    def address(self, peer: str | None, forwarded_for: str) -> str: ...


class Logins:
    def __init__(self, door: Door, sessions: Sessions, metrics: Metrics, bad_keys: BadKeys) -> None:
        self._door = door
        self._sessions = sessions
        self._metrics = metrics
        self._bad_keys = bad_keys

    async def open(self, request: Request, secret: str) -> str:
        """The token of a new session for the owner of a key.

        Raises AuthenticationError, ScopeBlocked: the key is none, or none any more. TooManyFailures: this address has
        to wait. LedgerUnavailable.
        """
        origin = _origin_of(request)
        try:
            with self._bad_keys.looking_at(secret, *origin, proven=self._door.is_proven(secret)):
                visitor = await self._door.caller(None, secret.encode())
                return await self._sessions.open(visitor.org, digest_of(secret))
        except TooManyBadKeys as error:
            self._metrics.observe_slowed_login()
            raise TooManyFailures(
                "Too many wrong keys came from this address; wait a little.", retry_after_s=error.retry_after_s
            ) from None
        except (AuthenticationError, ScopeBlocked) as error:
            self._metrics.observe_failed_login(error.code, self._bad_keys.address(*origin))
            raise


def _origin_of(request: Request) -> tuple[str | None, str]:
    peer = request.client.host if request.client else None
    return peer, ",".join(request.headers.getlist("x-forwarded-for"))
