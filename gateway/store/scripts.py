"""Run Lua scripts in Redis: the narrow protocol the ledger stands on.

A script is a file of `lua/`. Its comment `-- uses: scope hold` names the parts (`lua/_scope.lua`, …) that are put in
front of it. Scripts are sent by digest; a Redis that does not know one (restart, failover, flush) gets its source once.

`ScriptRunner` is all that `ledger` and the others know, so that another connection can take redis-py's place.
"""

import asyncio
import contextlib
import functools
import hashlib
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple, Protocol, cast

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, RedisClusterException, RedisError, ResponseError

from gateway.billing.errors import LedgerUnavailable
from gateway.store.topology import Misdirected

log = logging.getLogger("gateway.store")
_logged_at_s = 0.0

Argument = str | bytes | int
Reply = list[object]


@dataclass(frozen=True, slots=True)
class Script:
    name: str
    source: str
    digest: str


SCRIPTS = (
    "admit",
    "settle",
    "renew",
    "refund",
    "credit",
    "adjust",
    "dismiss",
    "repair",
    "repair_cell",
    "trim",
    "account",
    "enter",
    "record",
    "put_scope",
    "rotate",
    "put_prices",
    "project",
    "bind_job",
    "claim_jobs",
    "end_job",
)
"""Every script; `lua/_….lua` are their shared parts."""


@functools.cache
def load(name: str) -> Script:
    """Read a script and the parts it uses from the package's data."""
    folder = resources.files("gateway.store") / "lua"
    text = (folder / f"{name}.lua").read_text()
    used = next((line for line in text.splitlines() if line.startswith("-- uses:")), "-- uses:")
    parts = [(folder / f"_{part}.lua").read_text() for part in used.removeprefix("-- uses:").split()]
    source = with_constants("\n".join([*parts, text]))
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


_VALUE = r"(?:'[^'\n]*'|-?\d+(?: \* \d+)*)"
_CONSTANTS = re.compile(
    rf"^local ([A-Z][A-Z0-9_]*(?:, [A-Z][A-Z0-9_]*)*) = ({_VALUE}(?:, {_VALUE})*) *(--.*)?$", re.MULTILINE
)
_NAMES = re.compile(r"'[^'\n]*'|--.*|\b[A-Z][A-Z0-9_]*\b")


def with_constants(source: str) -> str:
    """Lua with the value of each constant (`local NAME = 60 * 1000`, at the start of a line) in place of its name.

    Redis runs a script from its first line at every call: each local that a function uses costs that call an object of
    its own. Lines stay where they were, so that Redis's messages name the right ones.

    Raises ValueError: a name is defined twice.
    """
    values: dict[str, str] = {}
    for names, texts, _comment in _CONSTANTS.findall(source):
        for name, text in zip(names.split(", "), texts.split(", "), strict=True):
            if name in values:
                raise ValueError(f"{name} is defined twice in one script")
            values[name] = f"({text})" if " " in text else text
    return _NAMES.sub(lambda found: values.get(found[0], found[0]), _CONSTANTS.sub(r"\3", source))


class Begun(NamedTuple):
    """A script on its way. `reply` ends by itself; what it holds is for `ScriptSender.ended` to read."""

    reply: asyncio.Future[object]
    script: Script
    began_s: float


class ScriptRunner(Protocol):
    """What runs a script in Redis."""

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        """Run once and return the reply; strings come back as bytes.

        Raises LedgerUnavailable: no answer within the bound. The script may have run all the same, so
        only what is idempotent by its id may be sent again.
        """


class ScriptSender(Protocol):
    """What runs a script without being waited for."""

    def begin(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Begun | None:
        """Send a script without waiting for it; None where the way to Redis must be made first: then `run` it."""

    def ended(self, begun: Begun) -> Reply | None:
        """The reply to what was begun, once it is done; None where there is none, or an error in its place."""


class RedisScripts:
    """`ScriptRunner` on redis-py's connections, without its retries: a retry would charge twice."""

    def __init__(
        self, redis: Redis, timeout_s: float, observe: Callable[[str, float], None] = lambda _name, _seconds: None
    ) -> None:
        """`observe` is told of every run: the script's name, and seconds until its reply or the end of waiting."""
        self._redis = redis
        self._observe = observe
        self._pool = redis.connection_pool
        self._timeout_s = timeout_s

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        began = time.perf_counter()
        try:
            return await self._run(script, keys, args)
        finally:
            self._observe(script.name, time.perf_counter() - began)

    async def _run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        with contextlib.suppress(Misdirected):
            return await self._run_once(script, keys, args)
        try:
            return await self._run_once(script, keys, args)  # on a connection to whoever is the master now
        except Misdirected as error:
            raise unavailable(error, maybe_applied=False) from error

    async def _run_once(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        """Raises Misdirected beside LedgerUnavailable."""
        try:
            async with asyncio.timeout(self._timeout_s):
                connection: AbstractConnection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        except Exception as error:
            if is_outage(error):
                raise unavailable(error, maybe_applied=False) from error
            raise
        try:
            return await self._run_on(connection, script, keys, args)
        finally:
            await self._pool.release(connection)

    async def _run_on(
        self, connection: AbstractConnection, script: Script, keys: Sequence[str], args: Sequence[Argument]
    ) -> Reply:
        try:
            async with asyncio.timeout(self._timeout_s):
                reply = await _evaluate(connection, script, keys, args)
        except Misdirected:
            raise
        except ResponseError as error:
            # Redis read the command and said no: it is loading, full, read-only, or the script itself refused.
            raise unavailable(error, maybe_applied=False) from error
        except BaseException as error:
            # The reply may still come: the connection must not be used for anyone else's.
            await connection.disconnect(nowait=True)
            if is_outage(error):
                raise unavailable(error, maybe_applied=True) from error
            raise
        return reply if isinstance(reply, list) else [reply]

    async def ready(self) -> bool:
        """Whether Redis answers and knows the scripts; teaches it those it does not know."""
        try:
            async with asyncio.timeout(self._timeout_s):
                scripts = [load(name) for name in SCRIPTS]
                known = await self._redis.script_exists(*(script.digest for script in scripts))
                for script, is_known in zip(scripts, known, strict=True):
                    if not is_known:
                        await self._redis.script_load(script.source)
        except Exception as error:
            if is_outage(error):
                return False
            raise
        return True


async def _evaluate(
    connection: AbstractConnection, script: Script, keys: Sequence[str], args: Sequence[Argument]
) -> object:
    await connection.send_packed_command(packed("EVALSHA", script.digest, len(keys), *keys, *args))
    try:
        return await connection.read_response()
    except NoScriptError:
        await connection.send_packed_command(packed("EVAL", script.source, len(keys), *keys, *args))
        return await connection.read_response()


def packed(*command: Argument) -> bytes:
    """A command as it is sent, made by hiredis: a batch of reports has thousands of arguments, and redis-py's own way
    takes several times as long.
    """
    return cast(bytes, hiredis.pack_command(command))  # type: ignore[arg-type]  # its stubs mean a tuple of one


class TranslatedFaults:
    """Around every command that is not a script: what Redis, or the way to it, fails with becomes LedgerUnavailable."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if error is not None and is_outage(error):
            raise unavailable(error) from error


def is_outage(error: BaseException) -> bool:
    """Whether it is Redis that failed, or the way to it.

    What is written to a connection that has ended just now fails on uvloop with a plain RuntimeError.
    """
    if isinstance(error, RuntimeError):
        return "handler is closed" in str(error)
    return isinstance(error, RedisError | RedisClusterException | OSError | TimeoutError)


def unavailable(error: BaseException, *, maybe_applied: bool = True) -> LedgerUnavailable:
    """What a client hears when Redis does not answer; raise it `from` the cause, which only the log shows."""
    _log_outage(f"{type(error).__name__}: {error}")
    return LedgerUnavailable(
        "The gateway's ledger cannot be reached, so this was refused; nothing was billed. Try again in a few seconds.",
        maybe_applied=maybe_applied,
    )


def _log_outage(cause: str) -> None:
    """A line a second is enough: in an outage every call would write one."""
    global _logged_at_s  # noqa: PLW0603  # one log a process
    now_s = time.monotonic()
    if now_s - _logged_at_s >= 1:
        _logged_at_s = now_s
        log.warning("the ledger cannot be reached: %s", cause)
