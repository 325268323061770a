"""What a repeat under an Idempotency-Key hears while the first answer is made, and when it never is."""

import asyncio
import time
from typing import cast

import pytest

from gateway.billing.errors import IdempotencyInProgress, IdempotencyUnreplayable
from gateway.store.admission import Claimed
from gateway.store.answers import Answers, KeptAnswer
from gateway.web.repeats import first_answer


class Kept:
    """Redis, as far as a repeat looks at it."""

    def __init__(self, answer: KeptAnswer) -> None:
        self.answer = answer

    async def find(self, _org: str, _hold_id: str) -> tuple[KeptAnswer, bool]:
        """The call has been settled."""
        return self.answer, False


def repeat(answer: KeptAnswer) -> KeptAnswer:
    return asyncio.run(first_answer(cast(Answers, Kept(answer)), "acme", Claimed("req-1", same=True)))


def test_an_answer_that_is_being_made_is_in_progress() -> None:
    """Pictures take a while after their call was settled."""
    with pytest.raises(IdempotencyInProgress):
        repeat(KeptAnswer(0, (), b"", unfinished_until_ms=int(time.time() * 1000) + 60_000))


def test_an_answer_that_was_never_made_names_its_call() -> None:
    """Its gateway was killed, or it is too large to keep: what was bought can be found all the same."""
    with pytest.raises(IdempotencyUnreplayable, match="GET /v1/requests/req-1 "):
        repeat(KeptAnswer(0, (), b"", unfinished_until_ms=0))


def test_an_answer_that_was_made_is_given_again() -> None:
    """As it was, marked, and with the id of the call that was made."""
    marks = ((b"idempotent-replayed", b"true"), (b"x-gateway-first-request-id", b"req-1"))
    own = ((b"content-type", b"application/json"),)
    assert KeptAnswer(200, (*own, *marks), b"{}") == repeat(KeptAnswer(200, own, b"{}"))
