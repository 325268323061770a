"""What of an upstream's answer may pass to the client.

Hop-by-hop headers (RFC 9110, 7.6.1) belong to one connection. Cookies, transport policy, other places
to go to and who may read an answer belong to MiniToolAI's own site, not to the gateway's. `date` and
`server` are the gateway's to say, and so are request ids, rate limits and everything named `x-gateway-…`.
What only requests have, an upstream repeats from ours. The organisation's key never passes, wherever the
upstream may have put it.
"""

from collections.abc import Iterable

Header = tuple[bytes, bytes]

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_OF_THE_SITE = frozenset(
    {
        b"alt-svc",
        b"authentication-info",
        b"clear-site-data",
        b"location",
        b"nel",
        b"refresh",
        b"report-to",
        b"reporting-endpoints",
        b"set-cookie",
        b"set-cookie2",
        b"strict-transport-security",
        b"www-authenticate",
    }
)
_OF_OUR_REQUEST = frozenset({b"authorization", b"cookie", b"openai-organization", b"openai-project", b"x-api-key"})
_SAID_BY_THE_GATEWAY = frozenset({b"content-length", b"date", b"idempotent-replayed", b"server", b"x-request-id"})
_STAY_BEHIND = _HOP_BY_HOP | _OF_THE_SITE | _OF_OUR_REQUEST | _SAID_BY_THE_GATEWAY
_STAY_BEHIND_PREFIXES = (b"access-control-", b"x-gateway-", b"x-ratelimit-")


def response_headers(headers: Iterable[Header], secret: bytes = b"") -> list[Header]:
    """The headers that pass, in their order, names in lower case, values with `secret` masked."""
    lowered = [(name.lower(), value) for name, value in headers]
    if secret:
        # Nobody reads the key from a name, but it would be there; names come in lower case.
        as_name = secret.lower()
        lowered = [header for header in lowered if as_name not in header[0]]
    named = {token.strip().lower() for name, value in lowered if name == b"connection" for token in value.split(b",")}
    return [
        (name, mask(value, secret) if secret in value else value)
        for name, value in lowered
        if name not in _STAY_BEHIND and name not in named and not name.startswith(_STAY_BEHIND_PREFIXES)
    ]


def is_coded(headers: Iterable[Header]) -> bool:
    """Whether a body comes in a content coding, by any of its headers. None was asked for: it hides what it holds."""
    return any(
        name.lower() == b"content-encoding" and value.strip().lower() not in (b"", b"identity")
        for name, value in headers
    )


def mask(data: bytes, secret: bytes) -> bytes:
    """Replace each occurrence of `secret` by asterisks of the same length."""
    return data.replace(secret, b"*" * len(secret)) if secret else data


class StreamMask:
    """The same for a body that passes in chunks: a secret cut in two by a chunk's end is found as well.

    Bytes pass at once; only a tail that may be the beginning of the secret waits for the next chunk.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """What may pass now."""
        data = mask(self._held + chunk, self._secret)
        held = self._beginning_at_end(data)
        self._held = data[len(data) - held :]
        return data[: len(data) - held] if held else data

    def rest(self) -> bytes:
        """What was held back at the body's end."""
        held, self._held = self._held, b""
        return held

    def _beginning_at_end(self, data: bytes) -> int:
        """How many of the last bytes begin the secret."""
        if not self._secret:
            return 0
        tail = data[-(len(self._secret) - 1) :] if len(self._secret) > 1 else b""
        start = tail.find(self._secret[:1])
        while start >= 0:
            if self._secret.startswith(tail[start:]):
                return len(tail) - start
            start = tail.find(self._secret[:1], start + 1)
        return 0
