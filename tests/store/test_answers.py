"""Answers kept for a repeat: there at once, or a mark until they are made, which only an answer takes the place of."""

from gateway.store.answers import Answers, KeptAnswer, stored_answer, unfinished_answer
from tests.store.bench import ORG, Bench

ANSWER = KeptAnswer(200, ((b"content-type", b"application/json"),), b"{}\n{}")


def test_a_mark_says_until_when_the_answer_is_made_and_gives_way_to_it(bench: Bench) -> None:
    """It is gone when the mark would have been."""
    answers = Answers(bench.redis)
    bench.run(bench.redis.set(bench.keys.answer("h1"), unfinished_answer(1_795_000_000_000), px=60_000))
    marked, _ = bench.run(answers.find(ORG, "h1"))
    assert KeptAnswer(0, (), b"", unfinished_until_ms=1_795_000_000_000) == marked
    bench.run(answers.replace(ORG, "h1", stored_answer(ANSWER)))
    assert (ANSWER, False) == bench.run(answers.find(ORG, "h1"))
    assert 0 < bench.run(bench.redis.pttl(bench.keys.answer("h1"))) <= 60_000


def test_an_answer_that_nobody_has_marked_is_not_kept(bench: Bench) -> None:
    """Its call was not settled yet, or is long forgotten: it would stay for ever."""
    answers = Answers(bench.redis)
    bench.run(answers.replace(ORG, "h2", stored_answer(ANSWER)))
    assert (None, False) == bench.run(answers.find(ORG, "h2"))
