"""One line for each request that ASGI serves: the control plane's, the dashboard's, and what nothing is found for.

Calls have lines of their own (`web.edge`). Who asks is known to whoever looked at the key, and what went wrong to
whoever answered: both leave it in the request's state.
"""

import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.call_log import Lines, RequestRecord, request_line
from gateway.web.request_id import new_request_id

_PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked every few seconds by machines: only where they are refused or fail is there something to tell."""


async def serve_logged(app: ASGIApp, scope: Scope, receive: Receive, send: Send, lines: Lines) -> None:
    """Serve one request and give `lines` its line. Every answer has an `x-request-id`, which is in the line."""
    began_at = time.perf_counter()
    state = scope.setdefault("state", {})
    record = RequestRecord(new_request_id(), scope["method"], scope["path"])
    state["request_id"] = record.request_id

    async def send_on(message: Message) -> None:
        if message["type"] == "http.response.start":
            record.status = message["status"]
            MutableHeaders(scope=message)["x-request-id"] = record.request_id
        await send(message)

    try:
        await app(scope, receive, send_on)
    finally:
        record.error, record.role = state.get("error"), state.get("role")
        record.principal = state.get("principal")
        if record.path not in _PROBES or record.status != 200:
            is_known = record.principal is not None or record.role is not None
            write = lines.of_caller if is_known else lines.of_stranger
            write(request_line(record, time.perf_counter() - began_at))
