"""The meter of chat answers, against every recorded kind of stream, whole and in pieces."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.call import Meter, Outcome
from gateway.wire.chat import ChatMeter
from tests.wire.recordings import (
    CALL,
    DONE,
    KNOWN,
    PLAIN,
    RECORDINGS,
    SPOKEN,
    Recording,
    content,
    stream,
    usage,
)

every_recording = pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)


def metered(*chunks: bytes, **bounds: int) -> ChatMeter:
    meter = ChatMeter(CALL, **bounds)
    for chunk in chunks:
        meter.feed(chunk)
    return meter


@every_recording
def test_a_whole_answer_has_its_outcome(recording: Recording) -> None:
    """The table of recordings is the specification."""
    meter = metered(recording.body)
    assert recording.outcome == meter.outcome()
    assert recording.done == meter.done


@every_recording
def test_every_split_in_two_gives_the_same_outcome(recording: Recording) -> None:
    """TCP may cut anywhere: in a line end, a character, a key."""
    for at in range(len(recording.body) + 1):
        meter = metered(recording.body[:at], recording.body[at:])
        assert recording.outcome == meter.outcome(), at


@pytest.mark.parametrize(
    "odd",
    [
        b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1,"x":1e999}}\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1,"x":"\xff"}}\n\n',
        b'{"a":1}\n\ndata: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1}}\n\n',
        b' {"a":1}\n\ndata: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1}}\n\n',
    ],
)
def test_what_is_malformed_is_read_alike_from_its_end_and_from_its_beginning(odd: bytes) -> None:
    """The short way looks at the last event alone; it may spare work and decide nothing."""
    body = odd + b"data: [DONE]\n\n"
    asked = ChatMeter(CALL)
    for byte in body:
        asked.feed(bytes([byte]))
        asked.outcome()
    assert asked.outcome() == metered(body).outcome()
    assert asked.done == metered(body).done


@every_recording
def test_asking_between_any_two_bytes_changes_nothing(recording: Recording) -> None:
    """A lease renewal asks for the outcome while the stream runs; each byte is then read alone."""
    meter = ChatMeter(CALL)
    for byte in recording.body:
        meter.feed(bytes([byte]))
        meter.outcome()
    assert recording.outcome == meter.outcome()
    assert recording.done == meter.done


@given(st.sampled_from(RECORDINGS), st.lists(st.integers(0, 2000)), st.integers(0, 400))
def test_any_split_and_any_buffer_gives_the_same_outcome(
    recording: Recording, cuts: list[int], raw_bytes_max: int
) -> None:
    """Neither the network's chunks nor the size of the meter's own buffer is visible."""
    borders = sorted({0, len(recording.body), *(cut % (len(recording.body) + 1) for cut in cuts)})
    chunks = [recording.body[start:end] for start, end in pairwise(borders)]
    assert recording.outcome == metered(*chunks, raw_bytes_max=raw_bytes_max).outcome()


@given(st.binary(max_size=400))
def test_no_bytes_raise(body: bytes) -> None:
    """The upstream may send anything; a bill must come out of it."""
    assert metered(body).outcome().usage is None
    assert metered(PLAIN, b"\n\n", body).outcome().usage is not None


@pytest.mark.parametrize(
    "deep",
    [
        f'{{"choices":[],"usage":{"[" * 100_000}{"]" * 100_000}}}',
        f'{{"choices":[],"x":{"[" * 100_000}{"]" * 100_000},"usage":{{"prompt_tokens":1,"completion_tokens":1}}}}',
        f'{{"choices":[{{"delta":{{"content":"a","x":{"[" * 100_000}{"]" * 100_000}}}}}]}}',
    ],
)
def test_no_depth_raises(deep: str) -> None:
    """What is nested past all reading claims nothing and says nothing; the bill comes from the rest."""
    assert "Ok." == metered(stream(*SPOKEN, deep, DONE)).outcome().text
    assert KNOWN == metered(stream(deep), PLAIN).outcome()
    assert metered(deep.encode()).outcome().usage is None


@pytest.mark.parametrize("at", range(0, len(PLAIN), 7))
def test_a_truncated_answer_never_claims_more_than_it_says(at: int) -> None:
    """A cut answer is estimated from what came, until the usage has come."""
    outcome = metered(PLAIN[:at]).outcome()
    assert outcome.usage is None or KNOWN == outcome
    assert "Ok.".startswith(outcome.text)


def test_an_answer_is_not_done_at_its_first_words() -> None:
    """Who drains the upstream for the bill must not stop before the bill."""
    assert not metered(stream(*SPOKEN)).done
    assert metered(stream(*SPOKEN, usage())).done
    assert metered(stream(DONE)).done


def test_usage_beside_content_does_not_end_an_answer() -> None:
    """Some upstreams send running counts with every chunk; only the chunk without choices is the last."""
    running = content("Ok").replace('"usage":null', '"usage":{"prompt_tokens":17,"completion_tokens":1}')
    assert not metered(stream(running)).done
    meter = metered(stream(running, usage()))
    assert meter.done
    assert KNOWN == meter.outcome()


def test_text_beside_an_impossible_usage_is_kept() -> None:
    """The claim is worthless, the words were still generated."""
    odd = content("Ok").replace('"usage":null', '"usage":{"prompt_tokens":-1}')
    assert Outcome(anomaly=True, began=True, text="Ok") == metered(stream(odd)).outcome()


def test_a_long_answer_is_held_as_its_text() -> None:
    """Chunks are fifty times their text; a thousand open streams must not hold the chunks."""
    meter = ChatMeter(CALL)
    event = stream(content("word "))
    for _ in range(5000):
        meter.feed(event)
        assert meter.kept_bytes() < 3 * 64 * 1024 + 5 * 5000
    assert "word " * 5000 == meter.outcome().text


def test_text_beyond_the_bound_is_dropped_and_said_so() -> None:
    """The estimate is then the call's bound, and the memory is given back."""
    meter = metered(*[stream(content("word " * 10))] * 100, raw_bytes_max=1000, text_characters_max=500)
    assert Outcome(began=True, text="", text_complete=False) == meter.outcome()
    assert meter.kept_bytes() < 2000
    meter.feed(stream(usage()))
    assert KNOWN == meter.outcome()


def test_an_event_beyond_the_bound_is_skipped_and_said_so() -> None:
    """Nobody knows what it said, so the estimate is the call's bound; a usage after it still counts."""
    meter = metered(stream(content("x" * 5000)), stream(content("Ok")), event_bytes_max=1000)
    assert Outcome(began=True, text="Ok", text_complete=False) == meter.outcome()
    meter.feed(stream(usage()))
    assert KNOWN == meter.outcome()


def test_an_endless_line_is_not_kept() -> None:
    """An upstream that never ends its line must not fill the memory."""
    meter = metered(b"data: ")
    for _ in range(100):
        meter.feed(b"x" * 64 * 1024)
        assert meter.kept_bytes() <= 1024 * 1024 + 2 * 64 * 1024
    assert not meter.outcome().text_complete


def test_a_json_answer_beyond_the_bound_is_estimated_by_the_bound() -> None:
    """It carries choices, so it is billed, but it cannot be read."""
    meter = metered(b'{"choices":[{"message":{"content":"', b"x" * 5000, b'"}}]}', json_bytes_max=1000)
    assert Outcome(began=True, text_complete=False) == meter.outcome()
    assert meter.kept_bytes() <= 1000


def test_once_usage_is_known_no_text_is_kept() -> None:
    """Text serves the estimate alone."""
    meter = metered(stream(*SPOKEN, usage()))
    assert meter.done
    assert 0 == meter.kept_bytes()


def test_it_is_a_meter() -> None:
    """mypy checks the protocol here."""
    meter: Meter = ChatMeter(CALL)
    assert not meter.done
