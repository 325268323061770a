"""The books in a file: everything that is needed to check them elsewhere, or to build them again in an empty Redis.

Lines of JSON: a head; every scope's settings, outermost first; every sub-key's digest; price lists, and what people
entered beside the ledger; every entry with all its fields; and a foot with the number of entries and the SHA-256 of all
lines before it. A file without its foot was cut short and is refused.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from redis.asyncio import Redis

from gateway.billing.ledger import Entry
from gateway.billing.principal import Scope, ScopeKind
from gateway.billing.scope import ScopeSettings
from gateway.store.keys import SCHEMA_VERSION, Keys
from gateway.store.records import Fields, entry_of
from gateway.store.scripts import TranslatedFaults
from gateway.store.topology import one_master
from gateway.wire.scopes import stored_settings

_KINDS: tuple[ScopeKind, ...] = ("organisation", "team", "user", "key")
_PAGE = 1000


class UnfitArchive(ValueError):
    """The file is no whole archive of these books, or none can be made; the text says why."""


@dataclass(frozen=True, slots=True)
class RawEntry:
    """One entry as it stands in the stream."""

    id: str
    fields: dict[str, str]

    @property
    def entry(self) -> Entry:
        return entry_of(self.id, self.bytes_fields)

    @property
    def bytes_fields(self) -> Fields:
        return {name.encode(): value.encode() for name, value in self.fields.items()}


@dataclass(slots=True)
class Archive:
    """A whole archive, read and checked. `scopes` and `digests` are the raw JSON of each.

    `strings`, `rows` and `fields` are what else is kept as it is, by the names of its keys in the organisation:
    strings, entries of streams, and fields of hashes. `receipts` also have the instant (ms) they are forgotten at.
    """

    org: str = ""
    scopes: list[tuple[Scope, str]] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    entries: list[RawEntry] = field(default_factory=list)
    strings: dict[str, str] = field(default_factory=dict)
    rows: list[tuple[str, RawEntry]] = field(default_factory=list)
    fields: list[tuple[str, str, str]] = field(default_factory=list)
    receipts: list[tuple[str, str, int]] = field(default_factory=list)

    def settings(self) -> dict[Scope, ScopeSettings]:
        """Those of every scope, outermost first, in whatever order they stand in the file."""
        ordered = sorted(self.scopes, key=lambda each: _KINDS.index(each[0].kind))
        return {scope: stored_settings(scope.kind, json.loads(settings)) for scope, settings in ordered}


@dataclass(frozen=True, slots=True)
class _Cut:
    """What an archive goes up to, as of one instant: the newest id of each stream, and what is no stream."""

    newest: dict[str, str]
    price_lists: bytes | None
    trimmed: bytes | None


class Archiver:
    """Writes archives of one organisation.

    While it writes, the gateways go on. First the cut is made; what is posted later is not in the archive. Then scopes
    are listed, those inside before those around them: so whatever an entry or a scope names is listed as well.
    """

    def __init__(self, redis: Redis, org: str) -> None:
        self._redis = redis
        self._org = org
        self._keys = Keys(org)

    async def lines(self) -> AsyncIterator[bytes]:
        """The archive, line by line. Raises LedgerUnavailable; UnfitArchive: entries were trimmed meanwhile."""
        digest, entries = hashlib.sha256(), 0
        async for record in self._records():
            entries += "entry" in record
            line = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
            digest.update(line)
            yield line
        foot = {"entries": entries, "sha256": digest.hexdigest()}
        yield json.dumps(foot, separators=(",", ":")).encode() + b"\n"

    async def entries(self) -> AsyncIterator[RawEntry]:
        """Every entry of the ledger, oldest first."""
        async for raw in self._stream(self._keys.ledger):
            yield raw

    async def _stream(self, name: str, until: str = "+") -> AsyncIterator[RawEntry]:
        start = "-"
        while True:
            with TranslatedFaults():
                rows = cast(list[tuple[bytes, Fields]], await self._redis.xrange(name, start, until, count=_PAGE))
            for entry_id, fields in rows:
                yield RawEntry(entry_id.decode(), {name.decode(): value.decode() for name, value in fields.items()})
            if len(rows) < _PAGE:
                return
            start = f"({rows[-1][0].decode()}"

    async def _records(self) -> AsyncIterator[dict[str, object]]:
        yield {"archive": "gateway ledger", "schema": SCHEMA_VERSION, "org": self._org}
        async for record in self._receipts():
            yield record
        cut = await self._cut()
        scopes = await self._scopes()
        for scope in scopes:
            with TranslatedFaults():
                settings = cast(bytes | None, await self._redis.get(self._keys.settings(scope)))
            if settings is not None:
                yield {"scope": scope.kind, "id": scope.id, "settings": settings.decode()}
        async for record in self._digests({scope.id for scope in scopes if scope.kind == "key"}):
            yield record
        async for record in self._beside(cut):
            yield record
        async for raw in self._stream(self._keys.ledger, cut.newest[self._keys.ledger]):
            yield {"entry": raw.id, "fields": raw.fields}
        with TranslatedFaults():
            trimmed = cast(bytes | None, await self._redis.get(self._keys.trimmed))
        if trimmed != cut.trimmed:
            raise UnfitArchive("entries were taken out while they were exported; export anew")

    async def _cut(self) -> _Cut:
        keys = self._keys
        names = (keys.ledger, keys.price_schedule, keys.upstream_account, keys.reconciliations)
        with TranslatedFaults():
            pipeline = self._redis.pipeline(transaction=True)
            for name in names:
                pipeline.xrevrange(name, count=1)
            pipeline.get(keys.price_lists)
            pipeline.get(keys.trimmed)
            *newest, price_lists, trimmed = await pipeline.execute()
        ids = {name: rows[0][0].decode() if rows else "0-0" for name, rows in zip(names, newest, strict=True)}
        return _Cut(ids, price_lists, trimmed)

    async def _scopes(self) -> list[Scope]:
        """Every scope, outermost first."""
        listed: dict[ScopeKind, list[bytes]] = {}
        for kind in reversed(_KINDS):
            with TranslatedFaults():
                listed[kind] = cast(list[bytes], await self._redis.zrange(self._keys.index(kind), 0, -1))
        return [Scope(kind, member.decode()) for kind in _KINDS for member in listed[kind]]

    async def _digests(self, key_ids: Collection[str]) -> AsyncIterator[dict[str, object]]:
        prefix = self._keys.digest("")
        async for name, owner in self._strings(prefix):
            if json.loads(owner)["key"] in key_ids:
                yield {"digest": name.removeprefix(prefix), "owner": owner}

    async def _strings(self, prefix: str) -> AsyncIterator[tuple[str, str]]:
        """Every key that begins so, and its value."""
        with TranslatedFaults():
            async with one_master(self._redis, self._keys.nothing):
                names = {name.decode() async for name in self._redis.scan_iter(match=f"{prefix}*", count=_PAGE)}
        for name in sorted(names):
            with TranslatedFaults():
                value = cast(bytes | None, await self._redis.get(name))
            if value is not None:
                yield name, value.decode()

    async def _receipts(self) -> AsyncIterator[dict[str, object]]:
        """Of what was entered under an Idempotency-Key, before the cut: it is entered once, here or after a rebuild."""
        async for name, value in self._strings(self._keys.receipt("")):
            with TranslatedFaults():
                until_ms = await self._redis.pexpiretime(name)
            if until_ms > 0:
                yield {"receipt": self._keys.short(name), "value": value, "until_ms": until_ms}

    async def _beside(self, cut: _Cut) -> AsyncIterator[dict[str, object]]:
        """Price lists and the schedule; what people entered; charges in quarantine."""
        keys = self._keys
        if cut.price_lists is not None:
            yield {"string": keys.short(keys.price_lists), "value": cut.price_lists.decode()}
        async for name, value in self._strings(keys.prices("")):
            yield {"string": keys.short(name), "value": value}
        for name in (keys.price_schedule, keys.upstream_account, keys.reconciliations):
            async for raw in self._stream(name, cut.newest[name]):
                yield {"stream": keys.short(name), "id": raw.id, "fields": raw.fields}
        with TranslatedFaults():
            quarantined = cast(dict[bytes, bytes], await self._redis.hgetall(keys.quarantine))
        for hold_id, charge in quarantined.items():
            yield {"hash": keys.short(keys.quarantine), "field": hold_id.decode(), "value": charge.decode()}


def read_archive(path: Path) -> Archive:
    """Read and check a whole archive. Raises UnfitArchive, OSError."""
    archive, digest, foot = Archive(), hashlib.sha256(), None
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if foot is not None:
                raise UnfitArchive(f"{path}: something stands behind its last line")
            record = _record(line, path, number)
            if "sha256" in record:
                foot = record
                continue
            digest.update(line)
            _add(archive, record, path, number)
    if foot is None:
        raise UnfitArchive(f"{path} was cut short: its last line is missing")
    if foot["sha256"] != digest.hexdigest() or foot["entries"] != len(archive.entries):
        raise UnfitArchive(f"{path} was changed: its checksum is not that of its lines")
    return archive


def _record(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise UnfitArchive(f"{path}, line {number}, is no JSON object")
    return record


def _add(archive: Archive, record: dict[str, Any], path: Path, number: int) -> None:
    if "archive" in record:
        if record["schema"] != SCHEMA_VERSION:
            raise UnfitArchive(f"{path} is of schema {record['schema']}; this gateway keeps schema {SCHEMA_VERSION}")
        archive.org = record["org"]
    elif "scope" in record:
        archive.scopes.append((Scope(record["scope"], record["id"]), record["settings"]))
    elif "digest" in record:
        archive.digests[record["digest"]] = record["owner"]
    elif "entry" in record:
        archive.entries.append(RawEntry(record["entry"], record["fields"]))
    elif "receipt" in record:
        archive.receipts.append((record["receipt"], record["value"], record["until_ms"]))
    elif "string" in record:
        archive.strings[record["string"]] = record["value"]
    elif "stream" in record:
        archive.rows.append((record["stream"], RawEntry(record["id"], record["fields"])))
    elif "hash" in record:
        archive.fields.append((record["hash"], record["field"], record["value"]))
    else:
        raise UnfitArchive(f"{path}, line {number}, is nothing an archive has")


def joined(archives: list[Archive]) -> Iterator[RawEntry]:
    """The entries of several archives, each once, oldest first: what was trimmed from one stands in an older one."""
    by_id = {raw.id: raw for archive in archives for raw in archive.entries}
    return (by_id[entry_id] for entry_id in sorted(by_id, key=_position))


def _position(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)
