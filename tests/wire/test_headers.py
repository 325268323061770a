"""What of an upstream's headers reaches a client, and that its key never does."""

import pytest

from gateway.wire.headers import mask, response_headers


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
