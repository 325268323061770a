"""The bench of Redis's time in small: real servers, a few dozen calls."""

import asyncio

from benchmarks import redis_time
from benchmarks.report import Outcome


def test_every_server_at_hand_is_measured() -> None:
    """The bundled one and, where it is installed, Debian's; each call is admitted and settled, or it stops."""
    outcome = asyncio.run(redis_time.scripts(pairs=40, rounds=1))
    assert list(redis_time.servers()) == [row["side"] for row in outcome.rows]
    assert_sane(outcome)


def test_growth_is_measured_beside_small_books() -> None:
    """Each kind of large books, with callers that all exist."""
    outcome = asyncio.run(redis_time.growth(pairs=40, rounds=1, scale=0.001))
    assert ["1 key", "100 keys", "10 teams", "300 entries"] == [row["side"] for row in outcome.rows]
    assert 3 == len(outcome.figures)
    assert_sane(outcome)


def assert_sane(outcome: Outcome) -> None:
    """A script takes more than a microsecond, and less than a hundred milliseconds."""
    for row in outcome.rows:
        assert 1 < float(row["admit µs"]) < 1e5, row
        assert 1 < float(row["settle µs"]) < 1e5, row
