"""The edge of a call: whatever goes wrong inside, its client is answered, and told whether to try again."""

import asyncio
import gc
import time
import weakref
from types import SimpleNamespace
from typing import cast

import pytest

from gateway.billing.errors import InvalidRequest
from gateway.call_log import CallRecord
from gateway.metrics import Metrics
from gateway.web.edge import answer_call
from gateway.web.exchange import Exchange
from gateway.web.services import Services
from gateway.web.settlement import Tasks
from tests.web.test_exchange import Wire


def services_of_an_edge() -> Services:
    """What a call's edge itself asks for."""
    limits = SimpleNamespace(calls_max=9)
    auth = SimpleNamespace(bad_keys=SimpleNamespace(answer_to=lambda error, *_origin: error))
    return cast(Services, SimpleNamespace(tasks=Tasks(), metrics=Metrics(), limits=limits, auth=auth))


@pytest.mark.parametrize("was_sent", [False, True])
def test_a_fault_of_ours_is_not_to_be_repeated_once_the_call_was_sent(was_sent: bool) -> None:
    """OpenAI's SDKs repeat a 500 unless they are told not to, and the first one may have been billed."""
    wire = Wire()

    async def serve(exchange: Exchange, record: CallRecord) -> None:
        record.sent_at = time.perf_counter() if was_sent else None
        raise ZeroDivisionError

    async def scenario() -> None:
        services = services_of_an_edge()
        record = CallRecord("/v1/chat/completions", "req-1", time.perf_counter())
        answer_call(serve, wire.exchange(b""), record, services, {})
        await services.tasks.calls_ended(timeout_s=5)

    asyncio.run(scenario())
    assert wire.written.startswith(b"HTTP/1.1 500 ")
    assert b'"code":"internal_error"' in wire.written
    assert was_sent == (b"\r\nx-should-retry: false\r\n" in wire.written)


def test_a_refused_call_is_forgotten_with_its_answer() -> None:
    """An error holds the frames it came through, and they the body. Were it held in turn, bodies of megabytes would
    stay until garbage is collected, which is seldom."""
    wire = Wire()
    body: weakref.ref[set[bytes]] | None = None

    async def serve(_exchange: Exchange, _record: CallRecord) -> None:
        nonlocal body
        held = {b"a body"}
        body = weakref.ref(held)
        raise InvalidRequest("Send something else.")

    async def scenario() -> None:
        services = services_of_an_edge()
        record = CallRecord("/v1/chat/completions", "req-1", time.perf_counter())
        answer_call(serve, wire.exchange(b""), record, services, {})
        await services.tasks.calls_ended(timeout_s=5)
        assert body is not None
        assert body() is None

    gc.disable()
    try:
        asyncio.run(scenario())
    finally:
        gc.enable()
    assert wire.written.startswith(b"HTTP/1.1 400 ")
