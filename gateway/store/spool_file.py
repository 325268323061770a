"""What a file of the spool holds: how postings are written down, and what can be read again of a file that suffered.

A record is its length and CRC (two little-endian 32-bit numbers), then JSON. Reading keeps apart what may befall one:
- A torn tail: the file ends in the middle of its last record. A crash does that; nobody was told that it was kept.
- Damage: a record that is not what was written, anywhere else. Those behind it are found by their own checksums.
- A record that is whole and not understood: a gateway of another version wrote it.
The last two were promised to someone, so a file that has them is never removed.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gateway.billing.ledger import RESOLUTIONS, Posting
from gateway.billing.money import NANO_USD_MAX
from gateway.billing.usage import Usage
from gateway.store.admission import HoldRequest
from gateway.store.jobs import Job
from gateway.store.records import hold_facts, hold_of

_HEAD = struct.Struct("<II")
_BEGIN = b'{"hold":{'

PROBE = b" " * 1024
"""The payload of a record that says nothing and takes the room of one that does."""


@dataclass(frozen=True, slots=True)
class Owed:
    """One posting to be made; `jobs`, due at `first_poll_ms`, are the image jobs it pays for.

    `answer` is to be kept for who asks again under the call's Idempotency-Key. It is never written to the disk.
    """

    hold: HoldRequest
    posting: Posting
    jobs: tuple[Job, ...] = ()
    first_poll_ms: int = 0
    answer: bytes = b""


@dataclass(frozen=True, slots=True)
class SpoolContent:
    """What could be read of a file; the rest as places of damage, records not understood, and bytes of a torn tail."""

    owed: tuple[Owed, ...]
    damaged: int = 0
    unreadable: int = 0
    torn_bytes: int = 0

    @property
    def fault(self) -> Literal["", "damaged", "unreadable"]:
        """Why the file must be kept although all that could be read of it is posted; empty where it need not."""
        if self.damaged:
            return "damaged"
        return "unreadable" if self.unreadable else ""


def read_spool(content: bytes) -> SpoolContent:
    """All that can be read of a file, whatever happened to it."""
    owed: list[Owed] = []
    damaged, unreadable, at = 0, 0, 0
    while at < len(content):
        payload = _payload_at(content, at)
        if payload is None:
            following = _next_whole(content, at + 1)
            if following is None and _is_torn(content, at):
                return SpoolContent(tuple(owed), damaged, unreadable, torn_bytes=len(content) - at)
            damaged += 1
            at = len(content) if following is None else following
            continue
        at += _HEAD.size + len(payload)
        if payload.strip():
            read = _owed(payload)
            unreadable += read is None
            owed += [] if read is None else [read]
    return SpoolContent(tuple(owed), damaged, unreadable)


def record_of(owed: Owed) -> bytes:
    """One posting as it is written down."""
    facts: dict[str, object] = {
        "hold": hold_facts(owed.hold),
        "type": owed.posting.type,
        "cost": owed.posting.cost_nano_usd,
        "usage": [
            owed.posting.usage.prompt_tokens,
            owed.posting.usage.completion_tokens,
            owed.posting.usage.cached_tokens,
            owed.posting.usage.units,
        ],
        "usage_source": owed.posting.usage_source,
        "flags": owed.posting.flags,
    }
    if owed.jobs:
        facts["jobs"] = [
            [job.jobid, job.signature, job.submitted_at_ms, job.share_nano_usd, job.number] for job in owed.jobs
        ]
        facts["first_poll_ms"] = owed.first_poll_ms
    return framed(json.dumps(facts, separators=(",", ":")).encode())


def framed(payload: bytes) -> bytes:
    """Length and checksum before it."""
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def _payload_at(content: bytes, at: int) -> bytes | None:
    """The payload of the record that begins there; None where none does that is whole."""
    if at < 0 or at + _HEAD.size > len(content):
        return None
    length, crc = _HEAD.unpack_from(content, at)
    payload = content[at + _HEAD.size : at + _HEAD.size + length]
    return payload if len(payload) == length and zlib.crc32(payload) == crc else None


def _next_whole(content: bytes, start: int) -> int | None:
    """Where the next whole posting begins, by its own checksum: a length that is damaged leads nowhere."""
    begin = content.find(_BEGIN, start + _HEAD.size)
    while begin >= 0:
        if _payload_at(content, begin - _HEAD.size) is not None:
            return begin - _HEAD.size
        begin = content.find(_BEGIN, begin + 1)
    return None


def _is_torn(content: bytes, at: int) -> bool:
    """Whether what is left is the beginning of a record: less than its length says, and no JSON that has an end."""
    rest = content[at + _HEAD.size :]
    if len(content) - at < _HEAD.size:
        return True
    length, _ = _HEAD.unpack_from(content, at)
    return len(rest) < length and not _is_json(rest)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _owed(payload: bytes) -> Owed | None:
    """The posting, if this version understands it. Another may write JSON of any shape: hence all that is caught."""
    try:
        facts = json.loads(payload)
        hold = hold_of(facts["hold"])
        usage = Usage(*facts["usage"])
        posting = Posting(facts["type"], facts["cost"], usage, facts["usage_source"], tuple(facts["flags"]))
        owed = Owed(hold, posting, _jobs(facts, hold), facts.get("first_poll_ms", 0))
        if "job" in facts:  # as gateways wrote it while a hold paid for one job at most
            jobid, signature, submitted_at_ms, first_poll_ms = facts["job"]
            owed = Owed(hold, posting, (Job(jobid, signature, hold, submitted_at_ms),), first_poll_ms)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return owed if _can_be_posted(owed) else None


def _jobs(facts: Mapping[str, Any], hold: HoldRequest) -> tuple[Job, ...]:
    return tuple(
        Job(jobid, signature, hold, submitted_at_ms, share_nano_usd=share_nano_usd, number=number)
        for jobid, signature, submitted_at_ms, share_nano_usd, number in facts.get("jobs", ())
    )


def _can_be_posted(owed: Owed) -> bool:
    """Whether the ledger's script would take it: what it refuses would be tried for ever."""
    hold, posting = owed.hold, owed.posting
    who, usage = hold.principal, posting.usage
    texts = [hold.hold_id, hold.request_id, who.org, who.team, who.key, hold.kind, hold.model, hold.price_version]
    texts += [posting.usage_source, *posting.flags, *hold.tags]
    texts += [text for job in owed.jobs for text in (job.jobid, job.signature)]
    texts += [] if who.user is None else [who.user]
    numbers = [hold.amount_nano_usd, posting.cost_nano_usd, owed.first_poll_ms]
    numbers += [usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.units]
    numbers += [number for job in owed.jobs for number in (job.submitted_at_ms, job.share_nano_usd or 0, job.number)]
    return (
        posting.type in RESOLUTIONS
        and all(isinstance(text, str) for text in texts)
        and all(type(number) is int and 0 <= number <= NANO_USD_MAX for number in numbers)
    )
