"""Roles added to the first delta of each choice: by Filtered, so that every split of a stream is tried as well."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.filtered import Filtered
from gateway.wire.presentation import Presentation
from gateway.wire.roles import CHOICES_MAX, Roles
from tests.wire.recordings import DONE, FINISH, HEAD, SPOKEN, content, stream, usage

ROLE = '"role":"assistant"'


def shown(body: bytes, *, choices: int = 1, at: int = 0, event_bytes_max: int = 1 << 20) -> bytes:
    view = Filtered(Presentation(choices=choices), b"sk-upstream", event_bytes_max)
    return view.feed(body[:at]) + view.feed(body[at:]) + view.end(0, whole=True)


def told(roles: Roles, data: str) -> str:
    event = roles.told(stream(data), data.encode())
    return event.decode().removeprefix("data: ").removesuffix("\n\n")


def chunk(*choices: str) -> str:
    return f'{HEAD}"choices":[{",".join(choices)}],"usage":null}}'


def with_role(event: str) -> str:
    """The event with the role in its first delta, which is not empty."""
    return event.replace('"delta":{', f'"delta":{{{ROLE},', 1)


FIRST, SECOND, LAST = SPOKEN
TOLD = (with_role(FIRST), SECOND, LAST)
TWO = (content("a"), content("b"), content("x", 1), FINISH, content("y", 1))
TWO_TOLD = (with_role(TWO[0]), TWO[1], with_role(TWO[2]), *TWO[3:])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("choices", "sent", "expected"),
    [
        (1, SPOKEN, TOLD),
        (2, TWO, TWO_TOLD),
        (2, (TWO[2], TWO[0], TWO[1]), (TWO_TOLD[2], TWO_TOLD[0], TWO[1])),
        (1, TWO, (TWO_TOLD[0], *TWO[1:])),
        (1, TOLD, TOLD),
    ],
    ids=["one choice", "two choices", "the second first", "more than were asked for", "told already"],
)
def test_the_first_event_of_each_choice_names_its_role(
    end: str, choices: int, sent: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    """At every split, with every line end; no other byte is another."""
    body = stream(*sent, usage(), DONE, end=end)
    whole = stream(*expected, usage(), DONE, end=end)
    for at in range(len(body) + 1):
        assert whole == shown(body, choices=choices, at=at), at


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ('{"choices":[{"delta":{}}]}', '{"choices":[{"delta":{"role":"assistant"}}]}'),
        ('{"choices":[{"delta":{ }}]}', '{"choices":[{"delta":{"role":"assistant" }}]}'),
        (
            ' { "choices" : [ { "delta" : { "content" : "é" } , "index" : 0 } ] } ',
            ' { "choices" : [ { "delta" : {"role":"assistant", "content" : "é" } , "index" : 0 } ] } ',
        ),
        (
            '{"é":"\\"delta\\":{","x":{"delta":{}},"choices":[{"x":[{"delta":{}}],"delta":{"role":null,"content":""}}]}',
            '{"é":"\\"delta\\":{","x":{"delta":{}},"choices":[{"x":[{"delta":{}}],"delta":{"role":"assistant","content":""}}]}',
        ),
    ],
)
def test_only_the_role_is_added_however_the_event_is_written(event: str, expected: str) -> None:
    """With blanks anywhere, members in any order, and words that look like a delta elsewhere."""
    assert expected == told(Roles(1), event)


def test_an_event_with_several_choices_names_each_that_begins() -> None:
    """One of them named its role itself, one has no delta yet."""
    begun, named, waits = '{"index":0,"delta":{}}', f'{{"index":1,"delta":{{{ROLE}}}}}', '{"index":2,"delta":null}'
    late = '{"index":3,"delta":{"content":"a"}}'
    roles = Roles(4)
    expected = chunk(
        f'{{"index":0,"delta":{{{ROLE}}}}}', named, waits, f'{{"index":3,"delta":{{{ROLE},"content":"a"}}}}'
    )
    assert expected == told(roles, chunk(begun, named, waits, late))
    again = chunk(begun, '{"index":2,"delta":{"content":"b"}}')
    assert chunk(begun, f'{{"index":2,"delta":{{{ROLE},"content":"b"}}}}') == told(roles, again)
    assert roles.all_told


@pytest.mark.parametrize(
    "event",
    [
        "[DONE]",
        usage(),
        '{"error":{"message":"\\"delta\\""}}',
        '{"choices":[{"index":0}],"x":{"delta":{}}}',
        '{"choices":[{"index":"0","delta":{}}]}',
        '{"choices":[{"index":-1,"delta":{}}]}',
        '{"choices":[{"index":1,"delta":{}}]}',
        '{"choices":[{"index":0,"delta":"Ok"}]}',
        '{"choices":[{"index":0,"delta":{}}',
        '{"choices":[{"index":0,"delta":{}}],"x":"\xe9"}',
        '{"choices":[{"index":0,"delta":{ }}],"x":' + "9" * 5000 + "}",
        '{"choices":[{"index":0,"delta":{}}],"x":' + "[" * 50_000 + "]" * 50_000 + "}",
    ],
)
def test_what_begins_no_choice_stays_as_it_is(event: str) -> None:
    """And the choice is waited for: the next event of it gets the role."""
    data = event.encode("latin-1")
    roles = Roles(1)
    assert b"data: " + data == roles.told(b"data: " + data, data)
    assert with_role(FIRST) == told(roles, FIRST)


def test_data_over_several_lines_keeps_its_lines() -> None:
    """The place of a delta is found in the event's own bytes: between comments, other fields and a byte-order mark."""
    lines = b'\xef\xbb\xbfdata: {"choices":%(end)b: delta%(end)bdata%(end)bdata:[{"delta":%(end)bid: 1%(end)bdata: {'
    for end in (b"\n", b"\r\n", b"\r"):
        before = lines % {b"end": end}
        after = b'"content":"a"}}]}' + end + end
        body = before + after + stream(SECOND)
        expected = before + ROLE.encode() + b"," + after + stream(SECOND)
        for at in range(len(body) + 1):
            assert expected == shown(body, at=at), at


def test_the_role_is_told_with_the_event_and_read_for_no_longer() -> None:
    """Nothing waits for it, and events behind it pass as a piece."""
    view = Filtered(Presentation(choices=1), b"sk-upstream")
    assert b"" == view.feed(stream(FIRST)[:-1])
    assert stream(with_role(FIRST)) == view.feed(b"\n")
    assert stream(FIRST, SECOND) == view.feed(stream(FIRST, SECOND))


def test_an_event_above_the_bound_passes_without_its_role() -> None:
    """Nothing is kept to add it; the next event of its choice has it."""
    body, expected = stream(content("x" * 500), SECOND), stream(content("x" * 500), with_role(SECOND))
    for at in range(0, len(body), 20):
        assert expected == shown(body, at=at, event_bytes_max=500), at


def test_no_number_of_choices_takes_memory_without_bound() -> None:
    """Those behind OpenAI's own maximum go without."""
    beyond = chunk(f'{{"index":{CHOICES_MAX},"delta":{{}}}}')
    assert beyond == told(Roles(2**53), beyond)


@given(st.text(max_size=40), st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_text_stays_as_it_was(text: str, end: str) -> None:
    """What a position counts in characters is another number in bytes."""
    event = chunk('{"index":0,"delta":{}}').replace("fp_", "é" * len(text) + "fp_")
    said = stream(content("".join(char for char in text if char.isalnum())), event, end=end)
    assert said.replace(b'"delta":{', b'"delta":{"role":"assistant",', 1) == shown(said)
