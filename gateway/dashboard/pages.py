"""The pages: who asks, may they see it, what is shown. Read `Dashboard._guarded`, then `_scope_page`."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import tzinfo

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute
from gateway.billing.errors import AuthenticationError, GatewayError, InvalidRequest, NotFound, ScopeBlocked
from gateway.billing.principal import SCOPE_ID, Scope, ScopeKind
from gateway.dashboard import answers, words
from gateway.dashboard.charts import BAR_UNITS, ColumnChart, bar_parts, column_chart
from gateway.dashboard.figures import Figures, Spending
from gateway.dashboard.language import LANGUAGES, Language, load_languages, preferred
from gateway.dashboard.logins import Logins
from gateway.dashboard.tables import Tables
from gateway.dashboard.visitors import Door, Visitor, budgets_shown, home_of, lists_scopes, may_open, sees_all, team_of
from gateway.store.sessions import Sessions

LOGIN = "/dashboard/login"
HOME = "/dashboard"
RANGES = (7, 30, 90)
_RANGE_DEFAULT = 30
_LIST_COUNT = 100
_LATEST_COUNT = 20
_CHART_SIZES = (("wide", 1140, 260, 10), ("middle", 700, 230, 8), ("narrow", 350, 200, 4))
_LISTS: dict[str, ScopeKind] = {"teams": "team", "users": "user", "keys": "key"}


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of somebody who is logged in."""

    visitor: Visitor
    language: Language
    days: int
    path: str


Page = Callable[[Request, Visit], Awaitable[Response]]


class Dashboard:
    """Handlers of `/dashboard`."""

    def __init__(self, door: Door, sessions: Sessions, logins: Logins, figures: Figures, zone: tzinfo) -> None:
        self._door = door
        self._sessions = sessions
        self._logins = logins
        self._figures = figures
        self._tables = Tables(figures)
        self._languages = load_languages(zone)
        self._static = answers.load_static_files()

    def routes(self) -> list[RuledRoute]:
        return [
            RuledRoute("GET", "/dashboard/static/{name}", "anyone", self._static_file),
            RuledRoute("GET", LOGIN, "anyone", self._login_form),
            RuledRoute("POST", LOGIN, "anyone", self._login),
            RuledRoute("POST", "/dashboard/logout", "anyone", self._logout),
            self._guarded(HOME, self._home),
            self._guarded("/dashboard/{list}", self._list),
            self._guarded("/dashboard/{list}/{id}", self._one),
            self._guarded("/dashboard/{rest:path}", self._nothing),
        ]

    def _guarded(self, path: str, handler: Page) -> RuledRoute:
        """The route of a page for those who are logged in; everyone else is sent to the form.

        The key that opened the session is looked up each time: one that is revoked or blocked sees nothing any more.
        """

        async def endpoint(request: Request) -> Response:
            language = self._language(request)
            visitor: Visitor | None = None
            try:
                visitor = await self._visitor(request)
                if visitor is None:
                    return answers.redirect(LOGIN)
                request.state.principal, request.state.role = visitor.principal, visitor.role
                visit = Visit(visitor, language, _days(request), request.url.path)
                answer = await handler(request, visit)
            except (AuthenticationError, ScopeBlocked):
                answer = answers.redirect(LOGIN)
                answers.forget_session(answer)
            except GatewayError as error:
                return self._fault(language, error.status)
            return self._remember_language(answer, request)

        return RuledRoute("GET", path, "visitor", endpoint)

    async def _visitor(self, request: Request) -> Visitor | None:
        session = await self._sessions.find(request.cookies.get(answers.SESSION_COOKIE, ""))
        return None if session is None else await self._door.caller_of_digest(*session)

    async def _home(self, _request: Request, visit: Visit) -> Response:
        return await self._scope_page(visit, home_of(visit.visitor))

    async def _one(self, request: Request, visit: Visit) -> Response:
        scope_id: str = request.path_params["id"]
        if not SCOPE_ID.fullmatch(scope_id):
            raise NotFound("An id is 1 to 40 of a-z, 0-9 and '-'.")
        return await self._scope_page(visit, Scope(_kind(request), scope_id))

    async def _scope_page(self, visit: Visit, scope: Scope) -> Response:
        """Everything about one scope: what it spent and on what, its budgets, refusals and latest requests."""
        org = visit.visitor.org
        settings, state = await self._figures.scope(org, scope)
        if not may_open(visit.visitor, settings):
            raise NotFound(f"There is no {scope.kind} {scope.id}.")
        days = await self._figures.last_days(visit.days)
        spending = await self._figures.spending(org, scope, days)
        overview = await self._tables.overview(org, days) if scope.kind == "organisation" else None
        below = await self._tables.below(org, scope, days) if lists_scopes(visit.visitor) and not overview else []
        budgets = await self._figures.budgets(org, budgets_shown(visit.visitor, settings), days.now_ms)
        html = self._render(
            visit,
            "scope.html",
            settings=settings,
            state=state,
            days=days,
            spending=spending,
            charts=_day_charts(spending, visit.language),
            standing=self._figures.standing(state, days.now_ms),
            budgets=[*budgets, *(overview.fullest if overview else ())],
            overview=overview,
            children=[overview.teams] if overview else below,
            refusals=await self._figures.refusals(org, scope, days),
            latest=await self._figures.latest(org, scope, _LATEST_COUNT),
        )
        return answers.page(html)

    async def _list(self, request: Request, visit: Visit) -> Response:
        kind = _kind(request)
        if not lists_scopes(visit.visitor) or (kind == "team" and not sees_all(visit.visitor)):
            raise NotFound("There is no such list for this visitor.")
        asked = {name: request.query_params.get(name, "") for name in ("after", "team", "user")}
        for name, value in asked.items():
            if value and not SCOPE_ID.fullmatch(value):
                raise InvalidRequest(f"{name} is an id.", param=name)
        team, user = team_of(visit.visitor) or asked["team"] or None, asked["user"] or None
        days = await self._figures.last_days(visit.days)
        table = await self._tables.page(
            visit.visitor.org, kind, days, count=_LIST_COUNT, after=asked["after"], team=team, user=user
        )
        owner = _parameters({"team": asked["team"], "user": asked["user"]})
        return answers.page(
            self._render(visit, "list.html", table=table, days=days, owner=owner, asked=_parameters(asked))
        )

    async def _nothing(self, request: Request, _visit: Visit) -> Response:
        raise NotFound(f"There is no page {request.url.path}.")

    async def _login_form(self, request: Request) -> Response:
        answer = answers.page(self._login_page(self._language(request), ""))
        return self._remember_language(answer, request)

    async def _login(self, request: Request) -> Response:
        language = self._language(request)
        if not answers.is_from_this_site(request):
            return self._fault(language, 403)
        secret = (await answers.form_field(request, "key")).strip()
        try:
            token = await self._logins.open(request, secret)
        except GatewayError as error:
            page = self._login_page(language, words.LOGIN.get(error.code, words.FAULT))
            return answers.page(page, error.status, retry_after_s=error.retry_after_s)
        answer = answers.redirect(HOME)
        answers.set_session(answer, request, token)
        return answer

    async def _logout(self, request: Request) -> Response:
        if not answers.is_from_this_site(request):
            return self._fault(self._language(request), 403)
        try:
            await self._sessions.close(request.cookies.get(answers.SESSION_COOKIE, ""))
        except GatewayError as error:
            return self._fault(self._language(request), error.status)
        answer = answers.redirect(LOGIN)
        answers.forget_session(answer)
        return answer

    async def _static_file(self, request: Request) -> Response:
        file = self._static.get(request.path_params["name"])
        return self._fault(self._language(request), 404) if file is None else answers.static_answer(file)

    def _language(self, request: Request) -> Language:
        chosen = request.query_params.get("lang") or request.cookies.get(answers.LANGUAGE_COOKIE)
        return self._languages[preferred(chosen, request.headers.get("accept-language", ""))]

    def _remember_language(self, answer: Response, request: Request) -> Response:
        chosen = request.query_params.get("lang")
        if chosen is not None and chosen in LANGUAGES:
            answers.set_language(answer, request, chosen)
        return answer

    def _render(self, visit: Visit, template: str, **context: object) -> str:
        home = home_of(visit.visitor)
        about = {
            "visitor": visit.visitor,
            "home": home,
            "path": visit.path,
            "chosen_days": visit.days,
            "ranges": RANGES,
            "lists": [] if not lists_scopes(visit.visitor) else [*_LISTS][0 if sees_all(visit.visitor) else 1 :],
            "list_kinds": _LISTS,
            "bar_parts": bar_parts,
            "bar_units": BAR_UNITS,
        }
        return self._template(visit.language, template, **about, **context)

    def _login_page(self, language: Language, message: str) -> str:
        return self._template(language, "login.html", message=message)

    def _fault(self, language: Language, status: int) -> Response:
        message = words.FAULTS.get(status, words.FAULT)
        return answers.page(self._template(language, "fault.html", message=message), status)

    def _template(self, language: Language, template: str, **context: object) -> str:
        return language.templates.get_template(template).render(
            language=language, languages=LANGUAGES, words=words, static=self._static, **context
        )


def _kind(request: Request) -> ScopeKind:
    kind = _LISTS.get(request.path_params["list"])
    if kind is None:
        raise NotFound("There is no such list.")
    return kind


def _days(request: Request) -> int:
    text = request.query_params.get("days", str(_RANGE_DEFAULT))
    return next((days for days in RANGES if str(days) == text), _RANGE_DEFAULT)


def _parameters(asked: Mapping[str, str]) -> str:
    """What was asked of a list, to be added to a link that leads to it once more."""
    return "".join(f"&{name}={value}" for name, value in asked.items() if value)


def _day_charts(spending: Spending, language: Language) -> dict[str, ColumnChart]:
    """The same chart for three widths of screen, so that its letters keep their size."""
    costs = [max(0, measures.cost_nano_usd) for _, measures in spending.by_day]
    return {
        name: column_chart(costs, width=width, height=height, mirrored=language.mirrored, labels_max=labels_max)
        for name, width, height, labels_max in _CHART_SIZES
    }
