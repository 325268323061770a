"""What a change finds when others change the same: the rule is asked of what is replaced, not of what was there."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from gateway.billing.errors import PermissionDenied, PreconditionFailed
from gateway.billing.principal import Principal
from gateway.billing.reach import reach_of
from gateway.billing.scope import ScopeSettings
from gateway.store.scopes import Scopes, Stored
from gateway.web.reached import ReachedScopes
from tests.store.bench import NOTEBOOK, ORG, Bench, open_bench

LEAD = reach_of("team_admin", ORG, Principal(ORG, "red", None, "lead"))


@pytest.fixture
def bench(redis_url: str) -> Iterator[Bench]:
    with open_bench(redis_url) as (one,):
        yield one


class Overtaken(Scopes):
    """Before each of the first changes is made an administrator of the organisation makes one of theirs."""

    def __init__(self, bench: Bench, *changes: dict[str, Any]) -> None:
        super().__init__(bench.redis, bench.scripts)
        self._changes = [*changes]

    async def replace(self, org: str, old: Stored, new: ScopeSettings) -> bool:
        if self._changes:
            await super().replace(org, old, replace(old.settings, **self._changes.pop(0)))
        return await super().replace(org, old, new)


def renamed(settings: ScopeSettings) -> ScopeSettings:
    return replace(settings, name="taken over")


def test_a_key_that_is_raised_meanwhile_is_out_of_hand(bench: Bench) -> None:
    """Whoever may change a member's key does not change the auditor's that it has become."""
    scopes = Overtaken(bench, {"role": "auditor"})
    with pytest.raises(PermissionDenied):
        bench.run(ReachedScopes(scopes, LEAD).change(NOTEBOOK, renamed))
    settings, _ = bench.run(bench.scopes.get(ORG, NOTEBOOK))
    assert ("", "auditor") == (settings.name, settings.role)


def test_two_changes_at_once_are_both_made(bench: Bench) -> None:
    """The second begins anew with what the first has left."""
    bench.run(ReachedScopes(Overtaken(bench, {"blocked": True}), LEAD).change(NOTEBOOK, renamed))
    settings, _ = bench.run(bench.scopes.get(ORG, NOTEBOOK))
    assert ("taken over", True) == (settings.name, settings.blocked)


def test_who_is_overtaken_without_end_hears_so(bench: Bench) -> None:
    """And has changed nothing."""
    others = [{"name": f"number {number}"} for number in range(5)]
    with pytest.raises(PreconditionFailed):
        bench.run(ReachedScopes(Overtaken(bench, *others), LEAD).change(NOTEBOOK, renamed))
    settings, _ = bench.run(bench.scopes.get(ORG, NOTEBOOK))
    assert "number 4" == settings.name
