"""Entries as they are read: what scripts of any version wrote, and nothing else."""

import json

import pytest

from gateway.store.records import UnreadableEntry, entry_of

FACTS: dict[str, object] = {
    "request_id": "r",
    "org": "acme",
    "team": "red",
    "user": None,
    "key": "robot",
    "kind": "chat",
    "model": "gpt-4o",
    "price_version": "v1",
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "units": 0,
    "usage_source": "upstream",
    "flags": ["estimated", "unanswered"],
}


def fields_of(**changes: object) -> dict[bytes, bytes]:
    numbers = {b"type": b"capture", b"hold": b"h", b"cost": b"30", b"at": b"2", b"admitted": b"1", b"from_credit": b"0"}
    return numbers | {b"entry": json.dumps(FACTS | changes).encode()}


def test_an_entry_without_what_came_later_is_read() -> None:
    """Cached tokens, windows, notes: older entries, and those of calls, have none."""
    entry = entry_of("1-0", fields_of())
    assert (0, (), "", "", "") == (entry.cached_tokens, entry.windows_ms, entry.note, entry.author, entry.counterpart)
    assert (None, ("estimated", "unanswered"), 30) == (entry.user, entry.flags, entry.cost_nano_usd)


def test_an_entry_with_what_will_come_later_is_read() -> None:
    """A gateway of the next version may already run beside this one."""
    assert "gpt-4o" == entry_of("1-0", fields_of(tomorrow={"of": "no interest"})).model


def test_half_a_character_in_a_note_stops_no_books() -> None:
    """Python writes it as JSON, though it is none by the letter: what was once written must be read."""
    assert "caf\udce9" == entry_of("1-0", fields_of(note="caf\udce9")).note


@pytest.mark.parametrize(
    "changes",
    [
        {"team": 7},
        {"prompt_tokens": "10"},
        {"prompt_tokens": 1.5},
        {"flags": "estimated"},
        {"user": ["an"]},
        {"key": None},
    ],
)
def test_a_fact_of_another_form_is_refused(changes: dict[str, object]) -> None:
    """It is named where it is read, before it becomes part of a sum."""
    with pytest.raises(UnreadableEntry, match="entry 1-0 of the ledger cannot be read"):
        entry_of("1-0", fields_of(**changes))
