"""The server's side of one connection: uvicorn's HTTP/1.1, which here stays HTTP/1.1.

A client may offer to go on in HTTP/2 (`Upgrade: h2c`: `curl --http2` does, with its first request). A server may ignore
the offer (RFC 9110, 7.8), but the parser stops at it and the request's body is lost. So the offer is taken out of the
head before the parser sees it.
"""

import re

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_OFFER = re.compile(rb"^upgrade[ \t]*:", re.IGNORECASE | re.MULTILINE)
_HEAD_END = b"\r\n\r\n"


class PlainProtocol(HttpToolsProtocol):
    """Ignores every offer to upgrade."""

    def data_received(self, data: bytes) -> None:
        if b"pgrade" in data and self._at_head():
            data = without_offer(data)
        super().data_received(data)

    def _at_head(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        return cycle is None or cycle.response_complete


def without_offer(data: bytes) -> bytes:
    """The same bytes with the header `Upgrade` under a name that means nothing; a body is left as it is."""
    head, end, rest = data.partition(_HEAD_END)
    return _OFFER.sub(b"x-upgrade-ignored:", head) + end + rest
