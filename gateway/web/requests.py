"""What became of a call: for who left before its answer, waits for pictures, or wants to know what it cost."""

import re
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute
from gateway.billing.budget import instant
from gateway.billing.errors import NotFound
from gateway.billing.ledger import INEXACT, HoldState
from gateway.billing.money import format_usd
from gateway.billing.principal import Principal
from gateway.store.jobs import Job
from gateway.store.requests import ImageCall, KnownCall, Requests
from gateway.web.auth import Authenticator
from gateway.web.books import hold_cursor
from gateway.web.holder import for_holder
from gateway.web.http import json_response, limit_of, query
from gateway.web.job_watch import JobGlance

_REQUEST_ID = re.compile(r"[a-z0-9-]{1,80}")


_LIMIT_MAX = 100


class OwnRequests:
    """Handlers of `GET /v1/requests/{id}` and `GET /v1/requests`."""

    def __init__(self, auth: Authenticator, requests: Requests, glance: JobGlance) -> None:
        self._auth = auth
        self._requests = requests
        self._glance = glance

    def routes(self) -> list[RuledRoute]:
        return [
            for_holder("GET", "/v1/requests/{request_id}", self._auth, self._request),
            for_holder("GET", "/v1/requests", self._auth, self._image_calls),
        ]

    async def _request(self, request: Request, principal: Principal) -> Response:
        """One call of the asking key; another key's does not exist for it."""
        query(request, {})
        request_id = request.path_params["request_id"]
        known = _REQUEST_ID.fullmatch(request_id)
        call = await self._requests.find(principal.org, request_id) if known else None
        if call is None or call.owner.scopes() != principal.scopes():
            raise NotFound(
                "No call of this key that was admitted has this id, or it ended more than 48 hours ago: so long calls "
                "are kept, and those that were refused are not."
            )
        call = replace(call, jobs=await self._glance.now(call.jobs, request_id))
        return json_response(call_json(request_id, call))

    async def _image_calls(self, request: Request, principal: Principal) -> Response:
        """The asking key's own: who left before the answer finds the pictures here. MiniToolAI is not asked."""
        params = query(request, {"limit": "20", "cursor": ""})
        limit = limit_of(params["limit"], _LIMIT_MAX)
        calls, last = await self._requests.image_calls(principal, hold_cursor(params["cursor"]), limit)
        after = f"{last[0]}-{last[1]}" if last is not None else None
        return json_response({"data": [image_call_json(call) for call in calls], "next_cursor": after})


def call_json(request_id: str, call: KnownCall) -> dict[str, object]:
    """A call as answered; what is not known yet, or not any more, is null."""
    entry = call.entry
    ended = call.ended_at_ms is not None
    cost_nano_usd = call.cost_nano_usd
    return {
        "id": request_id,
        "state": _state_word(call.state),
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


def image_call_json(call: ImageCall) -> dict[str, object]:
    """An image call in short; what is not known yet, or not any more, is null."""
    cost_nano_usd = call.cost_nano_usd
    return {
        "id": call.request_id,
        "created_at": instant(call.created_at_ms),
        "state": _state_word(call.state),
        "model": call.model,
        "cost_nano_usd": cost_nano_usd,
        "cost_usd": format_usd(cost_nano_usd) if cost_nano_usd is not None else None,
        "jobs": [_job_json(job) for job in call.jobs],
    }


def _state_word(state: HoldState | None) -> str | None:
    return "running" if state == "open" else state


def _job_json(job: Job) -> dict[str, object]:
    return {
        "index": job.number,
        "state": job.state,
        "url": job.image_url or None,
        "refunded_nano_usd": job.refunded_nano_usd,
        "refunded_usd": format_usd(job.refunded_nano_usd),
    }
