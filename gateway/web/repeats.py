"""Idempotency-Key on calls: asked again, a call is answered as the first time and billed once.

The key is claimed by the admission itself, in the same script: of any number that arrive at once, one runs. A call that
ended without cost frees its claim, so that it can be tried again; one that may have cost something is never run again.
"""

import hashlib
import re
import time
from dataclasses import replace

from gateway.billing.errors import (
    IdempotencyConflict,
    IdempotencyInProgress,
    IdempotencyUnreplayable,
    InvalidRequest,
)
from gateway.billing.principal import Principal
from gateway.store.admission import Claim, Claimed
from gateway.store.answers import Answers, KeptAnswer, stored_answer
from gateway.web.errors import Header
from gateway.wire.call import Call
from gateway.wire.presentation import Presentation

ANSWER_BYTES_MAX = 1024 * 1024
"""Longer answers are not kept."""
FIRST_REQUEST_ID = b"x-gateway-first-request-id"
"""The header by which a repeat, which stands nowhere itself, leads to the call that was made and billed."""

_PARAM = "Idempotency-Key"
_KEY = re.compile(rb"[\x21-\x7e]{1,255}")
_RETRY_AFTER_S = 1


def claim_of(
    sent: list[bytes], principal: Principal, path: str, call: Call, presentation: Presentation
) -> Claim | None:
    """What the request claims; None where it has no Idempotency-Key. Raises InvalidRequest.

    The answer that is kept is shown as it was asked for, so asked for in another way it is another request.
    """
    if not sent:
        return None
    if len(sent) > 1 or not _KEY.fullmatch(sent[0]):
        raise InvalidRequest("Idempotency-Key is sent once, as 1 to 255 visible ASCII characters.", param=_PARAM)
    owner = f"{principal.org}\n{principal.key}\n".encode()
    return Claim(_digest(owner + sent[0]), _digest(f"{path}\n{presentation.words}".encode() + call.body))


async def first_answer(answers: Answers, org: str, claimed: Claimed) -> KeptAnswer:
    """What the first call under this key was answered, marked as a repeat of it and with its id.

    Raises IdempotencyConflict, IdempotencyInProgress, IdempotencyUnreplayable, LedgerUnavailable.
    """
    if not claimed.same:
        raise IdempotencyConflict(
            "This Idempotency-Key was used for another request; use a new key for a new one.", param=_PARAM
        )
    kept, running = await answers.find(org, claimed.hold_id)
    if kept is not None and kept.unfinished_until_ms is None:
        marks = ((b"idempotent-replayed", b"true"), (FIRST_REQUEST_ID, claimed.hold_id.encode()))
        return replace(kept, headers=(*kept.headers, *marks))
    if kept is not None and kept.unfinished_until_ms is not None:
        running = time.time_ns() // 1_000_000 < kept.unfinished_until_ms
    if running:
        raise IdempotencyInProgress(
            "The first request with this Idempotency-Key still runs; ask again for its answer.",
            param=_PARAM,
            retry_after_s=_RETRY_AFTER_S,
        )
    raise IdempotencyUnreplayable(
        "The first request with this Idempotency-Key was sent and may have been billed, and its answer is not kept: it "
        "broke off, or is above 1 MiB. It is never sent again; GET /v1/requests/"
        f"{claimed.hold_id} says what it cost, and a new key asks anew.",
        param=_PARAM,
    )


class AnswerCopy:
    """Collects an answer while it passes, up to the bound."""

    def __init__(self) -> None:
        self._head: tuple[int, tuple[Header, ...]] | None = None
        self._parts: list[bytes] = []
        self._left_bytes = ANSWER_BYTES_MAX

    def begin(self, status: int, headers: list[Header]) -> None:
        self._head = (status, tuple(headers))

    def take(self, chunk: bytes) -> None:
        self._left_bytes -= len(chunk)
        if self._left_bytes >= 0:
            self._parts.append(chunk)
        else:
            self._parts.clear()

    def whole(self) -> bytes:
        """The answer as it is stored; empty where it did not begin or is too long."""
        if self._head is None or self._left_bytes < 0:
            return b""
        return stored_answer(KeptAnswer(*self._head, b"".join(self._parts)))


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
