"""Pictures as far as their headers go, of any size: what a reader of sizes looks at, and nothing to be drawn."""

import base64
import struct
from collections.abc import Callable, Mapping

SIDE_MAX = 16_383
"""The largest side that all formats can tell."""


def png(width: int, height: int, *, before: bytes = b"") -> bytes:
    """`before` are chunks between the header and the pixels."""
    return b"\x89PNG\r\n\x1a\n" + ihdr(width, height) + before + chunk(b"IDAT", b"pixels")


def ihdr(width: int, height: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + b"crc."


def jpeg(width: int, height: int, *, frame: int = 0xC0, before: bytes = b"", behind: bytes = b"") -> bytes:
    """`before` and `behind` are segments around the frame header; `frame` 0xC2 is progressive."""
    scan = segment(0xDA, bytes(10))
    return b"\xff\xd8" + before + frame_header(width, height, frame) + behind + scan + b"pixels"


def frame_header(width: int, height: int, frame: int = 0xC0) -> bytes:
    return segment(frame, struct.pack(">BHHB", 8, height, width, 3) + bytes(9))


def segment(marker: int, data: bytes) -> bytes:
    """One segment of a JPEG, such as a camera's EXIF (marker 0xE1)."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def gif(
    width: int,
    height: int,
    *,
    screen: tuple[int, int] | None = None,
    colors: int = 0,
    before: bytes = b"",
    behind: bytes = b"",
) -> bytes:
    """One frame, on a screen of its own size if no other is given; `colors` is 0 or the exponent of a table's size."""
    flags = 0x80 | (colors - 1) if colors else 0
    table = bytes(3 * 2**colors) if colors else b""
    head = b"GIF89a" + struct.pack("<HHBBB", *(screen or (width, height)), flags, 0, 0)
    return head + table + before + gif_frame(width, height) + behind + b"\x3b"


def gif_frame(width: int, height: int, left: int = 0, top: int = 0, pixels: bytes = b"\x02ab\x00") -> bytes:
    return b"\x2c" + struct.pack("<HHHHB", left, top, width, height, 0) + b"\x08" + pixels


def webp_lossy(width: int, height: int) -> bytes:
    return webp(vp8(width, height))


def webp_lossless(width: int, height: int) -> bytes:
    return webp(vp8l(width, height))


def webp_extended(width: int, height: int) -> bytes:
    return webp(vp8x(width, height), riff_chunk(b"ICCP", b"colors."), vp8(width, height))


def vp8(width: int, height: int) -> bytes:
    return riff_chunk(b"VP8 ", b"\x10\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height | 0x4000) + b"pixels")


def vp8l(width: int, height: int) -> bytes:
    return riff_chunk(b"VP8L", b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14 | 1 << 28) + b"pixels")


def vp8x(width: int, height: int) -> bytes:
    return riff_chunk(b"VP8X", bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"))


def webp(*chunks: bytes) -> bytes:
    data = b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(data) + 4) + b"WEBP" + data


def riff_chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\x00" * (len(data) % 2)


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
