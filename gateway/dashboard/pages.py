"""The pages: what is shown, and to whom. Read `Dashboard._scope_page`; who asks is found out by `frame`."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute
from gateway.billing.errors import GatewayError, InvalidRequest, NotFound
from gateway.billing.principal import SCOPE_ID, Scope, ScopeKind
from gateway.dashboard import answers, words
from gateway.dashboard.changes import Changes
from gateway.dashboard.charts import ColumnChart, column_chart
from gateway.dashboard.figures import Figures, Spending
from gateway.dashboard.frame import HOME, LISTS, LOGIN, Frame, Visit, id_of
from gateway.dashboard.language import Language
from gateway.dashboard.logins import Logins
from gateway.dashboard.tables import Tables
from gateway.dashboard.visitors import budgets_shown, home_of, lists_scopes, may_open, sees_all, team_of
from gateway.store.sessions import Sessions

_LIST_COUNT = 100
_LATEST_COUNT = 20
_CHART_SIZES = (("wide", 1140, 260, 10), ("middle", 700, 230, 8), ("narrow", 350, 200, 4))


class Dashboard:
    """Handlers of `/dashboard`."""

    def __init__(self, frame: Frame, sessions: Sessions, logins: Logins, figures: Figures, changes: Changes) -> None:
        self._frame = frame
        self._sessions = sessions
        self._logins = logins
        self._figures = figures
        self._changes = changes
        self._tables = Tables(figures)

    def routes(self) -> list[RuledRoute]:
        return [
            RuledRoute("GET", "/dashboard/static/{name}", "anyone", self._static_file),
            RuledRoute("GET", LOGIN, "anyone", self._login_form),
            RuledRoute("POST", LOGIN, "anyone", self._login),
            RuledRoute("POST", "/dashboard/logout", "anyone", self._logout),
            self._frame.guarded("GET", HOME, self._home),
            self._frame.guarded("GET", "/dashboard/{list}", self._list),
            self._frame.guarded("GET", "/dashboard/{list}/{id}", self._one),
            *self._changes.routes(),
            self._frame.guarded("GET", "/dashboard/{rest:path}", self._nothing),
        ]

    async def _home(self, _request: Request, visit: Visit) -> Response:
        return await self._scope_page(visit, home_of(visit.visitor))

    async def _one(self, request: Request, visit: Visit) -> Response:
        return await self._scope_page(visit, Scope(_kind(request), id_of(request)))

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
        html = self._frame.render(
            visit,
            "scope.html",
            settings=settings,
            offers=await self._changes.offers(visit, settings),
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
            self._frame.render(visit, "list.html", table=table, days=days, owner=owner, asked=_parameters(asked))
        )

    async def _nothing(self, request: Request, _visit: Visit) -> Response:
        raise NotFound(f"There is no page {request.url.path}.")

    async def _login_form(self, request: Request) -> Response:
        answer = answers.page(self._login_page(self._frame.language(request), ""))
        return self._frame.remember_language(answer, request)

    async def _login(self, request: Request) -> Response:
        language = self._frame.language(request)
        if not answers.is_from_this_site(request):
            return self._frame.fault(language, 403)
        secret = (await answers.form_fields(request)).get("key", "").strip()
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
            return self._frame.fault(self._frame.language(request), 403)
        try:
            await self._sessions.close(request.cookies.get(answers.SESSION_COOKIE, ""))
        except GatewayError as error:
            return self._frame.fault(self._frame.language(request), error.status)
        answer = answers.redirect(LOGIN)
        answers.forget_session(answer)
        return answer

    async def _static_file(self, request: Request) -> Response:
        file = self._frame.static.get(request.path_params["name"])
        return self._frame.fault(self._frame.language(request), 404) if file is None else answers.static_answer(file)

    def _login_page(self, language: Language, message: str) -> str:
        return self._frame.template(language, "login.html", message=message)


def _kind(request: Request) -> ScopeKind:
    kind = LISTS.get(request.path_params["list"])
    if kind is None:
        raise NotFound("There is no such list.")
    return kind


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
