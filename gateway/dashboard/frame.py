"""What all pages share: who asks, in which language, what stands around them. Read `Frame.guarded`."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import tzinfo

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute
from gateway.billing.errors import AuthenticationError, GatewayError, NotFound, ScopeBlocked
from gateway.billing.principal import SCOPE_ID, ScopeKind
from gateway.dashboard import answers, words
from gateway.dashboard.charts import BAR_UNITS, bar_parts
from gateway.dashboard.language import LANGUAGES, Language, load_languages, preferred
from gateway.dashboard.visitors import Door, Visitor, home_of, lists_scopes, sees_all
from gateway.store.sessions import Sessions

LOGIN = "/dashboard/login"
HOME = "/dashboard"
RANGES = (7, 30, 90)
_RANGE_DEFAULT = 30
LISTS: Mapping[str, ScopeKind] = {"teams": "team", "users": "user", "keys": "key"}


@dataclass(frozen=True, slots=True)
class Session:
    """`digest`: of the secret that opened it; `token` is in its cookie alone."""

    token: str
    org: str
    digest: str


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of somebody who is logged in."""

    session: Session
    visitor: Visitor
    language: Language
    days: int
    path: str


Page = Callable[[Request, Visit], Awaitable[Response]]


class Frame:
    def __init__(self, door: Door, sessions: Sessions, zone: tzinfo) -> None:
        self._door = door
        self._sessions = sessions
        self._languages = load_languages(zone)
        self.static = answers.load_static_files()

    def guarded(self, method: str, path: str, handler: Page) -> RuledRoute:
        """The route of a page for those who are logged in; everyone else is sent to the login.

        The key that opened the session is looked up each time: one that is revoked or blocked sees nothing any more.
        What is no GET changes something, and is taken from our own pages alone.
        """

        async def endpoint(request: Request) -> Response:
            language = self.language(request)
            if method != "GET" and not answers.is_from_this_site(request):
                return self.fault(language, 403)
            try:
                visit = await self.visit(request, language)
                answer = answers.redirect(LOGIN) if visit is None else await handler(request, visit)
            except (AuthenticationError, ScopeBlocked):
                answer = answers.redirect(LOGIN)
                answers.forget_session(answer)
            except GatewayError as error:
                return self.fault(language, error.status)
            return self.remember_language(answer, request)

        return RuledRoute(method, path, "visitor", endpoint)

    async def visit(self, request: Request, language: Language) -> Visit | None:
        """Who asks, as they stand at this moment; None: nobody who is logged in.

        Raises AuthenticationError, ScopeBlocked: nobody any more. LedgerUnavailable.
        """
        token = request.cookies.get(answers.SESSION_COOKIE, "")
        found = await self._sessions.find(token)
        if found is None:
            return None
        visitor = await self._door.caller_of_digest(*found)
        request.state.principal, request.state.role = visitor.principal, visitor.role
        return Visit(Session(token, *found), visitor, language, _days(request), request.url.path)

    def language(self, request: Request) -> Language:
        chosen = request.query_params.get("lang") or request.cookies.get(answers.LANGUAGE_COOKIE)
        return self._languages[preferred(chosen, request.headers.get("accept-language", ""))]

    def remember_language(self, answer: Response, request: Request) -> Response:
        chosen = request.query_params.get("lang")
        if chosen is not None and chosen in LANGUAGES:
            answers.set_language(answer, request, chosen)
        return answer

    def render(self, visit: Visit, template: str, **context: object) -> str:
        """A page for who is logged in."""
        about = {
            "visitor": visit.visitor,
            "home": home_of(visit.visitor),
            "path": visit.path,
            "chosen_days": visit.days,
            "ranges": RANGES,
            "lists": [] if not lists_scopes(visit.visitor) else [*LISTS][0 if sees_all(visit.visitor) else 1 :],
            "list_kinds": LISTS,
            "bar_parts": bar_parts,
            "bar_units": BAR_UNITS,
        }
        return self.template(visit.language, template, **about, **context)

    def fault(self, language: Language, status: int, refused: GatewayError | None = None) -> Response:
        """A page that says why there is none. `refused`: the change that was asked for instead of a page."""
        message = words.FAULTS.get(status, words.FAULT)
        if refused is not None:
            message = words.REFUSED_CHANGES.get(refused.code, words.REFUSED_CHANGE)
        sentence = str(refused or "")
        return answers.page(self.template(language, "fault.html", message=message, sentence=sentence), status)

    def template(self, language: Language, template: str, **context: object) -> str:
        return language.templates.get_template(template).render(
            language=language, languages=LANGUAGES, words=words, static=self.static, **context
        )


def id_of(request: Request) -> str:
    """The id in the path. Raises NotFound: it is none."""
    scope_id: str = request.path_params["id"]
    if not SCOPE_ID.fullmatch(scope_id):
        raise NotFound("An id is 1 to 40 of a-z, 0-9 and '-'.")
    return scope_id


def _days(request: Request) -> int:
    text = request.query_params.get("days", str(_RANGE_DEFAULT))
    return next((days for days in RANGES if str(days) == text), _RANGE_DEFAULT)
