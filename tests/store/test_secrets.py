"""The secrets of a key: who is among them, and what becomes of those before a rotation."""

from dataclasses import replace

import pytest

from gateway.billing.errors import PreconditionFailed
from gateway.billing.principal import digest_of
from gateway.billing.scope import ScopeSettings
from gateway.store.secrets import Rotated, Secrets
from tests.store.bench import ORG, Bench

LAMP = ScopeSettings("key", "lamp", team="red", user="an")
HOUR_MS = 3_600_000


@pytest.fixture
def lamp(bench: Bench) -> Bench:
    """With a key of one secret."""
    bench.run(bench.scopes.create(ORG, LAMP, secret_digest=digest_of("first")))
    return bench


def rotate(bench: Bench, secret: str, grace_ms: int) -> Rotated | None:
    read = bench.run(bench.scopes.read(ORG, LAMP.scope))
    return bench.run(Secrets(bench.redis, bench.scripts).rotate(ORG, read, digest_of(secret), grace_ms, None))


def good(bench: Bench) -> set[str]:
    """The secrets that stand for some key."""
    names = {bench.keys.digest(digest_of(secret)): secret for secret in ("first", "second", "third")}
    return {secret for name, secret in names.items() if bench.run(bench.redis.exists(name))}


def listed(bench: Bench) -> int:
    return int(bench.run(bench.redis.scard(bench.keys.secrets("lamp"))))


def test_an_old_secret_ends_by_the_clock_of_redis(lamp: Bench) -> None:
    """Nobody has to be there to end it."""
    assert rotate(lamp, "second", HOUR_MS) is not None
    assert {"first", "second"} == good(lamp)
    assert 0 < lamp.run(lamp.redis.pttl(lamp.keys.digest(digest_of("first")))) <= HOUR_MS
    assert -1 == lamp.run(lamp.redis.pttl(lamp.keys.digest(digest_of("second"))))


def test_the_list_holds_no_more_than_there_are(lamp: Bench) -> None:
    """However often a key is rotated."""
    for number in range(5):
        rotate(lamp, f"number {number}", 0)
    rotate(lamp, "second", 0)
    rotate(lamp, "third", 0)
    assert ({"third"}, 1) == (good(lamp), listed(lamp))


def test_a_key_from_before_secrets_were_listed_is_rotated_as_well(lamp: Bench) -> None:
    """Its one secret is found by what is stored at it; those of other keys are left alone."""
    lamp.run(lamp.scopes.create(ORG, ScopeSettings("key", "torch", team="red"), secret_digest=digest_of("third")))
    lamp.run(lamp.redis.delete(lamp.keys.secrets("lamp")))
    assert rotate(lamp, "second", 0) is not None
    assert {"second", "third"} == good(lamp)


def test_rotations_at_the_same_time_leave_no_secret_behind(lamp: Bench) -> None:
    """Each ends those before it, in whichever order they come: the last one alone is good."""
    secrets = Secrets(lamp.redis, lamp.scripts)
    read = lamp.run(lamp.scopes.read(ORG, LAMP.scope))
    lamp.together([secrets.rotate(ORG, read, digest_of(f"one of {n}"), 0, None) for n in range(3)])
    names = [lamp.keys.digest(digest_of(f"one of {n}")) for n in range(3)]
    assert 1 == lamp.run(lamp.redis.exists(*names))
    assert set() == good(lamp)


def test_a_key_that_was_changed_since_it_was_read_gets_no_secret(lamp: Bench) -> None:
    """A team's administrator rotates a member's key; the moment it is raised to another role that is not theirs."""
    read = lamp.run(lamp.scopes.read(ORG, LAMP.scope))
    assert lamp.run(lamp.scopes.replace(ORG, read, replace(LAMP, role="admin")))
    with pytest.raises(PreconditionFailed):
        lamp.run(Secrets(lamp.redis, lamp.scripts).rotate(ORG, read, digest_of("second"), 0, None))
    assert {"first"} == good(lamp)
