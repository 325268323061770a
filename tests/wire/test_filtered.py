"""Streams shown without their usage, with their cost, or both: whole, in pieces, and when they end early."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.filtered import Filtered
from gateway.wire.presentation import WITH_COST, Presentation
from tests.wire.recordings import DONE, PLAIN, RECORDINGS, SPOKEN, Recording, content, stream, usage

SECRET = b"sk-upstream"
COST_NANO_USD = 4_350
COMMENT = b": cost_usd=0.00000435\n\n"
NO_USAGE = Presentation(with_usage=False)
WITH_USAGE = Presentation()
NO_USAGE_WITH_COST = Presentation(with_usage=False, with_cost=True, cost_in_usage=True)
USAGE_WITH_COST = Presentation(with_cost=True, cost_in_usage=True)
ROLES = Presentation(with_usage=False, choices=2)
PRESENTATIONS = [NO_USAGE, WITH_USAGE, WITH_COST, NO_USAGE_WITH_COST, USAGE_WITH_COST, ROLES]

every_recording = pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
every_presentation = pytest.mark.parametrize(
    "presentation", PRESENTATIONS, ids=lambda asked: f"{asked.words or 'as sent'}, {asked.choices} choices"
)


def shown(presentation: Presentation, *chunks: bytes, whole: bool = True) -> bytes:
    view = Filtered(presentation, SECRET)
    return b"".join([view.feed(chunk) for chunk in chunks] + [view.end(COST_NANO_USD, whole=whole)])


def usage_with_cost() -> str:
    chunk = json.loads(usage())
    chunk["usage"] |= {"cost_usd": "0.00000435", "cost_nano_usd": COST_NANO_USD}
    return json.dumps(chunk, separators=(",", ":"))


@pytest.mark.parametrize(
    ("presentation", "expected"),
    [
        (NO_USAGE, stream(*SPOKEN, DONE)),
        (WITH_USAGE, PLAIN),
        (WITH_COST, stream(*SPOKEN, usage()) + COMMENT + stream(DONE)),
        (NO_USAGE_WITH_COST, stream(*SPOKEN) + COMMENT + stream(DONE)),
        (USAGE_WITH_COST, stream(*SPOKEN, usage_with_cost()) + COMMENT + stream(DONE)),
    ],
)
def test_a_plain_answer_is_shown_as_it_was_asked_for(presentation: Presentation, expected: bytes) -> None:
    """The table is the specification."""
    assert expected == shown(presentation, PLAIN)


@every_recording
def test_without_anything_to_add_or_leave_out_every_byte_passes(recording: Recording) -> None:
    """Also what is no stream at all, and what is malformed."""
    assert recording.body == shown(WITH_USAGE, recording.body)
    added = shown(WITH_COST, recording.body)
    assert 1 == added.count(COMMENT)
    assert added.replace(COMMENT, b"") in (recording.body, recording.body + b"\n\n")


@every_recording
@every_presentation
def test_every_split_in_two_shows_the_same(presentation: Presentation, recording: Recording) -> None:
    """TCP may cut anywhere: in a line end, a character, a key."""
    expected = shown(presentation, recording.body)
    for at in range(len(recording.body) + 1):
        assert expected == shown(presentation, recording.body[:at], recording.body[at:]), at


@every_recording
@every_presentation
def test_byte_by_byte_shows_the_same(presentation: Presentation, recording: Recording) -> None:
    """The short way, for chunks of whole events, may spare work and decide nothing."""
    assert shown(presentation, recording.body) == shown(presentation, *(bytes([byte]) for byte in recording.body))


@given(st.sampled_from(PRESENTATIONS), st.sampled_from(RECORDINGS), st.lists(st.integers(0, 2000)))
def test_any_split_shows_the_same(presentation: Presentation, recording: Recording, cuts: list[int]) -> None:
    """The network's chunks are never visible."""
    borders = sorted({0, len(recording.body), *(cut % (len(recording.body) + 1) for cut in cuts)})
    chunks = [recording.body[start:end] for start, end in pairwise(borders)]
    assert shown(presentation, recording.body) == shown(presentation, *chunks)


@given(st.sampled_from(PRESENTATIONS), st.lists(st.binary(max_size=50)), st.booleans())
def test_no_bytes_raise(presentation: Presentation, chunks: list[bytes], whole: bool) -> None:
    """The upstream may send anything; who asked for less than the cost gets every event of it."""
    body = shown(presentation, *chunks, whole=whole)
    if whole and presentation == WITH_USAGE:
        assert b"".join(chunks) == body


@pytest.mark.parametrize("presentation", [NO_USAGE, WITH_USAGE, NO_USAGE_WITH_COST])
def test_an_event_passes_the_moment_it_is_whole(presentation: Presentation) -> None:
    """Only the usage and [DONE] may wait, and those only for the cost."""
    view = Filtered(presentation, SECRET)
    for event in SPOKEN:
        data = stream(event)
        assert b"" == view.feed(data[:-1])
        assert data == view.feed(data[-1:])
        assert data == view.feed(data)


def test_nothing_but_the_end_waits_for_the_cost() -> None:
    """What comes behind it lets it go: it was not the end."""
    view = Filtered(USAGE_WITH_COST, SECRET)
    assert b"" == view.feed(stream(usage()))
    assert b"" == view.feed(b": ping\n\n")
    assert stream(usage()) + b": ping\n\n" + stream(content("Ok")) == view.feed(stream(content("Ok")))
    assert b"" == view.feed(stream(DONE))
    assert COMMENT + stream(DONE) == view.end(COST_NANO_USD, whole=True)


def test_what_waits_is_bounded() -> None:
    """Comments without end behind [DONE] take no memory without end."""
    view = Filtered(WITH_COST, SECRET, event_bytes_max=100)
    assert b"" == view.feed(stream(DONE))
    assert stream(DONE) + b": ping\n\n" * 11 == b"".join(view.feed(b": ping\n\n") for _ in range(11))
    assert COMMENT == view.end(COST_NANO_USD, whole=True)


@every_presentation
def test_of_an_event_that_breaks_off_nothing_is_shown(presentation: Presentation) -> None:
    """A reader would take half an event for a broken one, and not read the error behind it."""
    cut = shown(presentation, stream(*SPOKEN) + stream(content("cut"))[:-3], whole=False)
    assert stream(*SPOKEN) == cut.removesuffix(COMMENT).replace(b'"role":"assistant",', b"")
    assert presentation.with_cost == cut.endswith(COMMENT)


def test_an_end_without_its_blank_line_is_an_end() -> None:
    """The comment before [DONE] all the same, and apart from a line that has no end."""
    assert stream(*SPOKEN) + COMMENT + b"data: [DONE]" == shown(WITH_COST, stream(*SPOKEN, DONE).rstrip(b"\n"))
    assert stream(*SPOKEN).rstrip(b"\n") + b"\n\n" + COMMENT == shown(WITH_COST, stream(*SPOKEN).rstrip(b"\n"))
    assert stream(*SPOKEN) == shown(NO_USAGE, stream(*SPOKEN, usage()).rstrip(b"\n"))


def test_an_event_above_the_bound_passes_as_it_is() -> None:
    """Even a usage that was not asked for: nothing is kept to find out."""
    long = stream(usage().replace('"usage"', '"padding":"' + "x" * 500 + '","usage"'))
    for at in range(0, len(long), 50):
        view = Filtered(NO_USAGE, SECRET, event_bytes_max=500)
        assert long == view.feed(long[:at]) + view.feed(long[at:]) + view.end(COST_NANO_USD, whole=True), at


@every_presentation
def test_the_organisations_key_is_masked_at_every_split(presentation: Presentation) -> None:
    """Wherever the upstream puts it, and wherever a chunk ends in it."""
    body = stream(content(f"Your key is {SECRET.decode()}."), usage(), DONE)
    for at in range(len(body) + 1):
        masked = shown(presentation, body[:at], body[at:])
        assert SECRET not in masked
        assert b"*" * len(SECRET) in masked


@pytest.mark.parametrize("counts", ['"prompt_tokens":-1', '"prompt_tokens":' + "9" * 400, ""])
def test_a_usage_gets_the_cost_whatever_it_claims(counts: str) -> None:
    """What the ledger says stands beside what the upstream says, and that is repeated as it came."""
    body = shown(USAGE_WITH_COST, stream(usage(counts), DONE))
    assert counts.encode() in body
    assert b'"cost_usd":"0.00000435","cost_nano_usd":4350' in body
