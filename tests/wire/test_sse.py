"""The event parser: whole, byte by byte, at every split, truncated, and too large."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.sse import EventParser

STREAMS: list[tuple[bytes, list[bytes]]] = [
    (b"", []),
    (b"data: one\n\n", [b"one"]),
    (b"data: one\r\n\r\ndata: two\r\n\r\n", [b"one", b"two"]),
    (b"data: one\r\rdata: two\r\r", [b"one", b"two"]),
    (b"data: one\r\n\ndata: two\n\r\ndata: three\n\r", [b"one", b"two", b"three"]),
    (b"data: first\ndata: second\ndata\ndata:\n\n", [b"first\nsecond\n\n"]),
    (b"data:tight\n\ndata:  two blanks\n\n", [b"tight", b" two blanks"]),
    (b"data:\n\ndata\n\n", [b"", b""]),
    (b": comment\nevent: message\nid: 7\nretry: 10\ndatabase: no\n data: no\n\n", []),
    (b": comment\ndata: one\n: comment\n\n", [b"one"]),
    (b"\n\n\r\n\r\rdata: one\n\n\n\n", [b"one"]),
    (b"\xef\xbb\xbfdata: one\n\n", [b"one"]),
    (b"data: one\n\n\xef\xbb\xbfdata: no field\n\n", [b"one"]),
    ("data: a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\n\n".encode(), ["a\u2028b\u2029c\x85d\x0be\x0cf\x1cg".encode()]),
    ("data: שלום 世界 😀\r\n\r\n".encode(), ["שלום 世界 😀".encode()]),
    (b"data: one\n\ndata: unfinished\n", [b"one"]),
    (b"data: one\n\ndata: unfini", [b"one"]),
]
every_stream = pytest.mark.parametrize(("body", "events"), STREAMS)


def parsed(*chunks: bytes) -> list[bytes]:
    parser = EventParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


@every_stream
def test_events_are_the_same_whole_in_bytes_and_at_every_split(body: bytes, events: list[bytes]) -> None:
    """A network cuts where it likes."""
    assert events == parsed(body)
    assert events == parsed(*(body[at : at + 1] for at in range(len(body))))
    for at in range(len(body) + 1):
        assert events == parsed(body[:at], body[at:]), at
        assert events == parsed(body[:at], b"", body[at:]), at


@given(st.lists(st.sampled_from([b"\r", b"\n", b"data", b":", b" ", b"x", b"\xef\xbb\xbf"])), st.data())
def test_any_bytes_give_the_same_events_at_any_split(pieces: list[bytes], data: st.DataObject) -> None:
    """The alphabet is the one that the parser's branches look at."""
    body = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)))))
    chunks = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert parsed(body) == parsed(*chunks)


def test_an_event_comes_with_the_line_end_that_finishes_it() -> None:
    """After a CR nothing is waited for: the LF that may follow belongs to it."""
    parser = EventParser()
    assert [] == parser.feed(b"data: one\r")
    assert [b"one"] == parser.feed(b"\r")
    assert [] == parser.feed(b"\ndata: two\r\n")
    assert [b"two"] == parser.feed(b"\r")


@pytest.mark.parametrize(
    ("body", "unfinished"),
    [
        (b"", None),
        (b"data: one\n\n", None),
        (b": comment", None),
        (b"data: one", b"one"),
        (b"data: one\n", b"one"),
        (b"data: one\ndata: tw", b"one\ntw"),
        (b"data: one\n: comment", b"one"),
        (b"\xef\xbb\xbfdata: one", b"one"),
    ],
)
def test_the_last_event_can_be_seen_without_its_end(body: bytes, unfinished: bytes | None) -> None:
    """Asking must not take it: the stream may go on."""
    parser = EventParser()
    parser.feed(body)
    assert unfinished == parser.unfinished()
    assert unfinished == parser.unfinished()


@pytest.mark.parametrize(
    "large",
    [b"data: " + b"x" * 200, b"data: x\n" * 60, b": " + b"x" * 200, b"data: y\ndata: " + b"x" * 200],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_large_event_is_skipped_to_its_end(large: bytes, size: int) -> None:
    """What follows it is read; what it held is not kept; that it was there is not forgotten."""
    parser = EventParser(event_bytes_max=100)
    body = large.rstrip(b"\n") + b"\ndata: rest of it\n\ndata: next\n\n"
    events = []
    for at in range(0, len(body), size):
        events += parser.feed(body[at : at + size])
        assert parser.kept_bytes() <= 2 * 100
    assert [b"next"] == events
    assert parser.skipped


@pytest.mark.parametrize(("line", "skipped"), [(b"data: 0123", False), (b"data: 01234", True), (b":0123456789", True)])
def test_the_bound_is_the_same_at_every_split(line: bytes, skipped: bool) -> None:
    """Whether a line came in one chunk must not decide whether it is kept."""
    body = line + b"\ndata: x\n\n"
    for at in range(len(body) + 1):
        parser = EventParser(event_bytes_max=10)
        events = parser.feed(body[:at]) + parser.feed(body[at:])
        assert skipped == parser.skipped, at
        assert ([] if skipped else [b"0123\nx"]) == events, at
