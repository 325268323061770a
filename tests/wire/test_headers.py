"""What of an upstream's headers reaches a client, and that its key never does."""

import pytest

from gateway.wire.headers import StreamMask, mask, response_headers


@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "Keep-Alive",
        "Proxy-Authenticate",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "Set-Cookie",
        "Content-Length",
        "Date",
        "Server",
        "Alt-Svc",
        "Strict-Transport-Security",
        "X-Request-Id",
        "X-RateLimit-Limit-Requests",
        "X-Gateway-Hold-USD",
    ],
)
def test_a_header_of_the_connection_or_the_site_stays_behind(name: str) -> None:
    """In any spelling."""
    for spelling in (name, name.lower(), name.upper()):
        assert [] == response_headers([(spelling.encode(), b"value")])


@pytest.mark.parametrize("name", [b"content-type", b"content-encoding", b"cache-control", b"retry-after", b"etag"])
def test_a_header_about_the_answer_passes(name: bytes) -> None:
    """Bytes pass unchanged, so what describes them must pass too."""
    assert [(name, b"value")] == response_headers([(name, b"value")])


def test_headers_named_by_connection_stay_behind() -> None:
    """RFC 9110, 7.6.1: they belong to that connection, wherever they stand."""
    headers = [(b"X-Hop", b"1"), (b"Connection", b"close, X-Hop ,x-other"), (b"x-OTHER", b"2"), (b"X-End", b"3")]
    assert [(b"x-end", b"3")] == response_headers(headers)


def test_order_and_repetition_are_kept() -> None:
    """Two headers of one name are two headers."""
    headers = [(b"vary", b"accept"), (b"x-a", b"1"), (b"vary", b"origin")]
    assert headers == response_headers(headers)


def test_the_key_is_masked_wherever_it_stands() -> None:
    """An upstream that quotes the request back must not give the organisation's key away."""
    secret = b"sk-secret"
    assert [(b"x-echo", b"Bearer *********")] == response_headers([(b"X-Echo", b"Bearer sk-secret")], secret)
    assert b'{"a":"*********","b":"*********"}' == mask(b'{"a":"sk-secret","b":"sk-secret"}', secret)
    assert b"unchanged" == mask(b"unchanged", b"")


@pytest.mark.parametrize("size", range(1, 12))
def test_a_secret_is_masked_wherever_chunks_cut_it(size: int) -> None:
    """Whole, in two, byte by byte; what only begins like it passes unchanged in the end."""
    secret, body = b"sk-up-1", b"a sk-up-1 b sk-up-sk-up-1 sk-u sk-up-1sk-up-"
    stream = StreamMask(secret)
    passed = [stream.feed(body[start : start + size]) for start in range(0, len(body), size)]
    assert mask(body, secret) == b"".join(passed) + stream.rest()
    assert secret not in b"".join(passed)


def test_bytes_that_do_not_begin_the_secret_pass_at_once() -> None:
    """An event ends in a blank line, which begins no key: nothing waits."""
    stream = StreamMask(b"sk-up-1")
    assert b'data: {"a":"sk-"}\n\n' == stream.feed(b'data: {"a":"sk-"}\n\n')
    assert b"" == stream.rest()
