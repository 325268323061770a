"""What `gateway doctor` looks at. Nothing is written, nothing is spent; each finding says what to do about it."""

import os
import resource
import shutil
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Literal, NamedTuple

import httpx

from gateway.billing.errors import LedgerUnavailable, NotFound
from gateway.billing.principal import Scope
from gateway.cli.serve import ADMIN_KEY_FILE
from gateway.fixed_secret import is_beyond_guessing
from gateway.settings import Settings, SettingsError, load_prices, load_settings
from gateway.store.connection import SilentRedis, UnfitRedis, open_redis
from gateway.store.embedded import EmbeddedRedis, EmbeddedRedisError, server_program
from gateway.store.keys import DEFAULT_ORG
from gateway.store.scopes import BooksMismatch, Scopes, refuse_other_calendar
from gateway.store.scripts import RedisScripts
from gateway.store.server_facts import VERSION_MIN, ServerFacts, facts_of

State = Literal["ok", "warning", "failed"]


class Finding(NamedTuple):
    """`found` says what is so, `advice` what to do; a check that is "ok" may have advice, too."""

    check: str
    state: State
    found: str
    advice: str = ""


FREE_BYTES_MIN = 1024 * 1024 * 1024
MEMORY_SHARE_MAX = 0.8
CLOCK_MS_MAX = 2000
"""A Date header is by the second, and takes a moment to come."""

_FILES_BESIDE = 128
"""Logs, Redis, the event loop: what is open beside connections."""
_REACHED_AT = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # where who listens there answers
_READABLE_BY_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_RANDOM_ADVICE = "Make a random one: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
_URL_ADVICE = "docs/settings.md explains each form; without REDIS_URL the gateway starts a server of its own."
_EMBEDDED_ADVICE = "Mend that, or name a server in REDIS_URL: without one nothing is served."
_SILENT_ADVICE = "Start it, or correct REDIS_URL, its user and password; until it answers, calls are 503 and free."
_UNFIT_ADVICE = "Change that in the server, or name another in REDIS_URL; no gateway starts with this one."


async def look(environ: Mapping[str, str]) -> list[Finding]:
    """All checks, in the order in which a start would meet what they look at."""
    try:
        settings = load_settings(environ)
    except SettingsError as error:
        return [Finding("settings", "failed", str(error), "Correct it, and ask again for the rest.")]
    return [
        Finding("settings", "ok", f"read, with {environ.get('GATEWAY_CONFIG') or 'config/gateway.toml'}"),
        *_prices(settings),
        *_upstream_key(settings),
        *_admin_key(settings),
        *_metrics_token(settings),
        *_data_directory(settings),
        *_open_files(settings),
        *await _redis(settings),
        *await _upstream(settings),
        *await _listener(settings),
    ]


def _prices(settings: Settings) -> Iterator[Finding]:
    try:
        schedule = load_prices(settings)
    except SettingsError as error:
        yield Finding("prices", "failed", str(error), "Without prices nothing can be billed, so nothing is served.")
        return
    yield Finding("prices", "ok", f"{len(schedule.models())} models in {settings.prices_file}")


def _upstream_key(settings: Settings) -> Iterator[Finding]:
    if settings.upstream_api_key:
        yield Finding("MiniToolAI's key", "ok", "set; only a call can tell whether MiniToolAI takes it")
    else:
        yield Finding("MiniToolAI's key", "failed", "MINITOOLAI_API_KEY is not set", "Put MiniToolAI's own key there.")


def _admin_key(settings: Settings) -> Iterator[Finding]:
    path = Path(settings.data_dir) / ADMIN_KEY_FILE
    if settings.admin_key and not is_beyond_guessing(settings.admin_key):
        yield Finding("administrator's key", "warning", "GATEWAY_ADMIN_KEY may be guessed", _RANDOM_ADVICE)
    elif settings.admin_key:
        yield Finding("administrator's key", "ok", "set in GATEWAY_ADMIN_KEY")
    elif not path.exists():
        yield Finding("administrator's key", "ok", f"the first start makes one in {path}")
    elif path.stat().st_mode & _READABLE_BY_OTHERS:
        yield Finding("administrator's key", "warning", f"others may read {path}", f"chmod 600 {path}")
    else:
        yield Finding("administrator's key", "ok", f"in {path}")


def _metrics_token(settings: Settings) -> Iterator[Finding]:
    if settings.metrics_token and not is_beyond_guessing(settings.metrics_token):
        yield Finding("metrics token", "warning", "GATEWAY_METRICS_TOKEN may be guessed", _RANDOM_ADVICE)
    elif settings.metrics_token:
        yield Finding("metrics token", "ok", "set in GATEWAY_METRICS_TOKEN")


def _data_directory(settings: Settings) -> Iterator[Finding]:
    path = Path(settings.data_dir)
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield Finding("data directory", "failed", f"{there} cannot be written", "Set GATEWAY_DATA_DIR to one that can.")
        return
    free_bytes = shutil.disk_usage(there).free
    found = f"{path}, {_gib(free_bytes)} free"
    if free_bytes < FREE_BYTES_MIN:
        yield Finding("data directory", "warning", found, "A full disk stops every call; make room.")
    else:
        yield Finding("data directory", "ok", found if path.exists() else f"{found}; the first start makes it")


def _open_files(settings: Settings) -> Iterator[Finding]:
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.connections_max + settings.upstream_connections_max + _FILES_BESIDE
    found = f"{allowed} allowed to a process, {needed} needed at the most"
    if allowed != resource.RLIM_INFINITY and allowed < needed:
        advice = f"Raise it (ulimit -n {needed}, or LimitNOFILE= of systemd), or lower connections_max."
        yield Finding("open files", "warning", found, advice)
    else:
        yield Finding("open files", "ok", found)


async def _redis(settings: Settings) -> list[Finding]:
    if settings.redis_url:
        return await _server(settings, settings.redis_url)
    try:
        embedded = EmbeddedRedis(Path(settings.data_dir))
        return await _server(settings, embedded.url) if embedded.answers() else list(_at_rest(embedded))
    except EmbeddedRedisError as error:
        return [Finding("Redis", "failed", str(error), _EMBEDDED_ADVICE)]


def _at_rest(embedded: EmbeddedRedis) -> Iterator[Finding]:
    yield Finding("Redis", "ok", f"embedded; starts with the gateway: {Path(server_program()).name}")
    if embedded.log.exists():
        advice = "Whether timezone and first_weekday are theirs a start tells, or this command while the gateway runs."
        yield Finding("books", "ok", "cannot be looked at while the embedded Redis is at rest", advice)


async def _server(settings: Settings, url: str) -> list[Finding]:
    try:
        redis = open_redis(url, settings.redis_timeout_s, settings.redis_password)
    except UnfitRedis as error:
        return [Finding("Redis", "failed", str(error), _URL_ADVICE)]
    try:
        asked_ms = _now_ms()
        facts = await facts_of(redis)
        between_ms = (asked_ms + _now_ms()) // 2
        books = await _books(settings, Scopes(redis, RedisScripts(redis, settings.redis_timeout_s)))
    except (SilentRedis, LedgerUnavailable) as error:
        return [Finding("Redis", "failed", str(error), _SILENT_ADVICE)]
    except UnfitRedis as error:
        return [Finding("Redis", "failed", str(error), _UNFIT_ADVICE)]
    finally:
        await redis.aclose()
    return [*redis_findings(facts), clock_finding("Redis's clock", facts.clock_ms - between_ms), *books]


async def _books(settings: Settings, scopes: Scopes) -> list[Finding]:
    """Whether the organisation keeps them by these settings, as a start would ask (`ensure_organisation`)."""
    try:
        kept, _ = await scopes.get(DEFAULT_ORG, Scope("organisation", DEFAULT_ORG))
    except NotFound:
        return []
    except LedgerUnavailable as error:
        advice = "No gateway starts until they can be read; `gateway ledger verify` says what else is wrong."
        return [Finding("books", "failed", str(error), advice)]
    try:
        refuse_other_calendar(kept, replace(kept, timezone=settings.timezone, first_weekday=settings.first_weekday))
    except BooksMismatch as error:
        return [Finding("books", "failed", str(error), "Until then no gateway starts.")]
    return [Finding("books", "ok", f"kept with timezone {kept.timezone}, weeks from {kept.first_weekday}")]


def redis_findings(facts: ServerFacts) -> Iterator[Finding]:
    """What a server's own words mean for the books."""
    about = f"{facts.name} {facts.version}, {'with' if facts.has_books else 'without'} books"
    if facts.is_old:
        oldest = ".".join(map(str, VERSION_MIN))
        yield Finding("Redis", "failed", about, f"The scripts need Redis {oldest} or any Valkey.")
    elif facts.is_replica:
        yield Finding("Redis", "failed", f"{about}: a replica", "Name the master, or Sentinel: it follows the master.")
    else:
        yield Finding("Redis", "ok", about)
    if not facts.keeps_on_disk:
        advice = "Set appendonly yes and appendfsync always; until then run `gateway reconcile` after each restart."
        yield Finding("Redis on disk", "warning", "no append-only file: a restart loses what was billed", advice)
    if facts.bytes_max and facts.used_bytes > MEMORY_SHARE_MAX * facts.bytes_max:
        found = f"{_gib(facts.used_bytes)} used of {_gib(facts.bytes_max)}"
        yield Finding("Redis's memory", "warning", found, "Raise maxmemory or trim the ledger: full, it refuses calls.")


def clock_finding(check: str, ahead_ms: int) -> Finding:
    """`ahead_ms`: by how much the other clock is ahead of this machine's."""
    if abs(ahead_ms) <= CLOCK_MS_MAX:
        return Finding(check, "ok", f"within {CLOCK_MS_MAX // 1000} s of this machine's")
    found = f"{abs(ahead_ms) / 1000:.0f} s {'ahead of' if ahead_ms > 0 else 'behind'} this machine's"
    return Finding(check, "warning", found, "Let NTP set both: budgets begin and holds end by Redis's clock.")


async def _upstream(settings: Settings) -> list[Finding]:
    """Whether MiniToolAI answers at all, without a key and by the environment's proxy where it names one."""
    url = settings.upstream_base_url
    try:
        async with httpx.AsyncClient(timeout=settings.upstream_connect_timeout_s) as client:
            answer = await client.get(url)
    except httpx.HTTPError as error:
        found = f"{url} gives no answer ({str(error) or type(error).__name__})"
        return [Finding("upstream", "failed", found, "Check MINITOOLAI_BASE_URL, DNS, the firewall and HTTPS_PROXY.")]
    if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        found = f"{url} answers {answer.status_code}"
        return [Finding("upstream", "warning", found, "MiniToolAI has a fault, or a proxy before it; try again.")]
    findings = [Finding("upstream", "ok", f"{url} answers")]
    if (said_ms := _date_ms(answer.headers.get("date"))) is not None:
        findings.append(clock_finding("upstream's clock", said_ms - _now_ms()))
    return findings


async def _listener(settings: Settings) -> list[Finding]:
    """A gateway that runs here, or a port that is free for one."""
    host = _REACHED_AT.get(settings.host, settings.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
    try:
        async with httpx.AsyncClient(timeout=settings.redis_timeout_s + 1, trust_env=False) as client:
            answer = await client.get(f"{url}/readyz")
            ready = answer.json()
    except httpx.ConnectError:
        return [_free_port(settings)]
    except (httpx.HTTPError, ValueError):
        return [_taken(settings)]
    if not isinstance(ready, dict) or "spool" not in ready:
        return [_taken(settings)]
    if answer.status_code == HTTPStatus.OK:
        return [Finding("gateway", "ok", f"runs at {url} and is ready")]
    return [unready(url, ready)]


def unready(url: str, ready: Mapping[str, object]) -> Finding:
    """`ready`: what `/readyz` answers."""
    lacks = [name for name in ("redis", "spool") if not ready.get(name)] or ["it is draining"]
    found = f"runs at {url} and is not ready: {', '.join(lacks)}"
    return Finding("gateway", "failed", found, "Its log says why; docs/operations.md: At three in the morning.")


def _free_port(settings: Settings) -> Finding:
    try:
        with socket.create_server((settings.host, settings.port), family=_family(settings.host)):
            return Finding("gateway", "ok", f"does not run; {settings.host}:{settings.port} is free for it")
    except OSError as error:
        found = f"{settings.host}:{settings.port} cannot be listened on ({error.strerror})"
        return Finding("gateway", "failed", found, "GATEWAY_HOST and GATEWAY_PORT name another place.")


def _taken(settings: Settings) -> Finding:
    found = f"something else listens on {settings.host}:{settings.port}"
    return Finding("gateway", "failed", found, "End it, or give the gateway another GATEWAY_PORT.")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _date_ms(text: str | None) -> int | None:
    try:
        return int(parsedate_to_datetime(text or "").timestamp() * 1000)
    except ValueError:
        return None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"
