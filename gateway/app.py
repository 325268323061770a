"""The composition root: builds every object once, puts the routes together, and brings the process up and down.

The data plane's calls never come here: the server's protocol finds their paths in a table (`data_plane`) and begins
them itself. What comes as ASGI is served by Starlette's router.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from gateway.access import RuledRoute
from gateway.billing.budget import Calendar
from gateway.billing.errors import GatewayError
from gateway.billing.price_schedule import PriceSchedule
from gateway.billing.scope import ScopeSettings
from gateway.call_log import Lines
from gateway.counting.counter import Counter
from gateway.dashboard.changes import Changes as ChangePages
from gateway.dashboard.figures import Figures
from gateway.dashboard.frame import Frame
from gateway.dashboard.logins import Logins
from gateway.dashboard.pages import Dashboard
from gateway.parts import (
    calendar_of,
    call_limits_of,
    door_rules_of,
    endpoints_of,
    inspections_of,
    metrics_of,
    poll_rules_of,
    proxies_of,
    room_of,
    scrape_bounds_of,
    upstream_keys_of,
    upstream_of,
)
from gateway.settings import Settings
from gateway.shared_metrics import Share
from gateway.store.adjustments import Adjustments
from gateway.store.alerts import Alerts
from gateway.store.answers import Answers
from gateway.store.changes import Changes
from gateway.store.connection import check_fit, memory_use, open_redis
from gateway.store.credits import Credits
from gateway.store.jobs import Jobs
from gateway.store.keys import DEFAULT_ORG
from gateway.store.leases import Leases
from gateway.store.ledger import Ledger
from gateway.store.multiplex import MultiplexedScripts
from gateway.store.prices import PriceBooks
from gateway.store.quarantine import Quarantine
from gateway.store.reconciliations import Reconciliations
from gateway.store.refusals import Refusals
from gateway.store.reports import Projector, Reports
from gateway.store.requests import Requests
from gateway.store.scopes import Principals, Scopes, ensure_organisation
from gateway.store.scripts import RedisScripts
from gateway.store.secrets import Secrets
from gateway.store.sessions import Sessions
from gateway.store.spool import Spool
from gateway.store.upstream_account import UpstreamAccounts
from gateway.upstream.pictures import PictureFetcher
from gateway.web.adjustments import AdjustmentDesk
from gateway.web.admin import scope_routes
from gateway.web.audit import AuditDesk
from gateway.web.auth import Authenticator
from gateway.web.bad_keys import BadKeys
from gateway.web.books import Books
from gateway.web.credits import CreditDesk
from gateway.web.dataplane import JOBS, OPENAI_IMAGES, estimated, path_table
from gateway.web.door import Door
from gateway.web.estimates import ESTIMATE, Estimates
from gateway.web.exchange import ClientLeft, Exchange
from gateway.web.folding import relay_of
from gateway.web.form_desk import FormDesk
from gateway.web.health import Health
from gateway.web.http import answer_gateway_error, answer_http_error, answer_nobody
from gateway.web.image_relay import ImageRelay
from gateway.web.job_watch import JobGlance, JobWatch
from gateway.web.leaked_keys import KeyInURL
from gateway.web.leases import Reaper, RunningCalls
from gateway.web.line import Line
from gateway.web.me import Me
from gateway.web.models import Models
from gateway.web.openapi.document import Reference
from gateway.web.own_usage import OwnUsage
from gateway.web.pages import serve_bounded
from gateway.web.polls import JobDesk, JobPoller, PollHandler
from gateway.web.prices import PriceDesk
from gateway.web.protocol import DataPlane
from gateway.web.proxy import NewRelay, Proxy
from gateway.web.quarantine import QuarantineDesk
from gateway.web.reconciliation import ReconciliationDesk
from gateway.web.request_id import new_request_id
from gateway.web.request_log import serve_logged
from gateway.web.requests import OwnRequests
from gateway.web.rotation import KeyRotation
from gateway.web.scope_changes import ScopeChanges
from gateway.web.scrape import LedgerScrape
from gateway.web.searches import Searches
from gateway.web.services import Services
from gateway.web.settlement import Settlements, Tasks
from gateway.web.turn import Handler
from gateway.web.upstream_account import UpstreamDesk
from gateway.web.usage_reports import UsageReports
from gateway.wire.call import Endpoint

log = logging.getLogger("gateway.app")

_LAST_SETTLEMENTS_S = 30.0


class UnfitDataDirectory(RuntimeError):
    """The data directory cannot be used; the text says why and what to change."""


class Gateway:
    """One gateway process: a data plane, and beside it an ASGI application with a lifespan.

    `extra_endpoints` are further rows of the data plane's table, as `web.dataplane.endpoints` has them. `share` is for
    a process that is one of several workers: what it counts together with them. `lines` are given the line of each call
    and each other request.
    """

    def __init__(
        self,
        settings: Settings,
        prices: PriceSchedule,
        admin_key: str,
        redis_url: str,
        extra_endpoints: tuple[Endpoint, ...] = (),
        share: Share | None = None,
        lines: Lines | None = None,
    ) -> None:
        self.fault = ""
        """Why the gateway could not start; empty while it could."""
        self._settings, self._listed, self._lines = settings, prices, lines or Lines()
        self._redis = open_redis(redis_url, settings.redis_timeout_s, settings.redis_password)
        metrics = metrics_of(settings, prices, share, self._lines)
        scripts = RedisScripts(self._redis, settings.redis_timeout_s, metrics.observe_script)
        self._hot = MultiplexedScripts(self._redis, settings.redis_timeout_s, metrics.observe_script)
        calendar, principals = calendar_of(settings), Principals(self._hot.get)
        ledger = Ledger(self._redis, self._hot, calendar, settings.lease_s, self._hot)
        jobs, self._scopes = Jobs(self._redis, scripts), Scopes(self._redis, scripts)
        tasks, counter, changes = Tasks(), Counter(), Changes(self._redis, scripts)
        keys, bad_keys = upstream_keys_of(settings), BadKeys(proxies_of(settings))
        auth = Authenticator(principals, self._scopes, admin_key, keys, DEFAULT_ORG, calendar, changes, bad_keys)
        self._spool = Spool(Path(settings.data_dir) / "spool")
        settlements = Settlements(ledger, jobs, tasks, metrics, self._spool, settings.settle_wait_s)
        leases = Leases(self._redis, self._hot, ledger, settings.lease_s, charge_whole=settings.charges_whole_holds)
        self._reaper = Reaper(leases, (DEFAULT_ORG,), metrics, settings.lease_s, settlements.replayed)
        self.services = Services(
            auth,
            PriceBooks(self._redis, scripts),
            ledger,
            jobs,
            upstream_of(settings),
            keys,
            Answers(self._redis),
            RunningCalls(leases, settings.lease_s, counter.count, settings.answer_s_max),
            settlements,
            tasks,
            metrics,
            Refusals(self._redis, calendar),
            call_limits_of(settings),
            counter,
            room_of(settings, metrics),
        )
        self._desk = JobDesk(poll_rules_of(settings), self.services)
        self._billed = (*endpoints_of(settings), *extra_endpoints)
        self.data_plane = _data_plane(settings, self._billed, self.services, self._desk)
        reports = Reports(self._redis, scripts, ledger, calendar)
        self._projector = Projector(reports, (DEFAULT_ORG,))
        self._router = self._pages(settings, scripts, reports, calendar)

    def _pages(self, settings: Settings, scripts: RedisScripts, reports: Reports, calendar: Calendar) -> Starlette:
        """Everything but the data plane."""
        services, scopes = self.services, self._scopes
        auth, ledger, prices = services.auth, services.ledger, services.prices
        accounts = UpstreamAccounts(self._redis, scripts)
        reconciliations = Reconciliations(self._redis, scripts, reports)
        bounds = scrape_bounds_of(settings)
        memory = partial(memory_use, self._redis)
        scrape = LedgerScrape(ledger, scopes, accounts, reconciliations, calendar, DEFAULT_ORG, bounds, memory)
        sessions = Sessions(self._redis)
        logins = Logins(auth, sessions, services.metrics, auth.bad_keys)
        searches = Searches()
        usage_reports = UsageReports(reports, scopes, calendar, searches)
        figures = Figures(scopes, ledger, reports, services.refusals, calendar)
        rotation = KeyRotation(auth, scopes, Secrets(self._redis, scripts), calendar)
        credit = CreditDesk(auth, Credits(scripts), Alerts(self._redis), scopes)
        frame, changes = Frame(auth, sessions, calendar.zone), ScopeChanges(scopes, calendar)
        control = FormDesk(auth, scopes, changes, rotation, credit)
        return _router(
            *Health(services, scripts.ready, self._spool.check, scrape.view, settings.metrics_token).routes(),
            *Me(auth, scopes, prices, calendar).routes(),
            *OwnRequests(auth, Requests(self._redis, ledger, services.jobs), JobGlance(self._desk)).routes(),
            *Models(auth, scopes, prices).routes(),
            *scope_routes(auth, scopes, calendar),
            *rotation.routes(),
            *OwnUsage(auth, usage_reports).routes(),
            *Books(auth, ledger, usage_reports, scopes, calendar, searches).routes(),
            *credit.routes(),
            *UpstreamDesk(auth, accounts, reports, scopes, calendar).routes(),
            *PriceDesk(
                auth, prices, calendar, tuple(dict.fromkeys(endpoint.kind for endpoint in self._billed))
            ).routes(),
            *AdjustmentDesk(auth, Adjustments(scripts, calendar), scopes).routes(),
            *QuarantineDesk(auth, Quarantine(self._redis, scripts)).routes(),
            *AuditDesk(auth, scopes, calendar).routes(),
            *ReconciliationDesk(auth, reconciliations, scopes, calendar).routes(),
            *Reference(*inspections_of(settings)).routes(),
            *Dashboard(frame, sessions, logins, figures, ChangePages(frame, figures, control)).routes(),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if scope["raw_path"].endswith(b"/"):  # one that was sent as %2F belongs to a name
                scope["path"] = scope["path"].rstrip("/") or "/"
            await serve_logged(self._page, scope, receive, send, self._lines)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        await serve_bounded(self._router, scope, receive, send, self.services.limits.body_timeout_s, self.services.room)

    def drain(self) -> None:
        """Take no new calls: running streams may finish within the grace time."""
        self.services.draining = True

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._prepare()
        except Exception as error:  # noqa: BLE001  # whatever it is, the server must be told, or it would hang
            await self._redis.aclose()
            self.fault = str(error)
            await send({"type": "lifespan.startup.failed", "message": self.fault})
            return
        stop = asyncio.Event()
        background = asyncio.gather(*(run(stop) for run in self._background()))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.services.tasks.calls_ended(_LAST_SETTLEMENTS_S)
        stop.set()
        await background
        await self._close()
        await send({"type": "lifespan.shutdown.complete"})

    def _background(self) -> tuple[Callable[[asyncio.Event], Awaitable[None]], ...]:
        """What runs beside the calls, each until it is told to stop."""
        return (
            self.services.running.run,
            self.services.settlements.replay,
            self._reaper.run,
            JobPoller(self._desk, self.services, (DEFAULT_ORG,)).run,
            self._projector.run,
            self.services.refusals.run,
            self.services.metrics.run,
        )

    async def _prepare(self) -> None:
        """Refuse an unfit Redis or data directory, and make sure of the organisation."""
        self._open_spool()
        await check_fit(self._redis)
        now_ms = await self._scopes.now_ms()
        organisation = ScopeSettings(
            kind="organisation",
            id=DEFAULT_ORG,
            created_at_ms=now_ms,
            timezone=self._settings.timezone,
            first_weekday=self._settings.first_weekday,
        )
        await ensure_organisation(self._scopes, organisation)
        await self.services.prices.seed(DEFAULT_ORG, self._listed)

    def _open_spool(self) -> None:
        try:
            self._spool.open()
        except OSError as error:
            raise UnfitDataDirectory(
                f"the data directory {self._settings.data_dir} cannot be written ({error.strerror}); "
                "set GATEWAY_DATA_DIR to one that can"
            ) from error

    async def _close(self) -> None:
        await self.services.tasks.finished(_LAST_SETTLEMENTS_S)
        owed, kept = self.services.settlements.owed, len(self._spool)
        if owed:
            log.error("%d calls are not settled: the ledger did not answer; %d wait in the spool", owed, kept)
        self.services.metrics.share_out()
        await self._spool.close()
        await self.services.upstream.close()
        await asyncio.to_thread(self.services.counter.close)
        await self._hot.close()
        await self._redis.aclose()


def _router(*routes: RuledRoute) -> Starlette:
    """Routes that say who may use them; their errors all have the one shape."""
    handlers = {
        GatewayError: answer_gateway_error,
        ClientLeft: answer_nobody,
        HTTPException: answer_http_error,
        Exception: answer_gateway_error,
    }
    return Starlette(routes=routes, exception_handlers=handlers)


def _data_plane(settings: Settings, billed: tuple[Endpoint, ...], services: Services, desk: JobDesk) -> DataPlane:
    watch, pictures = JobWatch(desk, settings.image_wait_s), PictureFetcher(settings.upstream_base_url)
    relays: dict[str, NewRelay] = {OPENAI_IMAGES: partial(ImageRelay, watch, pictures)}
    handlers: dict[str, Handler] = {
        endpoint.path: Proxy(endpoint, services, relays.get(endpoint.path, relay_of)) for endpoint in billed
    }
    handlers |= {JOBS: PollHandler(desk, services), ESTIMATE: Estimates(estimated(billed), services)}
    write_timeout_s = services.limits.client_write_timeout_s

    door = Door(door_rules_of(settings), services.metrics.observe_turned_away)

    def new_exchange(line: Line) -> Exchange:
        return Exchange(line, new_request_id(), write_timeout_s)

    return DataPlane(path_table(handlers), new_exchange, KeyInURL(services), door)
