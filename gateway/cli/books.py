"""`gateway ledger verify|export|trim|rebuild`: work on the books themselves, beside the gateways or without any.

These open Redis as the settings name it. The embedded server of a running gateway is used as it runs; where none runs,
it is started for the command.
"""

import argparse
import asyncio
import contextlib
import csv
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TypeVar

from gateway.billing.audit import Difference
from gateway.billing.budget import Calendar
from gateway.billing.errors import GatewayError
from gateway.cli.errors import CommandError
from gateway.cli.output import print_json
from gateway.settings import WEEKDAYS, Settings, SettingsError, load_settings
from gateway.store.archive import Archive, Archiver, UnfitArchive, read_archive
from gateway.store.audit import Audit, Findings
from gateway.store.bookkeeping import Bookkeeping, NotRepaired, NotTrimmed
from gateway.store.connection import UnfitRedis, check_fit, open_redis
from gateway.store.embedded import EmbeddedRedis, EmbeddedRedisError
from gateway.store.keys import DEFAULT_ORG
from gateway.store.ledger import Ledger
from gateway.store.prices import PriceBooks
from gateway.store.records import UnreadableEntry
from gateway.store.reports import Reports
from gateway.store.scopes import Scopes
from gateway.store.scripts import RedisScripts
from gateway.web.books import entry_json

T = TypeVar("T")

_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Office:
    """All that a command needs to work on the books."""

    calendar: Calendar
    scopes: Scopes
    audit: Audit
    archiver: Archiver
    bookkeeping: Bookkeeping
    prices: PriceBooks


def add_book_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The actions of `gateway ledger` that work on the books themselves."""
    verifying = actions.add_parser("verify", help="compute all balances again from the entries; exit 1 on a difference")
    verifying.add_argument("--repair", action="store_true", help="correct each difference, with an entry about it")
    verifying.add_argument("--reprice", action="store_true", help="also every charge, from its tokens and price list")
    verifying.set_defaults(run=verify)
    exporting = actions.add_parser("export", help="write all entries to a file, or to standard output")
    exporting.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a new file; else standard output")
    exporting.add_argument(
        "--format", choices=("ndjson", "csv"), default="ndjson", help="ndjson is the archive, csv is for spreadsheets"
    )
    exporting.set_defaults(run=export)
    trimming = actions.add_parser("trim", help="take old entries out, once they are in an archive")
    trimming.add_argument(
        "--before", required=True, type=date.fromisoformat, metavar="DATE", help="the first day that stays"
    )
    trimming.add_argument("--archive", required=True, type=Path, metavar="FILE", help="what `export` wrote")
    trimming.set_defaults(run=trim)
    rebuilding = actions.add_parser("rebuild", help="build the books again from archives, in an empty Redis")
    rebuilding.add_argument("files", nargs="+", type=Path, metavar="FILE", help="archives; with what was trimmed, all")
    rebuilding.set_defaults(run=rebuild)
    for action in (verifying, exporting, trimming, rebuilding):
        action.add_argument("--json", action="store_true", help="print JSON")


def verify(arguments: argparse.Namespace) -> int:
    async def work(office: Office) -> tuple[Findings, list[Difference]]:
        findings = await office.audit.run()
        if arguments.reprice:
            await office.audit.reprice(office.prices, findings)
        left = findings.differences
        if arguments.repair:
            left = await office.bookkeeping.repair(findings)
        return findings, left

    findings, left = _in_office(work)
    if arguments.json:
        print_json(_findings_json(findings, repaired=len(findings.differences) - len(left)))
    else:
        _print_findings(findings, repaired=len(findings.differences) - len(left))
        if arguments.repair and left:
            print(f"{len(left)} cannot be repaired; what is lost comes back by `gateway ledger rebuild`.")
    return 1 if left or findings.busy or findings.mispriced else 0


def export(arguments: argparse.Namespace) -> int:
    """Whole or not at all: the file gets its name when all of it is on the disk."""
    if arguments.file is None:
        _in_office(lambda office: _write(office, arguments.format, sys.stdout.buffer.write))
        return 0
    part = arguments.file.with_name(f".{arguments.file.name}.part")
    try:
        if arguments.file.exists():
            raise CommandError(f"{arguments.file} exists; name a new file")
        with part.open("xb") as file:
            _in_office(lambda office: _write(office, arguments.format, file.write))
            file.flush()
            os.fsync(file.fileno())
        part.rename(arguments.file)
    except OSError as error:
        raise CommandError(f"{arguments.file} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    return 0


def trim(arguments: argparse.Namespace) -> int:
    archive = _archive(arguments.archive)

    async def work(office: Office) -> dict[str, object]:
        findings = await office.audit.run()
        if findings.differences or findings.busy:
            raise CommandError("the books do not add up; see `gateway ledger verify` before entries are taken out")
        now_ms = await office.scopes.now_ms()
        before_ms = office.calendar.midnight_ms(arguments.before)
        if before_ms > office.calendar.spans_at(now_ms).month.start_ms:
            raise CommandError("--before must not be later than the first of this month: its windows still count")
        trimmed = await office.bookkeeping.trim(before_ms, archive)
        return {"trimmed": trimmed.count, "entry": trimmed.entry_id}

    done = _in_office(work)
    if arguments.json:
        print_json(done)
    else:
        print(f"{done['trimmed']} entries were taken out; entry {done['entry']} carries what they added up to.")
    return 0


def rebuild(arguments: argparse.Namespace) -> int:
    archives = [_archive(path) for path in arguments.files]

    async def work(office: Office) -> dict[str, object]:
        if [lot async for lot in office.audit.lots() if lot.states or lot.last_id != "0-0"]:
            raise CommandError("this Redis has books already; they are built again in an empty one only")
        entries = await office.bookkeeping.rebuild(archives, office.scopes)
        return {"entries": entries, "differences": len((await office.audit.run()).differences)}

    done = _in_office(work)
    if arguments.json:
        print_json(done)
    else:
        print(f"{done['entries']} entries; {done['differences']} differences.")
    return 1 if done["differences"] else 0


def _archive(path: Path) -> Archive:
    try:
        return read_archive(path)
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from None
    except UnfitArchive as error:
        raise CommandError(str(error)) from None


async def _write(office: Office, form: str, write: Callable[[bytes], object]) -> None:
    if form == "ndjson":
        async for line in office.archiver.lines():
            write(line)
        return
    columns: list[str] | None = None
    async for raw in office.archiver.entries():
        row = entry_json(raw.entry, office.calendar)
        if columns is None:
            columns = list(row)
            write(_csv_line(columns))
        write(_csv_line([_csv_text(row[column]) for column in columns]))


def _csv_text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def _csv_line(values: list[str]) -> bytes:
    line = _Line()
    csv.writer(line, lineterminator="\r\n").writerow(values)
    return line.text.encode()


class _Line:
    text = ""

    def write(self, text: str) -> None:
        self.text += text


def _print_findings(findings: Findings, *, repaired: int) -> None:
    for each in findings.differences:
        print(each)
        if each.entries:
            print(f"  its newest entries: {', '.join(each.entries)}")
    if repaired:
        print(f"{repaired} repaired, each with an entry of type adjustment and flag repair.")
    for wrong in findings.mispriced:
        price = "has no price" if wrong.priced_nano_usd is None else f"costs {wrong.priced_nano_usd}"
        charged = f"{wrong.charged_nano_usd} nano-USD were charged"
        print(f"entry {wrong.entry_id}: {charged}; by its tokens and prices it {price}")
    if findings.busy:
        print(f"What {findings.busy} scopes hold could not be checked: calls never stood still long enough. Try again.")
    if findings.quarantined:
        print(f"{findings.quarantined} charges are in quarantine: their holds were not known.")
    print(
        f"{findings.entries} entries up to {findings.last_id}, {findings.scopes} scopes, {findings.holds} open holds: "
        f"{len(findings.differences) or 'no'} differences."
    )


def _findings_json(findings: Findings, *, repaired: int) -> dict[str, object]:
    return {
        "entries": findings.entries,
        "last_entry": findings.last_id,
        "scopes": findings.scopes,
        "open_holds": findings.holds,
        "quarantined": findings.quarantined,
        "unchecked_scopes": findings.busy,
        "repaired": repaired,
        "mispriced": [asdict(each) for each in findings.mispriced],
        "differences": [
            {
                "place": each.place,
                "what": each.what,
                "stored": each.stored,
                "expected": each.expected,
                "entries": list(each.entries),
            }
            for each in findings.differences
        ],
    }


def _in_office(work: Callable[[Office], Awaitable[T]]) -> T:
    try:
        settings = load_settings(os.environ)
        with _redis_url(settings) as url:
            return asyncio.run(_worked(settings, url, work))
    except (
        SettingsError,
        UnfitRedis,
        EmbeddedRedisError,
        NotRepaired,
        NotTrimmed,
        UnfitArchive,
        UnreadableEntry,
    ) as error:
        raise CommandError(str(error)) from None
    except GatewayError as error:
        raise CommandError(error.message) from None


async def _worked(settings: Settings, url: str, work: Callable[[Office], Awaitable[T]]) -> T:
    redis = open_redis(url, _TIMEOUT_S, settings.redis_password)
    try:
        await check_fit(redis)
        scripts = RedisScripts(redis, _TIMEOUT_S)
        calendar = Calendar(settings.zone, WEEKDAYS.index(settings.first_weekday))
        ledger = Ledger(redis, scripts, calendar, settings.lease_s)
        reports = Reports(redis, scripts, ledger, calendar)
        office = Office(
            calendar,
            Scopes(redis, scripts),
            Audit(redis, ledger, reports, calendar, DEFAULT_ORG),
            Archiver(redis, DEFAULT_ORG),
            Bookkeeping(redis, scripts, reports, DEFAULT_ORG),
            PriceBooks(redis, scripts),
        )
        return await work(office)
    finally:
        await redis.aclose()


@contextlib.contextmanager
def _redis_url(settings: Settings) -> Iterator[str]:
    if settings.redis_url:
        yield settings.redis_url
        return
    embedded = EmbeddedRedis(Path(settings.data_dir))
    if embedded.answers():
        yield embedded.url
        return
    embedded.start()
    try:
        yield embedded.url
    finally:
        embedded.stop()
