"""The size of a picture in a data URL, as its headers give it: PNG, JPEG, GIF or WebP, whatever the URL calls it."""

from __future__ import annotations

import base64
import binascii
import struct

_SIZELESS_FRAMES = b"\xc4\xc8\xcc"


def data_url_size(url: str) -> tuple[int, int] | None:
    """Width and height; None for what is no base64 data URL of a picture, or breaks off before its size."""
    scheme, marker, data = url.partition(";base64,")
    if not marker or not scheme.lower().startswith("data:image/"):
        return None
    try:
        width, height = _size(base64.b64decode(data + "=" * (-len(data) % 4)))
    except (binascii.Error, struct.error, IndexError, ValueError):
        return None
    return (width, height) if width and height else None


def _size(picture: bytes) -> tuple[int, int]:
    if picture[1:4] == b"PNG":
        return struct.unpack_from(">II", picture, 16)
    if picture[:3] == b"GIF":
        return struct.unpack_from("<HH", picture, 6)
    if picture[8:12] == b"WEBP":
        return _webp_size(picture)
    if picture[:2] == b"\xff\xd8":
        return _jpeg_size(picture)
    raise ValueError("no picture")


def _webp_size(picture: bytes) -> tuple[int, int]:
    kind = picture[12:16]
    if kind == b"VP8X":
        wide, high = (struct.unpack("<I", picture[at : at + 3] + b"\0")[0] for at in (24, 27))
        return wide + 1, high + 1
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", picture, 21)
        return packed % 2**14 + 1, packed // 2**14 % 2**14 + 1
    if kind == b"VP8 ":
        wide, high = struct.unpack_from("<HH", picture, 26)
        return wide % 2**14, high % 2**14  # above them stand two bits of scaling
    raise ValueError("no known kind of WebP")


def _jpeg_size(picture: bytes) -> tuple[int, int]:
    """The frame header's, behind the tables and whatever a camera wrote before it."""
    at = 2
    while picture[at] == 0xFF:
        kind, length = struct.unpack_from(">xBH", picture, at)
        if 0xC0 <= kind <= 0xCF and kind not in _SIZELESS_FRAMES:
            high, wide = struct.unpack_from(">HH", picture, at + 5)
            return wide, high
        at += 2 + length
    raise ValueError("no frame header")
