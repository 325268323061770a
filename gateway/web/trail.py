"""Who changed what: what a caller who may change things asks for is written down first, then done, then how it ended.

`web.http.guarded` does so for each route that changes anything, and `web.form_desk` for each form of the dashboard, so
none can forget it. Whoever may change nothing is refused before it, and in the log alone: strangers would fill the
list. A team's administrators have a quota of it.
"""

import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from gateway.billing.errors import GatewayError, LedgerUnavailable, RateLimitExceeded
from gateway.store.changes import QUOTA, Change, Changes, Outcome
from gateway.web.auth import Caller
from gateway.wire.stray_keys import without_keys
from gateway.wire.strictjson import decode

FIELDS_BYTES_MAX = 4 * 1024
"""Of a body that is kept: a scope's settings are a few hundred bytes."""

Made = TypeVar("Made")

_WORDS = {("DELETE", "keys"): "revoke", ("DELETE", "quarantine"): "dismiss", ("PATCH", ""): "change"}


async def recorded(
    changes: Changes,
    caller: Caller,
    change: Change,
    make: Callable[[], Awaitable[Made]],
    outcome_of: Callable[[Made], Outcome],
) -> Made:
    """Make a change between the two records.

    Raises LedgerUnavailable before it, where nothing can be written, and RateLimitExceeded.
    """
    team = None if caller.reach.is_whole else caller.reach.home.id
    change_id = await changes.begin(caller.org, change, team=team)
    if change_id is None:
        raise RateLimitExceeded(
            f"The administrators of team {team} have made {QUOTA} changes within a day; try again tomorrow, or ask an "
            "administrator of the organisation.",
            retry_after_s=3600,
        )
    outcome: Outcome | None = None
    try:
        made = await make()
        outcome = outcome_of(made)
        return made
    except GatewayError as error:
        outcome = Outcome(error.status, error.code)
        raise
    finally:
        if outcome is not None:
            with contextlib.suppress(LedgerUnavailable):  # what was done is done: its answer must not fail for this
                await changes.end(caller.org, change_id, outcome)


async def change_of(request: Request, caller: Caller) -> Change:
    """What a request to the control plane asks for, by its path and its body."""
    _, _, resource, *rest = request.url.path.strip("/").split("/")
    fields = kept(await request.body())
    named = rest[0] if rest else (fields or {}).get("id")
    return Change(
        request_id=request.state.request_id,
        caller=caller.author,
        role=caller.role,
        action=rest[1] if len(rest) > 1 else _word_for(request.method, resource),
        resource=resource,
        resource_id=named[:100] if isinstance(named, str) else "",
        fields=fields,
    )


def outcome_of(response: Response) -> Outcome:
    """How it ended, where it was answered."""
    return Outcome(response.status_code, resource_id=_id_in(response))


def _word_for(method: str, resource: str) -> str:
    return _WORDS.get((method, resource)) or _WORDS.get((method, "")) or "create"


def kept(body: bytes) -> dict[str, Any] | None:
    """The body as an object, without keys that stand where they do not belong; None for none, or a large one."""
    if not body or len(body) > FIELDS_BYTES_MAX:
        return None
    try:
        # Written anew first: a key may be spelled in escapes.
        fields: dict[str, Any] = json.loads(without_keys(json.dumps(decode(body), ensure_ascii=False)))
    except (GatewayError, ValueError):
        return None  # the handler refuses it, too
    return fields


def _id_in(response: Response) -> str:
    """What the gateway chose: the id of a new key, say."""
    try:
        answer = json.loads(bytes(response.body))
    except ValueError:
        return ""
    made = answer.get("id") if isinstance(answer, dict) else None
    return made if isinstance(made, str) else ""
