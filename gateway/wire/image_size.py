"""How large an image in a data URL is, by its own header: PNG, JPEG, GIF and WebP.

The size tightens a bound that money is held for. So it is told only where the bytes leave no doubt: what is cut,
contradicts itself or its media type, or is not plain base64 has no size, and its bound stays the general one. A JPEG's
metadata is skipped, not decoded: a few bytes are read of each of its segments, and of so many segments at most.
"""

import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import NamedTuple

SEGMENTS_MAX = 256
"""So many segments of a JPEG, or blocks of a GIF, may stand before the one that tells the size."""


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
    """Bytes behind base64, decoded where they are looked at."""

    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._start = start
        self._end = start

    def read(self, offset: int, length: int) -> bytes:
        """Raises ValueError: it ends before, or is not base64."""
        first, skipped = divmod(offset, 3)
        end = self._start + 4 * -(-(offset + length) // 3)
        found = b64decode(self._text[self._start + 4 * first : end], validate=True)[skipped : skipped + length]
        if len(found) != length:
            raise ValueError("the image ends here")
        self._end = max(self._end, end)
        return found

    def byte(self, offset: int) -> int:
        return self.read(offset, 1)[0]

    def is_plain(self) -> bool:
        """Whether nothing but base64 stands before the end of what was read.

        A decoder that skips other characters would find the bytes elsewhere than where they were looked at.
        """
        return _PLAIN.fullmatch(self._text, self._start, self._end) is not None


_PLAIN = re.compile(r"[A-Za-z0-9+/]*={0,2}")


def _png(data: _Base64) -> tuple[int, int]:
    header = data.read(0, 24)
    _demand(header.startswith(b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"))
    return int.from_bytes(header[16:20]), int.from_bytes(header[20:24])


_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Baseline and progressive among them; the three left out are tables and a reserved code."""

_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xDB), 0xFF})
"""Markers that no segment has, or that end the header (0xDA: here the scan begins)."""


def _jpeg(data: _Base64) -> tuple[int, int]:
    _demand(data.read(0, 2) == b"\xff\xd8")
    offset = 2
    for _ in range(SEGMENTS_MAX):
        mark, code = data.read(offset, 2)
        _demand(mark == 0xFF and code not in _WITHOUT_LENGTH)
        length = int.from_bytes(data.read(offset + 2, 2))
        _demand(length >= 2)
        if code in _START_OF_FRAME:
            frame = data.read(offset + 5, 4)
            return int.from_bytes(frame[2:]), int.from_bytes(frame[:2])
        offset += 2 + length
    raise ValueError("the frame is too far away")


def _gif(data: _Base64) -> tuple[int, int]:
    """The screen, or the first frame where it reaches beyond: readers differ in which they go by."""
    header = data.read(0, 13)
    _demand(header[:6] in (b"GIF87a", b"GIF89a"))
    offset = 13 + _color_table_bytes(header[10])
    for _ in range(SEGMENTS_MAX):
        match data.byte(offset):
            case 0x2C:
                left, top, width, height = _words(data.read(offset + 1, 8))
                screen_width, screen_height = _words(header[6:10])
                return max(screen_width, left + width), max(screen_height, top + height)
            case 0x21:
                offset = _after_extension(data, offset)
            case _:
                break
    raise ValueError("there is no frame")


def _color_table_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _after_extension(data: _Base64, offset: int) -> int:
    offset += 2
    for _ in range(SEGMENTS_MAX):
        length = data.byte(offset)
        offset += 1 + length
        if length == 0:
            return offset
    raise ValueError("the extension is too long")


def _webp(data: _Base64) -> tuple[int, int]:
    header = data.read(0, 30)
    _demand(header[:4] == b"RIFF" and header[8:12] == b"WEBP")
    match header[12:16]:
        case b"VP8 ":
            _demand(header[20] & 1 == 0 and header[23:26] == b"\x9d\x01\x2a")
            width, height = _words(header[26:30])
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L":
            bits = int.from_bytes(header[21:25], "little")
            _demand(header[20] == 0x2F)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return int.from_bytes(header[24:27], "little") + 1, int.from_bytes(header[27:30], "little") + 1
    raise ValueError("no chunk that tells a size")


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
