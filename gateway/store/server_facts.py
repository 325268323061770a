"""What a Redis says of itself, read without writing: for whoever asks whether it can keep books, and how well."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from gateway.store.connection import refuse_unfit
from gateway.store.scripts import TranslatedFaults

VERSION_MIN = (6, 2)
"""The oldest Redis whose commands the scripts use; every Valkey is newer."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """One server, as its INFO has it."""

    name: str
    """"Redis" or "Valkey"."""
    version: str
    is_old: bool
    keeps_on_disk: bool
    """Whether it writes an append-only file."""
    is_replica: bool
    used_bytes: int
    bytes_max: int
    """0: no bound."""
    clock_ms: int
    has_books: bool


async def facts_of(redis: Redis) -> ServerFacts:
    """Raises UnfitRedis: no books can be kept there, and why. LedgerUnavailable: it went away meanwhile."""
    has_books = await refuse_unfit(redis)
    with TranslatedFaults():
        info: Mapping[str, Any] = await redis.info()
        seconds, microseconds = await redis.time()
    is_valkey = "valkey_version" in info
    version = str(info["valkey_version" if is_valkey else "redis_version"])
    return ServerFacts(
        name="Valkey" if is_valkey else "Redis",
        version=version,
        is_old=not is_valkey and _numbers(version) < VERSION_MIN,
        keeps_on_disk=bool(info.get("aof_enabled")),
        is_replica=info.get("role") == "slave",
        used_bytes=int(info["used_memory"]),
        bytes_max=int(info.get("maxmemory", 0)),
        clock_ms=seconds * 1000 + microseconds // 1000,
        has_books=has_books,
    )


def _numbers(version: str) -> tuple[int, ...]:
    """`7.0.15` → (7, 0); what is no number, as in a preview's version, counts as 0."""
    return tuple(int(part) if part.isdecimal() else 0 for part in version.split(".")[:2])
