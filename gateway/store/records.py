"""How entries and holds are written in Redis: JSON of who and what, beside the numbers that the scripts write."""

import json
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from gateway.billing.budget import BUDGET_WINDOWS, Crossing
from gateway.billing.ledger import Entry, EntryType, OpenHold, Posting, Progress
from gateway.billing.principal import Principal, ScopeKind
from gateway.billing.scope import ScopeSettings
from gateway.billing.usage import Usage
from gateway.store.admission import Claim, HoldRequest
from gateway.store.packed import unpack_hold

Fields = dict[bytes, bytes]
"""One entry of the ledger stream."""


def about_json(request: HoldRequest) -> bytes:
    """What a hold says of its call."""
    return msgspec.json.encode(_about(request))


def entry_json(request: HoldRequest, posting: Posting) -> bytes:
    facts = _about(request) | {
        "prompt_tokens": posting.usage.prompt_tokens,
        "completion_tokens": posting.usage.completion_tokens,
        "cached_tokens": posting.usage.cached_tokens,
        "units": posting.usage.units,
        "usage_source": posting.usage_source,
        "flags": posting.flags,
    }
    return msgspec.json.encode(facts)


class UnreadableEntry(ValueError):
    """An entry that no script of this gateway wrote; the text names it."""


class Facts(msgspec.Struct, frozen=True, gc=False):
    """What an entry's JSON says, beside the numbers that the script wrote; the names are those of `Entry`."""

    request_id: str
    org: str
    team: str
    user: str | None
    key: str
    kind: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    units: int
    usage_source: str
    price_version: str
    flags: tuple[str, ...]
    note: str = ""
    author: str = ""
    counterpart: str = ""
    cached_tokens: int = 0
    tags: tuple[str, ...] = ()


_decode_facts = msgspec.json.Decoder(Facts).decode


def facts_of(text: bytes) -> Facts:
    """Read the JSON of an entry. Raises ValueError: it is of another form."""
    try:
        return _decode_facts(text)
    except ValueError:
        # Half a surrogate pair in a note is text to Python, which wrote it, and none to msgspec.
        return msgspec.convert(json.loads(text), Facts)


def entry_of(entry_id: str, fields: Fields) -> Entry:
    """Raises UnreadableEntry: something is missing in it, or is of another form."""
    try:
        return _entry_of(entry_id, fields)
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableEntry(f"entry {entry_id} of the ledger cannot be read ({type(error).__name__})") from error


def _entry_of(entry_id: str, fields: Fields) -> Entry:
    facts = facts_of(fields[b"entry"])
    return Entry(
        id=entry_id,
        at_ms=int(fields[b"at"]),
        admitted_at_ms=int(fields[b"admitted"]),
        type=cast(EntryType, fields[b"type"].decode()),
        hold_id=fields[b"hold"].decode(),
        cost_nano_usd=int(fields[b"cost"]),
        request_id=facts.request_id,
        org=facts.org,
        team=facts.team,
        user=facts.user,
        key=facts.key,
        kind=facts.kind,
        model=facts.model,
        prompt_tokens=facts.prompt_tokens,
        completion_tokens=facts.completion_tokens,
        units=facts.units,
        usage_source=facts.usage_source,
        price_version=facts.price_version,
        flags=facts.flags,
        credit_nano_usd=int(fields.get(b"credit", 0)),
        note=facts.note,
        author=facts.author,
        counterpart=facts.counterpart,
        paid_by=_paid_by(facts.user, int(fields[b"from_credit"])),
        cached_tokens=facts.cached_tokens,
        tags=facts.tags,
        windows_ms=tuple(map(int, fields.get(b"windows", b"").split())),
        replaces=_replaced(fields[b"replaces"]) if b"replaces" in fields else None,
    )


def _replaced(text: bytes) -> Progress:
    cost, prompt_tokens, completion_tokens, units = map(int, text.split())
    return Progress(cost, Usage(prompt_tokens, completion_tokens, units=units))


def _paid_by(user: str | None, from_credit: int) -> tuple[ScopeKind, ...]:
    if not from_credit:
        return ()
    kinds: tuple[ScopeKind, ...] = ("organisation", "team", "user", "key")
    levels = [kind for kind in kinds if kind != "user" or user is not None]
    return tuple(kind for number, kind in enumerate(levels) if from_credit >> number & 1)


def crossings_of(rows: list[list[int]], principal: Principal) -> tuple[Crossing, ...]:
    scopes = principal.scopes()
    return tuple(
        Crossing(scopes[scope - 1], BUDGET_WINDOWS[window - 1], percent, limit, spent)
        for scope, window, percent, limit, spent in rows
    )


def open_hold_of(hold_id: str, packed: bytes) -> OpenHold:
    record = unpack_hold(packed)
    about = json.loads(record.about)
    return OpenHold(
        id=hold_id,
        request_id=about["request_id"],
        org=about["org"],
        team=about["team"],
        user=about["user"],
        key=about["key"],
        hold_nano_usd=record.amount_nano_usd,
        admitted_at_ms=record.admitted_at_ms,
        deadline_ms=record.deadline_ms,
        paid_by=_paid_by(about["user"], record.from_credit),
        kind=about["kind"],
        model=about["model"],
        price_version=about["price_version"],
        so_far=record.so_far,
        windows_ms=record.windows_ms,
        tokens=record.tokens,
        tags=tuple(about.get("tags", ())),
    )


def entry_by_hand(
    org: str,
    scope: ScopeSettings,
    *,
    note: str,
    author: str,
    counterpart: str = "",
    flags: tuple[str, ...] = (),
    request_id: str = "",
) -> str:
    """The JSON of an entry that belongs to a scope; `request_id` where it is about a call, which it charges nothing."""
    ids = {"team": scope.team, "user": scope.user, "key": ""} | {scope.kind: scope.id}
    facts: dict[str, object] = {
        "request_id": request_id,
        "org": org,
        "team": ids["team"] or "",
        "user": ids["user"],
        "key": ids["key"],
        "kind": "",
        "model": "",
        "price_version": "",
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "units": 0,
        "usage_source": "",
        "flags": flags,
        "note": note,
        "author": author,
        "counterpart": counterpart,
    }
    return json.dumps(facts, separators=(",", ":"))


def hold_facts(request: HoldRequest) -> dict[str, object]:
    """A hold as JSON, for who must end it or refund it later."""
    claim = request.claim
    return {
        "hold": request.hold_id,
        "amount_nano_usd": request.amount_nano_usd,
        **_about(request),
        **({"claim": [claim.name, claim.request]} if claim else {}),
    }


def hold_of(facts: Mapping[str, Any]) -> HoldRequest:
    """The hold that `hold_facts` has put down."""
    return HoldRequest(
        hold_id=facts["hold"],
        request_id=facts["request_id"],
        principal=Principal(facts["org"], facts["team"], facts["user"], facts["key"]),
        kind=facts["kind"],
        model=facts["model"],
        amount_nano_usd=facts["amount_nano_usd"],
        price_version=facts["price_version"],
        claim=Claim(*facts["claim"]) if "claim" in facts else None,
        tags=tuple(facts.get("tags", ())),
    )


def _about(request: HoldRequest) -> dict[str, object]:
    who = request.principal
    about: dict[str, object] = {
        "request_id": request.request_id,
        "org": who.org,
        "team": who.team,
        "user": who.user,
        "key": who.key,
        "kind": request.kind,
        "model": request.model,
        "price_version": request.price_version,
    }
    return about | {"tags": request.tags} if request.tags else about
