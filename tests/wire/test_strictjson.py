"""Bodies that two parsers could read differently are refused; all others keep their meaning."""

import json
import math
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.errors import DuplicateKey, GatewayError, InvalidJSON, InvalidRequest, RequestTooLarge
from gateway.wire import strictjson, structure
from gateway.wire.strictjson import DIGITS_MAX, MIXED_BYTES_MAX, decode, decode_in_steps, encode
from gateway.wire.structure import DEPTH_MAX, ESCAPES_MAX, PADDING_BYTES_MAX, TEXT_BYTES_MAX, VALUES_MAX

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=20,
)


def nested(levels: int) -> bytes:
    """An object with arrays in it, `levels` deep in all."""
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


@given(st.dictionaries(st.text(), JSON_VALUES), st.booleans())
def test_a_valid_body_reads_as_json_reads_it(value: dict[str, object], ascii_only: bool) -> None:
    """Strict is not different: only less."""
    assert value == decode(json.dumps(value, ensure_ascii=ascii_only).encode())


@given(st.dictionaries(st.text(), JSON_VALUES))
def test_what_is_written_reads_back_the_same(value: dict[str, object]) -> None:
    """What was priced is what is sent."""
    assert value == json.loads(encode(value))
    assert encode(value) == encode(decode(encode(value)))


def test_encoding_is_compact_and_not_escaped() -> None:
    """A prompt's bytes are then its UTF-8 bytes."""
    assert '{"a":["é","😀",1.5,null]}'.encode() == encode({"a": ["é", "😀", 1.5, None]})


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"a":1,"a":1}', "a"),
        (rb'{"model":1,"\u006dodel":2}', "model"),
        (b'{"x":[{"y":{"b":1,"c":2,"b":3}}]}', "b"),
        (rb'{"\ud800":1,"\ud800":2}', "?"),
        (b'{"' + b"k" * 200 + b'":1,"' + b"k" * 200 + b'":1}', "k" * 80),
    ],
)
def test_a_key_given_twice_is_refused_by_name(body: bytes, key: str) -> None:
    """One parser takes the first, another the last: the budget and the upstream might differ."""
    with pytest.raises(DuplicateKey, match="twice") as refused:
        decode(body)
    assert key == refused.value.param
    refused.value.message.encode()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"a":1,}', "not valid JSON"),
        (b"{} {}", "not valid JSON"),
        (b"{'a':1}", "not valid JSON"),
        (b'{"a":01}', "not valid JSON"),
        (b'{"a":"\x01"}', "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"\xef\xbb\xbf{}", "byte-order mark"),
        (b'{"a":"\xff"}', "not UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a":"\xc0\xaf"}', "not UTF-8"),
        ('{"a":1}'.encode("utf-16"), "not UTF-8"),
        (b'{"a":NaN}', "NaN is not JSON"),
        (b'{"a":Infinity}', "Infinity is not JSON"),
        (b'{"a":-Infinity}', "-Infinity is not JSON"),
        (b'{"a":1e999}', "too large"),
        (b'{"a":-1e999}', "too large"),
        (rb'{"a":"\ud800"}', "surrogate"),
        (rb'{"a":"\uDC00x"}', "surrogate"),
        (rb'{"\ud83d":1}', "surrogate"),
    ],
    ids=lambda value: value[:24] if isinstance(value, bytes | str) else None,
)
def test_a_body_without_one_meaning_is_refused_with_the_reason(body: bytes, reason: str) -> None:
    """A sentence that says what is wrong, and never a stack."""
    with pytest.raises(InvalidJSON, match=reason) as refused:
        decode(body)
    assert refused.value.message.endswith(".")
    assert len(refused.value.message) < 200


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"a":' + b"9" * 5000 + b"}", "digits"),
        (b'{"a":0.' + b"9" * 5000 + b"}", "digits"),
        (nested(DEPTH_MAX + 1), "nested too deeply"),
        (nested(VALUES_MAX - 1), "nested too deeply"),
        (nested(1_000_000), "too many values"),
        (b'{"a":' * 10_000, "nested too deeply"),
        (b'{"a":[' + b"[]," * 1_000_000 + b"[]]}", "too many values"),
        (b'{"a":[' + b"1," * 1_000_000 + b"1]}", "too many values"),
        (b'"' * 2_000_001 + b"[" * 100, "too many values"),
        (b"[" * (DEPTH_MAX + 1) + b"]" * 1_000_000, "too many values"),
        (b'{"a":[' + b"[" * DEPTH_MAX + b"]" * 30_000, "nested too deeply"),
        (b'{"a":"' + rb"\n" * (ESCAPES_MAX + 1) + b'"}', "too many backslashes"),
        (b'{"a":' + b"\n" * PADDING_BYTES_MAX + b"[" * DEPTH_MAX + b"]" * DEPTH_MAX + b"}", "too much white space"),
    ],
    ids=lambda value: value[:24] if isinstance(value, bytes | str) else None,
)
def test_a_body_above_a_bound_is_refused_as_a_request(body: bytes, reason: str) -> None:
    """It may be valid JSON: what is wrong with it is its size, and the message says which and how much."""
    with pytest.raises(InvalidRequest, match=reason) as refused:
        decode(body)
    assert "invalid_request" == refused.value.code
    assert refused.value.message.endswith(".")
    assert len(refused.value.message) < 200


M = 1024 * 1024


@pytest.mark.parametrize(
    "text",
    [
        "é".encode() * (TEXT_BYTES_MAX // 2 + 1),
        b"a" * TEXT_BYTES_MAX + "é".encode(),
        "é".encode() + b"a" * TEXT_BYTES_MAX,
        b"a" * TEXT_BYTES_MAX + rb"\u00e9",
        (b"a" * 4 * M + "é".encode() + b'","') * 3,
    ],
    ids=["é", "one é behind", "one é before", "one escape", "three strings"],
)
def test_more_text_than_any_model_takes_is_refused(text: bytes) -> None:
    """One letter beyond ASCII makes a string of four times the bytes, for which everybody waits."""
    with pytest.raises(RequestTooLarge, match="too much text"):
        _in_steps(b'{"a":["' + text + b'"]}')


def test_pictures_are_no_text() -> None:
    """What is ASCII is as long as it likes, beside whatever else; also with the slashes that PHP escapes."""
    picture = r"data:image\/png;base64," + "A" * 2 * TEXT_BYTES_MAX
    read = _in_steps(b'{"a":["Ti\xe1\xba\xbfng Vi\xe1\xbb\x87t","' + picture.encode() + b'"]}')
    assert {"a": ["Tiếng Việt", picture.replace("\\", "")]} == read


def test_a_large_body_writes_its_letters_in_one_way() -> None:
    """Else its strings cannot be read one by one; below the bound it is read at once. Long strings do not count."""
    body = b'{"a":"\xc3\xa9\\u00e9", "b":[%b]}'
    line = b'"' + b"x" * 1_000 + b'"'
    assert {"a": "éé", "b": ["x" * 1_000] * 900} == _in_steps(body % b",".join([line] * 900))
    assert {"a": "éé", "b": ["x" * MIXED_BYTES_MAX]} == _in_steps(body % (b'"' + b"x" * MIXED_BYTES_MAX + b'"'))
    with pytest.raises(InvalidRequest, match="in one way"):
        _in_steps(body % b",".join([line] * (MIXED_BYTES_MAX // 900)))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (b"x" * 3 * M, "x" * 3 * M),
        (b"\\/" + b"A" * 3 * M + b"\\/\\\\", "/" + "A" * 3 * M + "/\\"),
        (b"x" * 3 * M + b'\\"' * 300, "x" * 3 * M + '"' * 300),
        (b"x" * 3 * M + b"\\\\" * 300, "x" * 3 * M + "\\" * 300),
        ("ệ".encode() * M, "ệ" * M),
        (b"x" * 3 * M + b"\\ud83d\\ude00", "x" * 3 * M + "😀"),
    ],
    ids=["plain", "PHP's slashes", "many quotes at its end", "many backslashes at its end", "UTF-8", "a pair"],
)
def test_a_long_string_is_itself_wherever_it_stands(text: bytes, read: str) -> None:
    """Beside another, within a list, as a key; and a short one in between is itself, too."""
    body = b'{"a":["%b", 1, {"c":"%b", "d":""}], "%b":"e"}' % (text, b"y" * 2 * M, b"k" * 2 * M)
    assert {"a": [read, 1, {"c": "y" * 2 * M, "d": ""}], "k" * 2 * M: "e"} == _in_steps(body)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"%b":1,"%b":2}' % ((b"k" * 3 * M,) * 2), "duplicate_key"),
        (b'{"a":"%b\n"}' % (b"x" * 3 * M), "invalid_json"),
        (b'{"a":"%b\\ud800"}' % (b"x" * 3 * M), "invalid_json"),
        (b'{"a":"%b\\q"}' % (b"x" * 3 * M), "invalid_json"),
        (b'{"a":"%b' % (b"x" * 3 * M), "invalid_json"),
        (b'{"a":"%b" "b"}' % (b"x" * 3 * M), "invalid_json"),
    ],
    ids=["a key twice", "a line feed", "half a pair", "a bad escape", "without end", "no comma behind it"],
)
def test_a_long_string_is_refused_as_a_short_one(body: bytes, code: str) -> None:
    """It is read apart from the rest, by another parser."""
    assert code == _outcome(lambda: _in_steps(body))[0] == _outcome(lambda: decode(body))[0]  # type: ignore[index]


def test_a_body_has_a_bound_beside_its_pictures() -> None:
    """Twice the text that any model takes; a picture of more is none of it."""
    lines = b",".join([b'"' + b"x" * 10_000 + b'"'] * 1_000)
    picture = b"A" * 20 * M
    read = cast(dict[str, list[str]], _in_steps(b'{"a":[%b],"b":"%b"}' % (lines, picture)))
    assert 1_000 == len(read["a"])
    with pytest.raises(RequestTooLarge, match="beside its long strings"):
        _in_steps(b'{"a":[%b,%b],"b":"%b"}' % (lines, lines, b"A" * 2 * M))


def test_a_large_body_has_fewer_escapes() -> None:
    """As many as a picture has slashes, which PHP escapes."""
    picture = b"A" * 9 * M
    assert {"a": "A" * 9 * M + "/" * 500_000} == _in_steps(b'{"a":"%b%b"}' % (picture, b"\\/" * 500_000))
    with pytest.raises(InvalidRequest, match="too many backslashes"):
        _in_steps(b'{"a":"%b%b"}' % (picture, b"\\/" * 500_001))


def test_a_number_has_as_many_digits_as_anybody_needs() -> None:
    """Thousands of long ones take more than a value may."""
    assert int("9" * DIGITS_MAX) == decode(b'{"a":' + b"9" * DIGITS_MAX + b"}")["a"]


def test_the_bounds_themselves_are_allowed() -> None:
    """Off by one would refuse someone's honest request."""
    assert decode(nested(DEPTH_MAX))
    assert VALUES_MAX - 2 == len(decode(b'{"a":[' + b"1," * (VALUES_MAX - 3) + b"1]}")["a"])  # type: ignore[arg-type]


@given(st.lists(st.sampled_from(["[", "{", "]", "\\", '"', ",", "x", "\\\\"]), max_size=30))
def test_brackets_inside_strings_are_text(pieces: list[str]) -> None:
    """Source code in a prompt is no structure, however its quotes and backslashes fall."""
    text = "[" * 200 + "".join(pieces)
    assert {"a": text} == decode(json.dumps({"a": text}).encode())


@given(st.lists(st.sampled_from(["[", "}", "\\", '"', "x"]), max_size=30), st.integers(1, 9))
def test_a_string_is_text_wherever_a_piece_ends(pieces: list[str], piece_bytes: int) -> None:
    """Within a string, within an escape: what is counted is the same."""
    text = "".join(pieces) + "[" * (DEPTH_MAX + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strictjson, "_PIECE_BYTES", piece_bytes)
        assert {"a": text, "b": [[]]} == _in_steps(json.dumps({"a": text, "b": [[]]}).encode())
        assert ("invalid_request", structure.TOO_DEEP) == _outcome(lambda: _in_steps(nested(DEPTH_MAX + 1)))


def test_surrogate_pairs_and_small_numbers_are_fine() -> None:
    """Python's own client writes an emoji as a pair."""
    assert {"a": "😀"} == decode(rb'{"a":"\ud83d\ude00"}')
    assert {"a": 0.0, "b": 2**64} == decode(b'{"a":1e-999,"b":18446744073709551616}')
    assert math.copysign(1, decode(b'{"a":-0.0}')["a"]) == -1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":{"b":[1,"\\u00e9"]}}',
        b'{"a":1,"a":1}',
        b'{"a":"\xff"}',
        b"[]",
        rb'{"a":"\ud800"}',
        nested(DEPTH_MAX + 1),
    ],
    ids=["read", "duplicate key", "no UTF-8", "no object", "half a pair", "too deep"],
)
def test_in_steps_a_body_is_read_and_refused_as_in_one(body: bytes) -> None:
    """How large it is must not change what it means."""
    assert _outcome(lambda: decode(body)) == _outcome(lambda: _in_steps(body))


@given(st.dictionaries(st.text(), JSON_VALUES), st.integers(1, 40), st.data())
def test_in_steps_a_body_is_read_as_in_one_wherever_a_piece_ends(
    value: dict[str, object], piece_bytes: int, data: st.DataObject
) -> None:
    """Its letters as they are, as escapes, or some so and some so."""
    plain = json.dumps(value, ensure_ascii=False)
    letters = sorted({letter for letter in plain if not letter.isascii()})
    escaped = set(data.draw(st.lists(st.sampled_from(letters)))) if letters else set()
    body = "".join(json.dumps(one)[1:-1] if one in escaped else one for one in plain).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strictjson, "_PIECE_BYTES", piece_bytes)
        read = _in_steps(body)
    assert value == read
    assert json.dumps(decode(body)) == json.dumps(read)


@pytest.mark.parametrize("body", ['{"é":1,"é":2}', '{"a":[{"中文":1,"b":2,"中文":3}]}'])
def test_a_key_given_twice_is_named_in_its_letters(body: str) -> None:
    """Also where they were bytes while it was read."""
    assert _outcome(lambda: decode(body.encode())) == _outcome(lambda: _in_steps(body.encode()))


@pytest.mark.parametrize("cut", range(1, 12))
def test_what_is_not_utf8_is_refused_at_its_place(cut: int) -> None:
    """Wherever a piece ends."""
    for body in ('{"a":"é中😀'.encode() + b'\xff"}', '{"a":"é中😀'.encode()[:-1]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(strictjson, "_PIECE_BYTES", cut)
            assert _outcome(lambda body=body: decode(body)) == _outcome(lambda body=body: _in_steps(body))  # type: ignore[misc]


def _in_steps(body: bytes) -> object:
    steps = decode_in_steps(body)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def _outcome(reading: Callable[[], object]) -> object:
    try:
        return reading()
    except GatewayError as error:
        return error.code, error.message
