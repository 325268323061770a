"""How large an image in a data URL is, by its own header: PNG, JPEG, GIF and WebP.

The size tightens a bound that money is held for. So it is told only where the bytes leave no doubt: what is cut,
contradicts itself or its media type, or is not plain base64 has no size, and its bound stays the general one. Where a
format can name a size more than once, everything is read that a reader might go by instead:

- PNG: one IHDR stands first, and no other before the pixels begin; by then every reader has taken its size.
- JPEG: one frame header before the first scan, and nothing that would change it.
- GIF: the screen, and all frames to the very end; the largest sides count, for readers differ in which they go by.
- WebP: one image alone; beside it a canvas of the same size. Animations have no size.

Nothing is decoded but a few bytes of each segment, chunk or block, and of so many of them at most.
"""

import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

SEGMENTS_MAX = 256
"""So many segments of a JPEG or chunks of a PNG or WebP are read until the size is sure."""

BLOCKS_MAX = 1024
"""So many pieces of a GIF, of 255 bytes at most: a longer one has no size."""


class ImageSize(NamedTuple):
    """In pixels, both above zero."""

    width: int
    height: int


def size_of(media_type: str, url: str, start: int) -> ImageSize | None:
    """The size of an image whose base64 begins at `start` of its data URL; None where that is not sure.

    `media_type` is what follows `image/`: png, jpeg, jpg, gif or webp.
    """
    data = _Base64(url, start)
    try:
        width, height = _READERS[media_type](data)
    except ValueError:  # what the bytes are not: base64, long enough, this format
        return None
    return ImageSize(width, height) if width > 0 and height > 0 and data.is_plain() else None


class _Base64:
    """Bytes behind base64, decoded where they are looked at, and a little further: much that is read is near."""

    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._start = start
        self._end = start
        self._decoded = b""
        self._decoded_from = 0

    def read(self, offset: int, length: int) -> bytes:
        """Raises ValueError: it ends before, or is not base64."""
        if not self._decoded_from <= offset <= self._decoded_from + len(self._decoded) - length:
            self._decode(offset, max(length, _AHEAD_BYTES))
        first = offset - self._decoded_from
        found = self._decoded[first : first + length]
        if len(found) != length:
            raise ValueError("the image ends here")
        return found

    def _decode(self, offset: int, length: int) -> None:
        fours = offset // 3
        end = self._start + 4 * -(-(offset + length) // 3)
        self._decoded = b64decode(self._text[self._start + 4 * fours : end], validate=True)
        self._decoded_from = 3 * fours
        self._end = max(self._end, end)

    def byte(self, offset: int) -> int:
        return self.read(offset, 1)[0]

    def is_plain(self) -> bool:
        """Whether nothing but base64 stands before the end of what was read.

        A decoder that skips other characters would find the bytes elsewhere than where they were looked at.
        """
        return _PLAIN.fullmatch(self._text, self._start, self._end) is not None


_AHEAD_BYTES = 96
_PLAIN = re.compile(r"[A-Za-z0-9+/]*={0,2}")


def _png(data: _Base64) -> tuple[int, int]:
    header = data.read(0, 24)
    _demand(header.startswith(b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"))
    offset = 33
    for _ in range(SEGMENTS_MAX):
        chunk = data.read(offset, 8)
        _demand(chunk[4:] != b"IHDR")
        if chunk[4:] == b"IDAT":
            return int.from_bytes(header[16:20]), int.from_bytes(header[20:24])
        offset += 12 + int.from_bytes(chunk[:4])
    raise ValueError("the pixels are too far away")


_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Baseline and progressive among them; the three left out are tables and a reserved code."""

_START_OF_SCAN = 0xDA

_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xDA), 0xFF})
"""Markers that no segment of a header has."""

_RESIZING = frozenset({0xDC, 0xDE, 0xDF})
"""Other numbers of lines, and frames that build on others."""


def _jpeg(data: _Base64) -> tuple[int, int]:
    _demand(data.read(0, 2) == b"\xff\xd8")
    offset = 2
    frame = b""
    for _ in range(SEGMENTS_MAX):
        mark, code = data.read(offset, 2)
        _demand(mark == 0xFF and code not in _WITHOUT_LENGTH and code not in _RESIZING)
        if code == _START_OF_SCAN:
            return int.from_bytes(frame[2:]), int.from_bytes(frame[:2])
        length = int.from_bytes(data.read(offset + 2, 2))
        _demand(length >= 2)
        if code in _START_OF_FRAME:
            _demand(not frame)
            frame = data.read(offset + 5, 4)
        offset += 2 + length
    raise ValueError("the scan is too far away")


def _gif(data: _Base64) -> tuple[int, int]:
    header = data.read(0, 13)
    _demand(header[:6] in (b"GIF87a", b"GIF89a"))
    width, height = _words(header[6:10])
    offset = 13 + _color_table_bytes(header[10])
    pieces = iter(range(BLOCKS_MAX))
    for _ in pieces:
        match data.byte(offset):
            case 0x2C:
                frame = data.read(offset + 1, 9)
                left, top, frame_width, frame_height = _words(frame[:8])
                width, height = max(width, left + frame_width), max(height, top + frame_height)
                offset = _after_blocks(data, offset + 11 + _color_table_bytes(frame[8]), pieces)
            case 0x21:
                offset = _after_blocks(data, offset + 2, pieces)
            case 0x3B:
                return width, height
            case _:
                break
    raise ValueError("its end is too far away, or there is none")


def _color_table_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(data: _Base64, offset: int, pieces: Iterator[int]) -> int:
    """Behind the blocks of a frame or an extension; an empty one ends them."""
    for _ in pieces:
        length = data.byte(offset)
        offset += 1 + length
        if length == 0:
            return offset
    raise ValueError("the blocks have no end")


def _webp(data: _Base64) -> tuple[int, int]:
    header = data.read(0, 12)
    _demand(header[:4] == b"RIFF" and header[8:] == b"WEBP")
    end = 8 + int.from_bytes(header[4:8], "little")
    sizes = dict[bytes, tuple[int, int]]()
    offset = 12
    for _ in range(SEGMENTS_MAX):
        if offset == end:
            return _agreed(sizes)
        chunk = data.read(offset, 8)
        kind = chunk[:4]
        _demand(kind not in sizes and kind != b"ANMF" and (kind in _WEBP_SIZES or bool(sizes)))
        if kind in _WEBP_SIZES:
            sizes[kind] = _WEBP_SIZES[kind](data.read(offset + 8, 10))
        length = int.from_bytes(chunk[4:], "little")
        offset += 8 + length + length % 2
    raise ValueError("it has no end")


def _agreed(sizes: Mapping[bytes, tuple[int, int]]) -> tuple[int, int]:
    """The one size of an image and, where there is one, its canvas."""
    _demand(len(sizes.keys() - {b"VP8X"}) == 1 and len(set(sizes.values())) == 1)
    return next(iter(sizes.values()))


def _lossy_size(frame: bytes) -> tuple[int, int]:
    _demand(frame[0] & 1 == 0 and frame[3:6] == b"\x9d\x01\x2a")
    width, height = _words(frame[6:10])
    return width & 0x3FFF, height & 0x3FFF


def _lossless_size(frame: bytes) -> tuple[int, int]:
    bits = int.from_bytes(frame[1:5], "little")
    _demand(frame[0] == 0x2F)
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _canvas_size(canvas: bytes) -> tuple[int, int]:
    return int.from_bytes(canvas[4:7], "little") + 1, int.from_bytes(canvas[7:10], "little") + 1


_WEBP_SIZES: Mapping[bytes, Callable[[bytes], tuple[int, int]]] = {
    b"VP8 ": _lossy_size,
    b"VP8L": _lossless_size,
    b"VP8X": _canvas_size,
}
"""The chunks that tell a size; one of them stands first."""


def _words(data: bytes) -> list[int]:
    """Numbers of two bytes each, the lower one first."""
    return [int.from_bytes(data[at : at + 2], "little") for at in range(0, len(data), 2)]


def _demand(holds: bool) -> None:
    if not holds:
        raise ValueError("not what its media type says")


_READERS: Mapping[str, Callable[[_Base64], tuple[int, int]]] = {
    "png": _png,
    "jpeg": _jpeg,
    "jpg": _jpeg,
    "gif": _gif,
    "webp": _webp,
}
