"""What the head of a request must be beyond what the parser (llhttp, strict) holds. Pure.

One reading of a request, for everyone on its way: where a proxy and this gateway could disagree about where a request
ends, whom it is for or who sent it, it is refused, not interpreted. The laws:

1. It begins with method, target and HTTP/1.0 or HTTP/1.1, one space between each two. The parser takes more spaces too,
   and for HTTP what calls itself RTSP or ICE. Blank lines before it are nothing.
2. The target is a path: nothing that names a host a second time, no fragment.
3. HTTP/1.1 names its host, and no request names it twice.
4. The body's length is told in one way: by Content-Length (the parser holds that it is one number and stands alone), or
   by exactly `Transfer-Encoding: chunked`, which HTTP/1.0 does not know.
5. Who sends it and what it holds stands there once: neither the first nor the last of two keys counts.
6. A head has at most `HEAD_BYTES_MAX` bytes and `HEADER_LINES_MAX` lines.
"""

from collections.abc import Mapping, Sequence

from gateway.billing.errors import HeadersTooLarge, InvalidRequest, UnsupportedMediaType

Header = tuple[bytes, bytes]

HEAD_BYTES_MAX = 32 * 1024
HEADER_LINES_MAX = 100
_LINE_BYTES = len(b": \r\n")
_SLASH, _HASH = b"/#"
_ONCE = (b"host", b"authorization", b"x-api-key", b"content-type", b"content-encoding")
_BAD_LINE = "Begin the request with METHOD /path HTTP/1.1 and single spaces; an HTTP library does."
_TOO_LARGE = f"A request's head may have {HEAD_BYTES_MAX} bytes and {HEADER_LINES_MAX} header lines; send fewer."


def checked_fields(target: bytes, version: str, headers: Sequence[Header]) -> Mapping[bytes, bytes]:
    """The headers by name (the first, of those that may stand twice), for a head that breaks none of the laws 2 to 5,
    and whose version is one of law 1.

    `headers`: names in lower case. Raises InvalidRequest; HeadersTooLarge where there are too many.
    """
    fields = dict(headers)
    if (
        version != "1.1"
        or target[0] != _SLASH
        or _HASH in target
        or b"host" not in fields
        or b"transfer-encoding" in fields
        or len(fields) != len(headers)
    ):
        _check(target, version, headers)
        return dict(reversed(headers))
    if len(fields) > HEADER_LINES_MAX:
        raise too_large()
    return fields


def end_of_line(opening: bytes, start: int, method: bytes, target: bytes, version: str, *, is_behind: bool) -> int:
    """Where the line ends of a head of which the parser has told `method`, `target` and `version`: law 1.

    `opening`: what came from the packet on in which the request begins. `is_behind`: it begins behind another, at
    `start` or, where that one's body came in chunks, somewhat later: nobody tells how much of them was framing.

    Raises InvalidRequest: the line does not stand there as the law has it.
    """
    line = b"%b %b HTTP/%b\r\n" % (method, target, version.encode())
    if not is_behind and opening.startswith(line):
        return len(line)
    found = opening.find(line, start)
    if found < 0 or not (is_behind or opening[:found].strip(b"\r\n") == b""):
        raise InvalidRequest(_BAD_LINE)
    return found + len(line)


def check_size(target: bytes, headers: Sequence[Header]) -> None:
    """Law 6, for a head whose size is in doubt. Raises HeadersTooLarge."""
    if len(headers) > HEADER_LINES_MAX or head_bytes(target, headers) > HEAD_BYTES_MAX:
        raise too_large()


def head_bytes(target: bytes, headers: Sequence[Header]) -> int:
    """At least so many bytes have come of a head, of which this is what the parser has told."""
    return len(target) + sum(len(name) + len(value) + _LINE_BYTES for name, value in headers)


def too_large() -> HeadersTooLarge:
    return HeadersTooLarge(_TOO_LARGE)


def check_json(content_type: bytes | None, content_encoding: bytes | None) -> None:
    """What a body's headers say of it: JSON (or nothing), as it is. Raises UnsupportedMediaType."""
    if content_type is not None and content_type != b"application/json":
        kind = content_type.split(b";")[0].strip().lower()
        if kind not in (b"application/json", b"") and not kind.endswith(b"+json"):
            raise UnsupportedMediaType("Send the body as JSON with the header Content-Type: application/json.")
    if content_encoding is not None and content_encoding.strip().lower() != b"identity":
        raise UnsupportedMediaType("Send the body as it is, without Content-Encoding.")


def _check(target: bytes, version: str, headers: Sequence[Header]) -> None:
    if len(headers) > HEADER_LINES_MAX:
        raise too_large()
    if version not in ("1.0", "1.1"):
        raise InvalidRequest("Send the request as HTTP/1.1.")
    if target[0] != _SLASH or _HASH in target:
        raise InvalidRequest("Name the path alone in the request line, such as POST /v1/chat/completions.")
    names = [name for name, _ in headers]
    if version == "1.1" and b"host" not in names:
        raise InvalidRequest("HTTP/1.1 needs the header Host.")
    for name in _ONCE:
        if names.count(name) > 1:
            raise InvalidRequest(f"The header {name.decode().title()} stands there more than once; send it once.")
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings and (version == "1.0" or [coding.lower() for coding in codings] != [b"chunked"]):
        raise InvalidRequest("Send the body with Content-Length, or in HTTP/1.1 with Transfer-Encoding: chunked.")
