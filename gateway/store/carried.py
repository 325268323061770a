"""What trimmed entries added up to: a checkpoint entry carries it, and whoever checks the books begins there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from redis.asyncio import Redis

from gateway.billing.audit import MOVING, Account
from gateway.billing.principal import Scope, ScopeKind
from gateway.store.keys import Keys
from gateway.store.records import Fields
from gateway.store.scripts import TranslatedFaults

CHECKPOINT = "checkpoint"
"""Flag of the adjustment, of no amount, that carries what was trimmed."""


@dataclass(slots=True)
class Carried:
    """What was trimmed: the id of the entry that carries it, its sums, and the id of the last entry in them."""

    entry_id: str = ""
    accounts: dict[Scope, Account] = field(default_factory=dict)
    through: str | None = None


async def what_is_carried(redis: Redis, keys: Keys) -> Carried:
    """Of the newest checkpoint; empty where nothing was trimmed yet. Raises LedgerUnavailable."""
    pointer = b""
    while True:
        with TranslatedFaults():
            pipeline = redis.pipeline(transaction=True)
            pipeline.get(keys.trimmed)
            if pointer:
                pipeline.xrange(keys.ledger, pointer, pointer)
            now, *rows = await pipeline.execute()
        # The entry and the pointer to it, as of one instant: a trim in between would leave an id without its sums.
        if (now or b"") == pointer:
            break
        pointer = now or b""
    if not pointer or not rows[0]:
        return Carried(pointer.decode())
    accounts, through = read_carried(cast(Fields, rows[0][0][1]))
    return Carried(pointer.decode(), accounts, through)


async def trimmed_through(redis: Redis, keys: Keys) -> int:
    """The instant (ms) up to which entries may be missing, because they were trimmed; 0 where none were.

    Raises LedgerUnavailable.
    """
    through = (await what_is_carried(redis, keys)).through
    return int(through.partition("-")[0]) if through else 0


def read_carried(fields: Fields) -> tuple[dict[Scope, Account], str]:
    carried = json.loads(fields[b"carries"])
    accounts = {_scope(name): _account(numbers) for name, numbers in carried["accounts"].items()}
    return accounts, carried["through"]


def carried_json(accounts: Mapping[Scope, Account], through: str) -> str:
    """What `read_carried` reads."""
    rows = {f"{scope.kind}:{scope.id}": _numbers(account) for scope, account in accounts.items()}
    return json.dumps({"through": through, "accounts": rows}, separators=(",", ":"))


def _scope(name: str) -> Scope:
    kind, _, scope_id = name.partition(":")
    return Scope(cast(ScopeKind, kind), scope_id)


def _numbers(account: Account) -> list[int]:
    windows = [number for window in MOVING for number in account.windows[window]]
    return [account.spent, account.paid_in, account.credit_spent, *windows]


def _account(numbers: list[int]) -> Account:
    spent, paid_in, credit_spent, *windows = numbers
    pairs = list(zip(windows[::2], windows[1::2], strict=True))
    return Account(spent, paid_in, credit_spent, dict(zip(MOVING, pairs, strict=True)))
