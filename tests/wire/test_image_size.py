"""An image's size, read from its header: right, or not told at all."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.image_size import BLOCKS_MAX, SEGMENTS_MAX, size_of
from tests import pictures
from tests.pictures import (
    FORMATS,
    SIDE_MAX,
    chunk,
    data_url,
    frame_header,
    gif_frame,
    ihdr,
    riff_chunk,
    segment,
    vp8,
    vp8l,
    vp8x,
    webp,
)

sides = st.integers(1, SIDE_MAX)


def read(media_type: str, picture: bytes) -> tuple[int, int] | None:
    return read_url(media_type, data_url(media_type, picture))


def read_url(media_type: str, url: str) -> tuple[int, int] | None:
    return size_of(media_type, url, url.index(",") + 1)


@given(name=st.sampled_from(sorted(FORMATS)), width=sides, height=sides)
def test_every_format_tells_its_size(name: str, width: int, height: int) -> None:
    """Progressive JPEG and those with a camera's EXIF before the frame as well."""
    media_type, draw = FORMATS[name]
    assert (width, height) == read(media_type, draw(width, height))


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_header_that_breaks_off_tells_nothing(name: str) -> None:
    """At every byte before its end, where the size is sure at the latest a few bytes before."""
    media_type, draw = FORMATS[name]
    picture = draw(640, 480)
    lengths = range(max(0, len(picture) - 90), len(picture))
    found = [read(media_type, picture[:length]) for length in lengths]
    assert {None, (640, 480)} >= set(found)
    assert found == sorted(found, key=lambda size: size is not None)
    assert found[0] is None


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_what_contradicts_its_media_type_tells_nothing(name: str) -> None:
    """One reader may go by the bytes and another by the type."""
    media_type, draw = FORMATS[name]
    alike = {"jpg", "jpeg"} if media_type in ("jpg", "jpeg") else {media_type}
    others = {"png", "jpeg", "jpg", "gif", "webp"} - alike
    assert {None} == {read(other, draw(640, 480)) for other in others}


@pytest.mark.parametrize(
    "picture",
    [
        pictures.png(0, 480),
        pictures.png(640, 0),
        pictures.png(640, 480).replace(b"IHDR", b"CgBI"),
        pictures.jpeg(640, 0),  # the number of lines comes later, in a segment of its own
        pictures.gif(0, 480),
        b"",
        b"\xff\xd8",
    ],
)
def test_no_size_is_told_where_there_is_none(picture: bytes) -> None:
    """Neither is zero one."""
    assert {None} == {read(media_type, picture) for media_type in ("png", "jpeg", "gif", "webp")}


@pytest.mark.parametrize(
    "before",
    [
        b"\x00",
        b"\xff",
        b"\xff\xd8",
        b"\xff\xd9",
        b"\xff\xda\x00\x04\x00\x00",
        b"\xff\xe1\x00\x01",
        b"\xff\xe1\xff\xff",
        segment(0xFE, b"") * SEGMENTS_MAX,
    ],
)
def test_a_jpeg_that_is_not_plain_segments_tells_nothing(before: bytes) -> None:
    """Bytes between segments, a scan or an end before the frame, a length that cannot be, segments without end."""
    assert read("jpeg", pictures.jpeg(640, 480, before=before)) is None


def test_tables_before_the_frame_are_no_frame() -> None:
    """Their markers lie in the same range."""
    before = b"".join(segment(marker, bytes(40)) for marker in (0xC4, 0xCC, 0xDB, 0xE0, 0xE2, 0xEE, 0xFE))
    assert (640, 480) == read("jpeg", pictures.jpeg(640, 480, before=before))


def two_sizes(name: str, first: tuple[int, int], second: tuple[int, int]) -> tuple[str, bytes]:
    """The media type and the bytes of a picture that names one size and then another."""
    match name:
        case "png":
            return "png", pictures.png(*first, before=ihdr(*second))
        case "jpeg":
            return "jpeg", pictures.jpeg(*first, behind=frame_header(*second, 0xC2))
        case "gif":
            return "gif", pictures.gif(*first, behind=gif_frame(*second))
        case "webp, canvas and image":
            return "webp", webp(vp8x(*first), vp8(*second))
        case "webp, image and canvas":
            return "webp", webp(vp8l(*first), vp8x(*second))
        case _:
            return "webp", webp(vp8(*first), vp8l(*second))


CONTRADICTING = ["png", "jpeg", "gif", "webp, canvas and image", "webp, image and canvas", "webp, two images"]


@given(name=st.sampled_from(CONTRADICTING), first=st.tuples(sides, sides), second=st.tuples(sides, sides))
def test_of_two_sizes_none_is_told_that_is_below_either(
    name: str, first: tuple[int, int], second: tuple[int, int]
) -> None:
    """Which of the two its reader goes by is not known: what counts as a wall must not be held for as a dot."""
    width, height = read(*two_sizes(name, first, second)) or (SIDE_MAX, SIDE_MAX)
    assert max(first[0], second[0]) <= width
    assert max(first[1], second[1]) <= height


def test_two_sizes_of_a_png_or_a_jpeg_are_none() -> None:
    """Even where both agree, and whatever stands between them."""
    text = chunk(b"tEXt", b"a comment")
    assert (640, 480) == read("png", pictures.png(640, 480, before=text))
    assert read("png", pictures.png(640, 480, before=text + ihdr(640, 480))) is None
    assert (640, 480) == read("jpeg", pictures.jpeg(640, 480, behind=segment(0xC4, bytes(40))))
    assert read("jpeg", pictures.jpeg(640, 480, behind=segment(0xE0, b"") + frame_header(640, 480))) is None


def test_a_png_whose_pixels_are_far_away_tells_nothing() -> None:
    """Chunk by chunk costs time, so there is a bound to it."""
    assert (8, 8) == read("png", pictures.png(8, 8, before=chunk(b"tEXt", b"") * (SEGMENTS_MAX - 1)))
    assert read("png", pictures.png(8, 8, before=chunk(b"tEXt", b"") * SEGMENTS_MAX)) is None


@pytest.mark.parametrize("code", [0xDC, 0xDE, 0xDF])
def test_a_jpeg_that_changes_its_size_tells_nothing(code: int) -> None:
    """Its number of lines is redefined, or its frames build on each other."""
    assert read("jpeg", pictures.jpeg(640, 480, behind=segment(code, bytes(2)))) is None


def test_a_gif_is_as_large_as_its_screen_or_its_frames() -> None:
    """Some readers go by the one, some by the others; the largest bounds them all."""
    assert (640, 500) == read("gif", pictures.gif(640, 480, screen=(10, 500)))
    assert (800, 480) == read("gif", pictures.gif(640, 480, screen=(800, 10)))
    behind = gif_frame(100, 900) + gif_frame(2, 2, left=998)
    assert (1_000, 900) == read("gif", pictures.gif(1, 1, behind=behind))


def test_a_gifs_colors_and_extensions_are_skipped() -> None:
    """As a usual GIF has them; without end they tell nothing."""
    control = b"\x21\xf9\x04\x00\x00\x00\x00\x00"
    comment = b"\x21\xfe\xff" + bytes(255) + b"\x02ok\x00"
    assert (640, 480) == read("gif", pictures.gif(640, 480, colors=8, before=control + comment))
    assert read("gif", pictures.gif(640, 480, before=control * BLOCKS_MAX)) is None
    assert read("gif", pictures.gif(640, 480, before=b"\x21\xfe" + b"\x01." * BLOCKS_MAX + b"\x00")) is None
    assert read("gif", pictures.gif(640, 480)[:-1]) is None
    assert read("gif", pictures.gif(640, 480)[:-1] + b"\x00\x3b") is None


def test_a_gif_of_many_blocks_tells_nothing() -> None:
    """Where its last frame ends is too far away to be looked for."""
    assert read("gif", pictures.gif(640, 480, behind=gif_frame(1, 1, pixels=b"\x01." * BLOCKS_MAX + b"\x00"))) is None


@pytest.mark.parametrize(
    "picture",
    [
        pictures.webp_lossy(640, 480).replace(b"\x10\x00\x00\x9d", b"\x11\x00\x00\x9d"),
        webp(riff_chunk(b"ALPH", bytes(20)), vp8(640, 480)),
        webp(vp8x(640, 480)),
        webp(vp8x(640, 480), riff_chunk(b"ANMF", bytes(40)), vp8(640, 480)),
        webp(vp8(640, 480), vp8(640, 480)),
        webp(vp8(640, 480), riff_chunk(b"EXIF", b"") * SEGMENTS_MAX),
        webp(),
    ],
)
def test_a_webp_of_no_or_several_images_tells_nothing(picture: bytes) -> None:
    """A frame that builds on another has no size of its own; nor has a canvas without an image."""
    assert read("webp", picture) is None


@pytest.mark.parametrize("odd", ["\n", " ", "=", "-", "%2B", "é", "\u2028"])
def test_base64_that_readers_may_read_differently_tells_nothing(odd: str) -> None:
    """One that skips the odd character finds another size than one that does not, wherever it stands."""
    picture = pictures.jpeg(640, 480, before=segment(0xE1, bytes(3_000)))
    text = base64.b64encode(picture).decode()
    for at in (1, 8, 2_000, len(text) - 48):
        url = f"data:image/jpeg;base64,{text[:at]}{odd}{text[at + len(odd) :]}"
        assert read_url("jpeg", url) is None


def test_a_pngs_pixels_do_not_matter() -> None:
    """They are not looked at: reading a size costs the same for a thumbnail and for megabytes."""
    url = data_url("png", pictures.png(640, 480) + bytes(100)) + "!" * 1_000_000
    assert (640, 480) == read_url("png", url)
