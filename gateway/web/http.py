"""What the control plane's handlers share: JSON in and out, one shape of errors, access decided before they run."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import get_args

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from gateway.access import RuledRoute, Who
from gateway.billing.errors import (
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PermissionDenied,
    UnknownField,
)
from gateway.billing.principal import Role
from gateway.web.auth import Authenticator, Caller, bearer
from gateway.web.errors import error_answer
from gateway.web.trail import change_of, outcome_of, recorded
from gateway.wire.request_head import check_json
from gateway.wire.strictjson import JSONObject, decode, encode

ROLES: Mapping[Who, frozenset[Role]] = {
    "viewer": frozenset(get_args(Role)),
    "manager": frozenset({"admin", "team_admin"}),
    "reader": frozenset({"admin", "auditor"}),
    "writer": frozenset({"admin"}),
}

Handler = Callable[[Request, Caller], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Done:
    """A change as it is answered, whichever way it was asked for.

    `repeated`: an earlier request with the same Idempotency-Key had made it.
    """

    body: dict[str, object]
    status: int = 200
    repeated: bool = False


def json_response(value: object, status: int = 200) -> Response:
    return Response(encode(value), status, media_type="application/json")


def answered(done: Done) -> Response:
    """Equal for the first time and each repeat, which is marked."""
    answer = json_response(done.body, done.status)
    if done.repeated:
        answer.headers["idempotent-replayed"] = "true"
    return answer


def guarded(method: str, path: str, auth: Authenticator, who: Who, handler: Handler) -> RuledRoute:
    """A route whose handler runs only for callers with one of the roles; everyone else is refused before it.

    Of a viewer's or manager's route the handler sees to it that nobody gets beyond `caller.reach`.
    What is no GET changes something, and is written down (`web.trail`).
    """
    roles = ROLES[who]

    async def endpoint(request: Request) -> Response:
        caller = await caller_of(request, auth)
        check_role(caller, roles)
        if method == "GET":
            return await handler(request, caller)
        await request.body()
        # A body may take its time: a key that was revoked, or lost its role meanwhile, changes nothing any more.
        if await caller_of(request, auth) != caller:
            raise PermissionDenied("The role of your key was changed while this request came in. Send it again.")
        change = await change_of(request, caller)
        return await recorded(auth.changes, caller, change, partial(handler, request, caller), outcome_of)

    return RuledRoute(method, path, who, endpoint)


def check_role(caller: Caller, roles: frozenset[Role]) -> None:
    """Raises PermissionDenied: it is for these roles, wherever it points."""
    if caller.role not in roles:
        raise PermissionDenied(f"This needs one of the roles {', '.join(sorted(roles))}; your key is {caller.role}.")


async def caller_of(request: Request, auth: Authenticator) -> Caller:
    """Who uses the control plane. Raises what `Authenticator.caller` raises; TooManyBadKeys."""
    caller = await _caller_of(request, auth)
    request.state.principal, request.state.role = caller.principal, caller.role
    return caller


async def _caller_of(request: Request, auth: Authenticator) -> Caller:
    secrets = raw_header(request, "authorization"), raw_header(request, "x-api-key")
    secret = bearer(*secrets)
    with auth.bad_keys.looking_at(secret, *origin_of(request), proven=auth.is_proven(secret)):
        return await auth.caller(*secrets)


def origin_of(request: Request) -> tuple[str | None, str]:
    """Who is connected, and whom X-Forwarded-For says to stand behind."""
    return request.client.host if request.client else None, ",".join(request.headers.getlist("x-forwarded-for"))


async def json_fields(request: Request, *, empty: bool = False) -> JSONObject:
    """The body as a JSON object; with `empty` no body is an object without fields.

    Raises InvalidJSON, DuplicateKey, UnsupportedMediaType; `web.pages` bounds it.
    """
    check_json(raw_header(request, "content-type"), raw_header(request, "content-encoding"))
    body = await request.body()
    return {} if empty and not body else decode(body)


async def refuse_fields(request: Request) -> None:
    """For what takes none: no body, or an empty object. Raises UnknownField, and what `json_fields` does."""
    fields = await json_fields(request, empty=True)
    if fields:
        name = next(iter(fields))[:80]
        raise UnknownField(f"This takes no fields; leave {name!r} out.", param=name)


def query(request: Request, known: Mapping[str, str]) -> dict[str, str]:
    """Query parameters with their defaults. Raises InvalidRequest: one that is not known, or given twice."""
    given = request.query_params.multi_items()
    for name, _ in given:
        if name not in known:
            names = ", ".join(known) or "none"
            raise InvalidRequest(f"There is no query parameter {name[:80]!r} here; known are {names}.", param=name[:80])
    if len({name for name, _ in given}) < len(given):
        raise InvalidRequest("A query parameter is given twice.")
    return {**known, **dict(given)}


def limit_of(text: str, most: int = 1000) -> int:
    """A page's size. Raises InvalidRequest: not a whole number from 1 to `most`."""
    if not text.isascii() or not text.isdigit() or len(text) > len(str(most)) or not 1 <= int(text) <= most:
        raise InvalidRequest(f"limit must be a whole number from 1 to {most}.", param="limit")
    return int(text)


def own_org(org: object, caller: Caller) -> None:
    """Raises PermissionDenied: it is another organisation, and one caller has one."""
    if org != caller.org:
        raise PermissionDenied(f"This deployment serves the organisation {caller.org}.", param="org")


async def answer_gateway_error(request: Request, error: Exception) -> Response:
    """Starlette's exception handler for the whole error tree."""
    if not isinstance(error, GatewayError):
        error = GatewayError("The gateway failed at this request; its log has the cause.")
    request.state.error = error.code
    status, headers, body = error_answer(error)
    return Response(body, status, {name.decode(): value.decode() for name, value in headers})


async def answer_nobody(request: Request, _error: Exception) -> Response:
    """The client has left: nothing is sent, and the line of the log says why."""
    request.state.error = "client_left"
    return _NoAnswer()


class _NoAnswer(Response):
    async def __call__(self, _scope: Scope, _receive: Receive, _send: Send) -> None:
        pass


async def answer_http_error(request: Request, error: Exception) -> Response:
    """404 and 405 of the router in the shape of all other errors."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        allow = ", ".join(sorted(_methods_at(request)))
        error = MethodNotAllowed(f"This path takes {allow}.", allow=allow)
        return await answer_gateway_error(request, error)
    return await answer_gateway_error(request, NotFound(_NOTHING_HERE))


_NOTHING_HERE = (
    "There is nothing at this path. The base URL of OpenAI's clients is the gateway's own with /v1 behind it, once; of "
    "that API there are /v1/chat/completions, /v1/images/generations and /v1/models, beside them /v1/estimate, /v1/me "
    "and /v1/usage. MiniToolAI's own paths are /api/chat-completions/, /api/texttoimage/ and /api/texttoimage/jobs/."
)


def _methods_at(request: Request) -> set[str]:
    """What the path does take; the router itself names only the first of its routes."""
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return {method for route in routes for method in route.methods}


def raw_header(request: Request, name: str) -> bytes | None:
    value = request.headers.get(name)
    return None if value is None else value.encode("latin-1")
