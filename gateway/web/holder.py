"""Pages for who holds a sub-key: each tells what is left to the key, and none is seen with one that is not good."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute
from gateway.billing.errors import GatewayError
from gateway.billing.principal import Principal
from gateway.web.auth import Authenticator
from gateway.web.errors import Header, allowance_headers
from gateway.web.http import answer_gateway_error, origin_of, raw_header

Page = Callable[[Request, Principal], Awaitable[Response]]


def for_holder(method: str, path: str, auth: Authenticator, page: Page) -> RuledRoute:
    """A route for who holds a sub-key that is good; like every answer of the data plane it tells what is left to it."""

    async def endpoint(request: Request) -> Response:
        told: list[Header] = [(b"x-gateway-cost-usd", b"0.00")]
        try:
            secrets = (raw_header(request, name) for name in ("authorization", "x-api-key"))
            principal = request.state.principal = await auth.principal(*secrets)
            standing = await auth.standing(principal)
            told += allowance_headers(standing.allowance)
            if standing.refusal is not None:
                raise standing.refusal
            response = await page(request, principal)
        except GatewayError as error:
            answered = auth.bad_keys.answer_to(error, *origin_of(request))
            response = await answer_gateway_error(request, answered)
        response.headers.update({name.decode(): value.decode() for name, value in told})
        return response

    return RuledRoute(method, path, "holder", endpoint)
