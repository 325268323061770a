"""The laws of a request's head, one by one; the bytes themselves are tried in tests/web/test_protocol.py."""

import pytest

from gateway.billing.errors import HeadersTooLarge, InvalidRequest, UnsupportedMediaType
from gateway.wire.request_head import HEAD_BYTES_MAX, Header, check_json, check_size, checked_fields

HOST = (b"host", b"a")
CHUNKED = (b"transfer-encoding", b"chunked")


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        ("1.1", [HOST]),
        ("1.0", []),
        ("1.0", [HOST]),
        ("1.1", [HOST, CHUNKED]),
        ("1.1", [HOST, (b"transfer-encoding", b"Chunked")]),
        ("1.1", [HOST, (b"authorization", b"Bearer a"), (b"x-api-key", b"b")]),
        ("1.1", [HOST, *[(b"x-%d" % number, b"") for number in range(99)]]),
    ],
)
def test_what_breaks_no_law_is_served(version: str, headers: list[Header]) -> None:
    """The headers come back by their names."""
    assert dict(headers) == checked_fields(b"/", version, headers)


def test_of_a_header_that_may_stand_twice_the_first_counts() -> None:
    """Lists and notes; who reads them all finds them all."""
    assert b"1" == checked_fields(b"/", "1.1", [(b"x-a", b"1"), HOST, (b"x-a", b"2")])[b"x-a"]


@pytest.mark.parametrize(
    ("target", "version", "headers", "word"),
    [
        (b"/", "0.9", [HOST], "HTTP/1.1"),
        (b"/", "2.0", [HOST], "HTTP/1.1"),
        (b"*", "1.1", [HOST], "path"),
        (b"a:443", "1.1", [HOST], "path"),
        (b"http://a/", "1.1", [HOST], "path"),
        (b"/#a", "1.1", [HOST], "path"),
        (b"/", "1.1", [], "Host"),
        (b"/", "1.1", [HOST, HOST], "Host"),
        (b"/", "1.0", [HOST, HOST], "Host"),
        (b"/", "1.1", [HOST, (b"authorization", b"a"), (b"authorization", b"a")], "Authorization"),
        (b"/", "1.1", [HOST, (b"x-api-key", b"a"), (b"x-api-key", b"b")], "X-Api-Key"),
        (b"/", "1.1", [HOST, (b"content-type", b"a"), (b"content-type", b"b")], "Content-Type"),
        (b"/", "1.1", [HOST, (b"content-encoding", b"a"), (b"content-encoding", b"b")], "Content-Encoding"),
        (b"/", "1.0", [HOST, CHUNKED], "Content-Length"),
        (b"/", "1.1", [HOST, CHUNKED, CHUNKED], "Content-Length"),
        (b"/", "1.1", [HOST, (b"transfer-encoding", b"gzip, chunked")], "Content-Length"),
        (b"/", "1.1", [HOST, (b"transfer-encoding", b"gzip"), CHUNKED], "Content-Length"),
    ],
)
def test_what_breaks_a_law_hears_what_to_do(target: bytes, version: str, headers: list[Header], word: str) -> None:
    """The message names what is to be changed."""
    with pytest.raises(InvalidRequest) as refused:
        checked_fields(target, version, headers)
    assert word in refused.value.message


@pytest.mark.parametrize("line", [(b"x-a", b"b"), None])
def test_101_lines_are_too_many(line: Header | None) -> None:
    """All the same or all different."""
    with pytest.raises(HeadersTooLarge):
        checked_fields(b"/", "1.1", [HOST, *[line or (b"x-%d" % number, b"") for number in range(100)]])


@pytest.mark.parametrize("above", [0, 1])
def test_a_head_has_at_most_so_many_bytes(above: int) -> None:
    """Names, values, what stands between them, and the target."""
    value = b"b" * (HEAD_BYTES_MAX - len(b"/") - len(b"x-a: \r\n") + above)
    if above:
        with pytest.raises(HeadersTooLarge):
            check_size(b"/", [(b"x-a", value)])
    else:
        check_size(b"/", [(b"x-a", value)])


@pytest.mark.parametrize(
    "content_type", [None, b"application/json", b"", b"Application/JSON ; charset=utf-8", b"application/problem+json"]
)
@pytest.mark.parametrize("content_encoding", [None, b"identity", b" Identity "])
def test_json_as_it_is_is_taken(content_type: bytes | None, content_encoding: bytes | None) -> None:
    """A client that names no type means JSON: there is nothing else here."""
    check_json(content_type, content_encoding)


@pytest.mark.parametrize(
    ("content_type", "content_encoding"),
    [(b"text/plain", None), (b"application/jsonp", None), (None, b"gzip"), (None, b""), (None, b"identity, br")],
)
def test_anything_else_is_not(content_type: bytes | None, content_encoding: bytes | None) -> None:
    """What cannot be read cannot be priced."""
    with pytest.raises(UnsupportedMediaType):
        check_json(content_type, content_encoding)
