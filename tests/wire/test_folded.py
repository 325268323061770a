"""Streams folded into one object: the same from every split, and none where the answer is not whole."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.folded import Folded
from gateway.wire.presentation import Presentation
from tests.wire.recordings import DONE, FINISH, HEAD, PLAIN, RECORDINGS, SPOKEN, Recording, content, stream, usage

SECRET = b"sk-upstream"
BYTES_MAX = 100_000
CUT = "The upstream ended in the middle of its answer."
UNREADABLE = "The upstream sent an event that cannot be read."
TOLD_ERROR = "The upstream reported an error in the middle of its answer."
NO_USAGE = "The upstream did not say what its answer used."
TOO_LONG = 'The answer is too long to be sent as one object; ask for it with "stream": true.'
COUNTS = {"prompt_tokens": 17, "completion_tokens": 3, "total_tokens": 20}
MISSING = {
    "a valid usage, then an odd one": CUT,
    "cached tokens": CUT,
    "more cached tokens than tokens": CUT,
    "no usage": NO_USAGE,
    "cut in an event": NO_USAGE,
    "cut before a blank line": NO_USAGE,
    "broken event": UNREADABLE,
    "several choices": CUT,
    "split characters": CUT,
    "U+2028 is text": CUT,
    "usage inside content": CUT,
    "error event only": TOLD_ERROR,
    **dict.fromkeys(("nothing", "HTML", "JSON error", "JSON completion", "JSON without usage", "JSON cut"), CUT),
}
"""What is missing of the recordings that are not whole."""

every_recording = pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)


def folded(*chunks: bytes, bytes_max: int = BYTES_MAX, with_cost: bool = False) -> dict[str, Any] | str:
    """The object, or what is missing of it."""
    view = Folded(Presentation(folded=True, with_cost=with_cost, cost_in_usage=with_cost), SECRET, bytes_max)
    assert {b""} >= {view.feed(chunk) for chunk in chunks}
    missing = view.missing()
    if missing:
        return missing
    answer: dict[str, Any] = json.loads(view.end(4_350, whole=True))
    return answer


def said(index: int = 0, finish_reason: str | None = None, logprobs: Any = None, **delta: Any) -> str:
    """A chunk with one choice."""
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
    return f'{HEAD}"choices":[{json.dumps(choice)}],"usage":null}}'


def choices_of(*events: str) -> Any:
    answer = folded(stream(*events, usage(), DONE))
    return answer["choices"] if isinstance(answer, dict) else answer


def test_a_plain_answer_is_one_object() -> None:
    """Member by member, as OpenAI documents it and as the stream said it."""
    assert {
        "id": "chatcmpl-B5qoZsT8kFDNJK3UyGLiJmjv6Pp90",
        "object": "chat.completion",
        "created": 1740734359,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Ok.", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": COUNTS,
        "service_tier": "default",
        "system_fingerprint": "fp_06737a9306",
    } == folded(PLAIN)


def test_the_cost_stands_in_the_usage() -> None:
    """Where it was asked for."""
    answer = folded(PLAIN, with_cost=True)
    assert isinstance(answer, dict)
    assert COUNTS | {"cost_usd": "0.00000435", "cost_nano_usd": 4_350} == answer["usage"]


@every_recording
def test_a_recording_is_folded_or_says_why_not(recording: Recording) -> None:
    """An object is made of what is whole alone; a second usage replaces the first, an odd one is repeated as it is."""
    answer = folded(recording.body)
    if recording.name in MISSING:
        assert MISSING[recording.name] == answer
    else:
        assert isinstance(answer, dict)
        assert "Ok." == answer["choices"][0]["message"]["content"]


@every_recording
def test_every_split_in_two_gives_the_same(recording: Recording) -> None:
    """TCP may cut anywhere: in a line end, a character, a key."""
    expected = folded(recording.body)
    for at in range(len(recording.body) + 1):
        assert expected == folded(recording.body[:at], recording.body[at:]), at


@given(st.sampled_from(RECORDINGS), st.lists(st.integers(0, 2000)))
def test_any_split_gives_the_same(recording: Recording, cuts: list[int]) -> None:
    """The network's chunks are never visible."""
    borders = sorted({0, len(recording.body), *(cut % (len(recording.body) + 1) for cut in cuts)})
    chunks = [recording.body[start:end] for start, end in pairwise(borders)]
    assert folded(recording.body) == folded(*chunks)


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"data: ", b'{"choices":[', b"\n\n"])))
def test_no_bytes_raise(chunks: list[bytes]) -> None:
    """The upstream may send anything; it is no whole answer."""
    assert isinstance(folded(*chunks), str)


@given(st.lists(st.tuples(st.integers(0, 3), st.text(max_size=5)), min_size=1))
def test_content_is_what_a_reader_of_the_stream_puts_together(pieces: list[tuple[int, str]]) -> None:
    """Choice by choice, sorted, in whatever order they are interleaved."""
    texts: dict[int, str] = {}
    for index, text in pieces:
        texts[index] = texts.get(index, "") + text
    ends = [said(index, "stop") for index in texts]
    choices = choices_of(*(said(index, content=text) for index, text in pieces), *ends)
    assert sorted(texts.items()) == [(choice["index"], choice["message"]["content"]) for choice in choices]


def test_a_refusal_alone_has_no_content() -> None:
    """Also where the stream began with an empty one, as OpenAI's do."""
    (choice,) = choices_of(
        said(role="assistant", content="", refusal=None), said(refusal="I can"), said(refusal="not."), FINISH
    )
    assert {"role": "assistant", "content": None, "refusal": "I cannot."} == choice["message"]


def test_an_empty_answer_has_an_empty_content() -> None:
    """It said nothing, which is no refusal."""
    (choice,) = choices_of(said(role="assistant"), said(finish_reason="length"))
    assert ("", None, "length") == (
        choice["message"]["content"],
        choice["message"]["refusal"],
        choice["finish_reason"],
    )


def test_log_probabilities_are_joined() -> None:
    """Token by token, each as it was sent."""
    tokens = [{"token": text, "logprob": -0.1, "bytes": [79], "top_logprobs": []} for text in ("O", "k")]
    (choice,) = choices_of(
        said(content="O", logprobs={"content": tokens[:1], "refusal": None}),
        said(content="k", logprobs={"content": tokens[1:], "refusal": None}),
        said(logprobs={"content": [], "refusal": None}),
        FINISH,
    )
    assert {"content": tokens, "refusal": None} == choice["logprobs"]


def test_the_end_may_lack_done() -> None:
    """Each choice with its reason to finish, and the usage, are the whole answer, however the stream ended."""
    assert folded(PLAIN) == folded(stream(*SPOKEN, usage()))
    assert folded(PLAIN) == folded(stream(*SPOKEN, usage()).rstrip(b"\n"))
    assert folded(PLAIN) == folded(stream(*SPOKEN, usage()) + b"data: [DO")
    assert folded(PLAIN) == folded(stream(*SPOKEN, usage()) + b'data: {"choi')


@pytest.mark.parametrize(
    ("events", "missing"),
    [
        ((*SPOKEN, DONE), NO_USAGE),
        ((*SPOKEN[:2], usage(), DONE), CUT),
        ((*SPOKEN, content("x", 1), usage(), DONE), CUT),
        ((usage(), DONE), CUT),
        ((*SPOKEN, '{"error":{"message":"no"}}', usage(), DONE), TOLD_ERROR),
        ((*SPOKEN, "[1]", usage(), DONE), UNREADABLE),
        ((*SPOKEN, f'{{"choices":{"[" * 100_000}', usage(), DONE), UNREADABLE),
        ((*SPOKEN, f'{{"a":{"[" * 100_000}{"]" * 100_000}}}', usage(), DONE), UNREADABLE),
        ((*SPOKEN, '{"choices":[],"usage":true}', usage(), DONE), UNREADABLE),
    ],
)
def test_what_is_not_whole_is_no_object(events: tuple[str, ...], missing: str) -> None:
    """An answer with a part missing must not look like a whole one."""
    assert missing == folded(stream(*events), bytes_max=1_000_000)


def test_it_is_bounded() -> None:
    """By its texts, its log probabilities and its number of choices; of what is given up nothing is kept."""
    text, token = content("x" * 100), {"token": "x" * 100, "logprob": 0.0}
    many = {"content": [token], "refusal": None}
    for events in ([text] * 50, [said(logprobs=many)] * 50, [said(index) for index in range(5)]):
        assert TOO_LONG == folded(stream(*events, FINISH, usage(), DONE), bytes_max=5_000)
    assert isinstance(folded(stream(*[text] * 30, FINISH, usage(), DONE), bytes_max=5_000), dict)
    assert TOO_LONG == folded(stream(content("x" * 6_000), FINISH, usage(), DONE), bytes_max=5_000)


def test_the_organisations_key_is_masked_at_every_split() -> None:
    """Wherever the upstream puts it, and wherever a chunk ends in it."""
    body = stream(content(f"Your key is {SECRET.decode()}."), FINISH, usage(), DONE)
    for at in range(len(body) + 1):
        answer = folded(body[:at], body[at:])
        assert isinstance(answer, dict)
        assert f"Your key is {'*' * len(SECRET)}." == answer["choices"][0]["message"]["content"]
