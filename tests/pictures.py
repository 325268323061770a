"""Pictures as far as their headers go, of any size: what a reader of sizes looks at, and nothing to be drawn."""

import base64
import struct
from collections.abc import Callable, Mapping

SIDE_MAX = 16_383
"""The largest side that all formats can tell."""


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0) + b"crc."


def jpeg(width: int, height: int, *, frame: int = 0xC0, before: bytes = b"") -> bytes:
    """`before` are segments between the start and the frame; `frame` 0xC2 is progressive."""
    return b"\xff\xd8" + before + segment(frame, struct.pack(">BHHB", 8, height, width, 3) + bytes(9))


def segment(marker: int, data: bytes) -> bytes:
    """One segment of a JPEG, such as a camera's EXIF (marker 0xE1)."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def gif(
    width: int, height: int, *, screen: tuple[int, int] | None = None, colors: int = 0, before: bytes = b""
) -> bytes:
    """One frame, on a screen of its own size if no other is given; `colors` is 0 or the exponent of a table's size."""
    flags = 0x80 | (colors - 1) if colors else 0
    table = bytes(3 * 2**colors) if colors else b""
    head = b"GIF89a" + struct.pack("<HHBBB", *(screen or (width, height)), flags, 0, 0)
    return head + table + before + b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0)


def webp_lossy(width: int, height: int) -> bytes:
    return webp(b"VP8 ", b"\x10\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height | 0x4000))


def webp_lossless(width: int, height: int) -> bytes:
    return webp(b"VP8L", b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14 | 1 << 28))


def webp_extended(width: int, height: int) -> bytes:
    return webp(b"VP8X", bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"))


def webp(kind: bytes, data: bytes) -> bytes:
    chunk = kind + struct.pack("<I", len(data)) + data + bytes(10)
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


def data_url(media_type: str, picture: bytes) -> str:
    return f"data:image/{media_type};base64,{base64.b64encode(picture).decode()}"


FORMATS: Mapping[str, tuple[str, Callable[[int, int], bytes]]] = {
    "png": ("png", png),
    "jpeg": ("jpeg", jpeg),
    "progressive jpeg": ("jpg", lambda width, height: jpeg(width, height, frame=0xC2)),
    "a camera's jpeg": ("jpeg", lambda width, height: jpeg(width, height, before=segment(0xE1, b"Exif" * 9_000))),
    "gif": ("gif", gif),
    "webp, lossy": ("webp", webp_lossy),
    "webp, lossless": ("webp", webp_lossless),
    "webp, extended": ("webp", webp_extended),
}
"""Each format by its name: its media type, and how one of a size begins."""
