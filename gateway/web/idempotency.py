"""What is entered once however often it is sent: the id an Idempotency-Key stands for, and the answer to a repeat."""

import hashlib
import json
import re
import secrets
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from gateway.billing.errors import IdempotencyConflict, InvalidRequest
from gateway.store.scopes import Asked
from gateway.web.auth import Caller
from gateway.web.http import Done, answered

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)


def key_sent(request: Request) -> str | None:
    """The Idempotency-Key of a request. Raises InvalidRequest: it is sent twice, or is no key."""
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return None
    if len(keys) > 1 or not _IDEMPOTENCY_KEY.fullmatch(keys[0]):
        raise InvalidRequest(
            "Idempotency-Key is sent once, as 1 to 255 visible ASCII characters.", param="Idempotency-Key"
        )
    return keys[0]


def idempotent_id(kind: str, key: str | None, caller: Caller) -> str:
    """An id that the same caller's same Idempotency-Key gives again for this kind of entry; without one a new id."""
    if key is None:
        return f"{kind}-{secrets.token_hex(12)}"
    return f"{kind}-{hashlib.sha256(f'{caller.author} {key}'.encode()).hexdigest()[:24]}"


def asked_once(kind: str, key: str | None, fields: Mapping[str, object], caller: Caller) -> Asked | None:
    """What is asked under an Idempotency-Key, equal for equal bodies however their JSON was written; without, None."""
    if key is None:
        return None
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    return Asked(idempotent_id(kind, key, caller), digest)


def answer_once(body: dict[str, object], *, repeated: bool) -> Response:
    """201 with the entry."""
    return answered(Done(body, 201, repeated))


def used_for_another(kind: str) -> IdempotencyConflict:
    """The key stands for something else already."""
    return IdempotencyConflict(
        f"This Idempotency-Key was used for another {kind}; use a new key for a new one.", param="Idempotency-Key"
    )
