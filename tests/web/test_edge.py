"""The edge of a call: whatever goes wrong inside, its client is answered, and told whether to try again."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.call_log import CallRecord
from gateway.metrics import Metrics
from gateway.web.edge import answer_call
from gateway.web.exchange import Exchange
from gateway.web.services import Services
from gateway.web.settlement import Tasks
from tests.web.test_exchange import Wire


@pytest.mark.parametrize("was_sent", [False, True])
def test_a_fault_of_ours_is_not_to_be_repeated_once_the_call_was_sent(was_sent: bool) -> None:
    """OpenAI's SDKs repeat a 500 unless they are told not to, and the first one may have been billed."""
    wire = Wire()

    async def serve(exchange: Exchange, record: CallRecord) -> None:
        record.sent_at = time.perf_counter() if was_sent else None
        raise ZeroDivisionError

    async def scenario() -> None:
        services: Any = SimpleNamespace(tasks=Tasks(), metrics=Metrics())
        record = CallRecord("/v1/chat/completions", "req-1", time.perf_counter())
        answer_call(serve, wire.exchange(b""), record, cast(Services, services), {})
        await services.tasks.calls_ended(timeout_s=5)

    asyncio.run(scenario())
    assert wire.written.startswith(b"HTTP/1.1 500 ")
    assert b'"code":"internal_error"' in wire.written
    assert was_sent == (b"\r\nx-should-retry: false\r\n" in wire.written)
