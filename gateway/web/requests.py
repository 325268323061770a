"""What became of a call: for who left before its answer, waits for pictures, or wants to know what it cost."""

import re

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute
from gateway.billing.budget import instant
from gateway.billing.errors import NotFound
from gateway.billing.ledger import INEXACT
from gateway.billing.money import format_usd
from gateway.billing.principal import Principal
from gateway.store.jobs import Job
from gateway.store.requests import KnownCall, Requests
from gateway.web.auth import Authenticator
from gateway.web.holder import for_holder
from gateway.web.http import json_response, query

_REQUEST_ID = re.compile(r"[a-z0-9-]{1,80}")


class OwnRequests:
    """Handler of `GET /v1/requests/{id}`."""

    def __init__(self, auth: Authenticator, requests: Requests) -> None:
        self._auth = auth
        self._requests = requests

    def routes(self) -> list[RuledRoute]:
        return [for_holder("GET", "/v1/requests/{request_id}", self._auth, self._request)]

    async def _request(self, request: Request, principal: Principal) -> Response:
        """One call of the asking key; another key's does not exist for it."""
        query(request, {})
        request_id = request.path_params["request_id"]
        known = _REQUEST_ID.fullmatch(request_id)
        call = await self._requests.find(principal.org, request_id) if known else None
        if call is None or call.owner.scopes() != principal.scopes():
            raise NotFound("This key made no such request, or it ended more than 48 hours ago: so long they are kept.")
        return json_response(call_json(request_id, call))


def call_json(request_id: str, call: KnownCall) -> dict[str, object]:
    """A call as answered; what is not known yet, or not any more, is null."""
    entry = call.entry
    ended = call.ended_at_ms is not None
    cost_nano_usd = call.cost_nano_usd
    return {
        "id": request_id,
        "state": "running" if call.state == "open" else call.state,
        "kind": call.kind,
        "model": call.model,
        "created_at": instant(call.admitted_at_ms),
        "ended_at": instant(call.ended_at_ms) if call.ended_at_ms is not None else None,
        "prompt_tokens": entry.prompt_tokens if entry else None,
        "completion_tokens": entry.completion_tokens if entry else None,
        "images": (entry.units if call.kind == "image" else 0) if entry else None,
        "hold_nano_usd": call.hold_nano_usd,
        "hold_usd": format_usd(call.hold_nano_usd),
        "cost_nano_usd": cost_nano_usd if ended else None,
        "cost_usd": format_usd(cost_nano_usd) if ended else None,
        "exact": INEXACT.isdisjoint(entry.flags) if entry else None,
        "flags": list(entry.flags) if entry else [],
        **({"jobs": [_job_json(job) for job in call.jobs]} if call.kind == "image" else {}),
    }


def _job_json(job: Job) -> dict[str, object]:
    return {
        "index": job.number,
        "state": job.state,
        "url": job.image_url or None,
        "refunded_nano_usd": job.refunded_nano_usd,
        "refunded_usd": format_usd(job.refunded_nano_usd),
    }
