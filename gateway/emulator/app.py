"""The emulator as an ASGI application: a path becomes an endpoint, a refusal becomes an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.emulator import control
from gateway.emulator.account import Account
from gateway.emulator.chat import chat
from gateway.emulator.contract import BadRequest
from gateway.emulator.exchange import BodyTooLarge, ClientLeft, Exchange
from gateway.emulator.faults import BadFault
from gateway.emulator.images import image_error, picture, poll, submit
from gateway.emulator.options import EmulatorOptions
from gateway.emulator.shapes import Reply, error_reply

Handle = Callable[[Account, Exchange, bytes], Awaitable[None]]
Refuse = Callable[[int, str, str, str | None], Reply]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path and method: what handles it, whether it takes the key, how it words a refusal."""

    handle: Handle
    needs_key: bool = False
    upstream: bool = False
    refuse: Refuse = error_reply


def _refuse_image(status: int, message: str, code: str, param: str | None) -> Reply:
    return image_error(status, message)


ENDPOINTS: dict[tuple[str, str], Endpoint] = {
    ("POST", "/api/chat-completions"): Endpoint(chat, needs_key=True, upstream=True),
    ("POST", "/api/texttoimage"): Endpoint(submit, needs_key=True, upstream=True, refuse=_refuse_image),
    ("POST", "/api/texttoimage/jobs"): Endpoint(poll, upstream=True),
    ("GET", "/images"): Endpoint(picture),
    ("GET", "/__bill"): Endpoint(control.show_bill),
    ("GET", "/__requests"): Endpoint(control.show_requests),
    ("GET", "/__withheld"): Endpoint(control.show_withheld),
    ("GET", "/__faults"): Endpoint(control.show_faults),
    ("POST", "/__faults"): Endpoint(control.queue_faults),
    ("POST", "/__release"): Endpoint(control.release),
    ("POST", "/__reset"): Endpoint(control.reset),
}


def create_app(options: EmulatorOptions | None = None) -> ASGIApp:
    """An emulator with its own account. Breaking connections takes the server of `server`."""
    account = Account(options or EmulatorOptions())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError("the emulator speaks HTTP only")
        exchange = Exchange(scope, receive, send)
        try:
            await _dispatch(account, exchange)
        except ClientLeft:
            return
        finally:
            await exchange.close()

    return app


async def _dispatch(account: Account, exchange: Exchange) -> None:
    path = "/images" if exchange.path.startswith("/images/") else exchange.path.rstrip("/")
    endpoint = ENDPOINTS.get((exchange.method, path))
    if endpoint is None:
        known = any(path == other for _, other in ENDPOINTS)
        status, code = (405, "method_not_allowed") if known else (404, "not_found")
        await exchange.respond(error_reply(status, f"{exchange.method} {exchange.path}: {code}", code))
        return
    try:
        body = await exchange.read_body(account.options.body_bytes_max)
        if endpoint.upstream:
            account.note(exchange, body)
        if endpoint.needs_key and not account.authorises(exchange):
            await exchange.respond(endpoint.refuse(401, "this API key is not valid", "invalid_api_key", None))
            return
        await endpoint.handle(account, exchange, body)
    except BadRequest as error:
        await exchange.respond(endpoint.refuse(400, error.message, "invalid_request", error.param))
    except BadFault as error:
        await exchange.respond(endpoint.refuse(400, str(error), "unknown_fault", "x-emulator-fault"))
    except BodyTooLarge:
        await exchange.respond(endpoint.refuse(413, "the body is too large", "request_too_large", None))
