"""The outer edge of every data-plane call: whatever happens inside, it is answered, counted and logged, once."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from gateway.billing.errors import FailedWhenSent, GatewayError, Overloaded
from gateway.billing.principal import Principal
from gateway.call_log import CallRecord
from gateway.metrics import NONE
from gateway.web.errors import allowance_headers
from gateway.web.exchange import ClientLeft, Exchange
from gateway.web.services import Services

log = logging.getLogger("gateway.edge")

_OUR_FAULT = "The gateway failed at this call; its log has the cause under this request's id."

_TOO_MANY = "This gateway serves as many calls as it takes at a time; try again. Nothing was billed."
_TOO_MANY_RETRY_AFTER_S = 1

Serve = Callable[[Exchange, CallRecord], Awaitable[None]]


def answer_call(
    serve: Serve, exchange: Exchange, record: CallRecord, services: Services, error_fields: Mapping[str, object]
) -> None:
    """Begin a call, in a task that nothing cancels: a hold must not be lost with it."""
    services.tasks.start_call(_run(serve, exchange, record, services, error_fields))


async def _run(
    serve: Serve, exchange: Exchange, record: CallRecord, services: Services, error_fields: Mapping[str, object]
) -> None:
    services.metrics.calls_in_flight.inc()
    services.tasks.on_hurry(exchange.hasten)
    try:
        if len(services.tasks.calls) > services.limits.calls_max:
            raise Overloaded(_TOO_MANY, retry_after_s=_TOO_MANY_RETRY_AFTER_S)
        await serve(exchange, record)
    except ClientLeft:
        record.error = "client_left"
    except GatewayError as error:
        await _refuse(error, exchange, record, services, error_fields)
    except Exception:  # the process's edge: a fault of ours is logged and counted, and the caller hears of it
        log.exception("call %s failed", exchange.request_id)
        record.error = GatewayError.code
        if not exchange.started:
            fault = GatewayError(_OUR_FAULT) if record.sent_at is None else FailedWhenSent(_OUR_FAULT)
            await exchange.answer_error(fault, error_fields)
    finally:
        services.tasks.forget(exchange.hasten)
        exchange.close()
        record.status = exchange.status
        record.client_left = exchange.gone
        record.client_wait_s = exchange.waited_s
        services.metrics.calls_in_flight.dec()
        services.metrics.observe(record)
        if record.principal is not None and record.refused_at is not None and 400 <= record.status < 500:
            services.refusals.count(record.principal, record.error, time.time_ns() // 1_000_000)


async def _refuse(
    error: GatewayError, exchange: Exchange, record: CallRecord, services: Services, error_fields: Mapping[str, object]
) -> None:
    """Apart from `_run`, whose frame the error's traceback holds: kept there under another name, an error would keep
    itself, and the whole body of its call with it, until garbage is collected."""
    answered = services.auth.bad_keys.answer_to(error, *exchange.origin())
    record.error = answered.code
    if record.sent_at is None:
        record.refused_at = str(answered.details.get("scope", NONE))
    await exchange.answer_error(answered, error_fields)


async def tell_standing(exchange: Exchange, services: Services, principal: Principal) -> None:
    """Where no admission does: let the answer, whatever it will be, tell what is left to a key.

    Raises what refuses the key: it is revoked or expired, or a scope above it is blocked.
    """
    standing = await services.auth.standing(principal)
    exchange.told = allowance_headers(standing.allowance)
    if standing.refusal is not None:
        raise standing.refusal
