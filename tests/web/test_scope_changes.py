"""Changes of scopes that others change at the same time."""

import asyncio
from datetime import UTC
from typing import cast

import pytest

from gateway.billing.budget import Calendar
from gateway.billing.errors import PreconditionFailed
from gateway.billing.principal import Scope
from gateway.billing.scope import ScopeSettings
from gateway.store.packed import ScopeState
from gateway.store.scopes import Scopes, Stored
from gateway.web.auth import Caller
from gateway.web.scope_changes import ScopeChanges

ADMINISTRATOR = Caller("admin", "admin", "default")
TEAM = Scope("team", "busy")


class Overtaken:
    """A store in which somebody else is always faster."""

    async def read(self, _org: str, scope: Scope) -> Stored:
        return Stored(ScopeSettings(scope.kind, scope.id), cast(ScopeState, None), b"{}")

    async def replace(self, _org: str, _old: Stored, _new: ScopeSettings) -> bool:
        return False


@pytest.fixture
def changes() -> ScopeChanges:
    return ScopeChanges(cast(Scopes, Overtaken()), Calendar(UTC))


def test_a_change_that_is_always_overtaken_may_be_tried_again(changes: ScopeChanges) -> None:
    """Nothing was written, so an SDK may repeat it: the one refusal of a change that is nobody's mistake."""
    with pytest.raises(PreconditionFailed, match="Try again") as overtaken:
        asyncio.run(changes.block(TEAM, ADMINISTRATOR, blocked=True))
    assert (412, True) == (overtaken.value.status, overtaken.value.should_retry)


def test_a_change_is_made_to_what_it_was_decided_by(changes: ScopeChanges) -> None:
    """A list of budgets that was put together before somebody else's change would take that one back."""
    seen_before = ScopeSettings("team", "busy", name="before")
    with pytest.raises(PreconditionFailed, match="meanwhile"):
        asyncio.run(changes.change(TEAM, {"budgets": []}, ADMINISTRATOR, seen_before))
