"""Streams cut into events: every byte comes out, and where a chunk ends decides nothing."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.event_cutter import EventCutter, Piece
from tests.wire.recordings import RECORDINGS, Recording

every_recording = pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)


def cut(*chunks: bytes, event_bytes_max: int = 1000) -> list[Piece]:
    cutter = EventCutter(event_bytes_max)
    pieces = [piece for chunk in chunks for piece in cutter.feed(chunk)]
    rest = cutter.rest()
    return [*pieces, rest] if rest.data else pieces


def events(pieces: list[Piece]) -> list[bytes]:
    """The events, each with the LF that may have come late."""
    together: list[bytes] = []
    for piece in pieces:
        if piece.is_event:
            together.append(piece.data)
        else:
            together[-1] += piece.data
    return together


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_comes_out_with_its_blank_line(end: bytes) -> None:
    """However its lines end."""
    first, second = b"data: a" + end + end, b": x" + end + b"data: b" + end + end
    assert [Piece(first, is_event=True), Piece(second, is_event=True)] == cut(first + second)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_comes_out_the_moment_it_is_whole(end: bytes) -> None:
    """With the first byte that ends its blank line: the LF of a CRLF tells nothing more."""
    cutter = EventCutter()
    assert [] == cutter.feed(b"data: a" + end)
    assert [Piece(b"data: a" + end + end[:1], is_event=True)] == cutter.feed(end[:1])
    assert [Piece(byte, is_event=False) for byte in [end[1:]] if byte] == cutter.feed(end[1:])


@every_recording
def test_every_split_in_two_gives_the_same_events(recording: Recording) -> None:
    """TCP may cut anywhere."""
    expected = events(cut(recording.body))
    assert recording.body == b"".join(expected)
    for at in range(len(recording.body) + 1):
        assert expected == events(cut(recording.body[:at], recording.body[at:])), at


@every_recording
def test_byte_by_byte_gives_the_same_events(recording: Recording) -> None:
    """And so does each byte alone."""
    assert events(cut(recording.body)) == events(cut(*(bytes([byte]) for byte in recording.body)))


@given(st.lists(st.sampled_from([b"\n", b"\r", b"a", b"data: x"])), st.lists(st.integers(0, 400)), st.integers(1, 20))
def test_nothing_is_lost_and_little_is_kept(parts: list[bytes], cuts: list[int], event_bytes_max: int) -> None:
    """Whatever comes, in whatever chunks, under whatever bound."""
    body = b"".join(parts)
    borders = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    chunks = [body[start:end] for start, end in pairwise(borders)]
    assert body == b"".join(piece.data for piece in cut(*chunks, event_bytes_max=event_bytes_max))
    cutter = EventCutter(event_bytes_max)
    fed = shown = 0
    for chunk in chunks:
        fed, shown = fed + len(chunk), shown + sum(len(piece.data) for piece in cutter.feed(chunk))
        assert fed - shown <= event_bytes_max


@pytest.mark.parametrize("size", [9, 10, 11, 30])
def test_an_event_above_the_bound_passes_in_parts(size: int) -> None:
    """It is no event for anybody who would decide about it, and the next one is again, at every split."""
    long = b"x" * (size - 2) + b"\n\n"
    body = long + b"data: a\n\n"
    for at in range(len(body) + 1):
        pieces = cut(body[:at], body[at:], event_bytes_max=10)
        assert Piece(b"data: a\n\n", is_event=True) == pieces[-1], at
        assert [size <= 10] * (len(pieces) - 1) == [piece.is_event for piece in pieces[:-1]], at
