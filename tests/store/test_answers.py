"""Answers kept for a repeat: there at once, or a mark until they are made, which only an answer takes the place of."""

import pytest

from gateway.store.admission import Claim
from gateway.store.answers import ANSWER_KEPT_MS, Answers, KeptAnswer, stored_answer, unfinished_answer
from tests.store.bench import ORG, Bench, capture

ANSWER = KeptAnswer(200, ((b"content-type", b"application/json"),), b"{}\n{}")


MARK = unfinished_answer(1_795_000_000_000)


@pytest.mark.parametrize("settled_first", [True, False])
def test_a_mark_gives_way_to_its_answer_whichever_comes_first(bench: Bench, settled_first: bool) -> None:
    """Redis was away when the call was to be settled, and is back when its pictures are there: the settlement that is
    tried again a moment later leaves the answer."""
    answers = Answers(bench.redis)
    request = bench.call(7)._replace(claim=Claim("name", "request"))
    bench.admit(request)
    if not settled_first:
        bench.run(answers.keep(ORG, request.hold_id, stored_answer(ANSWER)))
    bench.run(bench.ledger.settle(request, capture(7), answer=MARK))
    if settled_first:
        marked, _ = bench.run(answers.find(ORG, request.hold_id))
        assert KeptAnswer(0, (), b"", unfinished_until_ms=1_795_000_000_000) == marked
        bench.run(answers.keep(ORG, request.hold_id, stored_answer(ANSWER)))
    assert (ANSWER, False) == bench.run(answers.find(ORG, request.hold_id))
    kept_ms = bench.run(bench.redis.pttl(bench.keys.answer(request.hold_id)))
    assert ANSWER_KEPT_MS - 60_000 < kept_ms <= ANSWER_KEPT_MS
