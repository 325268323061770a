"""Image jobs: charged when accepted, pending, then a real picture or a voided line."""

from __future__ import annotations

import struct
import zlib

import httpx
import pytest

from gateway.emulator import png
from gateway.emulator.options import EmulatorOptions
from gateway.emulator.server import running
from tests.emulator.driver import BALANCE_NANO_USD, KEY, Emulator, connected

IMAGE_NANO_USD = 1_500_000
PENDING = {"status": "processing", "image_url": None, "message": "processing"}


def test_a_job_pends_and_then_serves_its_picture(emulator: Emulator) -> None:
    """The documented answers, and a URL that can be fetched."""
    submitted = emulator.image(width=300, height=256).json()
    assert ["status", "jobid", "signature"] == list(submitted)
    assert ("success", int) == (submitted["status"], type(submitted["jobid"]))
    assert PENDING == emulator.poll(submitted)
    url = emulator.url(f"/images/{submitted['jobid']}.png")
    assert 404 == emulator.stranger.get(url).status_code
    assert {"status": "success", "image_url": url, "message": "success"} == emulator.poll(submitted)
    picture = emulator.stranger.get(url)
    assert "image/png" == picture.headers["content-type"]
    assert (300, 256) == png_size_checked(picture.content)


@pytest.mark.parametrize(("width", "height"), [(256, 256), (1_344, 768), (300, 1_344)])
def test_the_picture_is_a_valid_png(width: int, height: int) -> None:
    """Signature, checksums, header and the length of the rows, read by hand."""
    assert (width, height) == png_size_checked(png.draw(width, height, b"digest"))
    assert png.draw(width, height, b"digest") != png.draw(width, height, b"other")


def test_an_image_costs_its_price_when_accepted(emulator: Emulator) -> None:
    """Not when it is polled, and once."""
    submitted = emulator.image().json()
    for _ in range(3):
        emulator.poll(submitted)
    line = emulator.line()
    assert ("image", "realvision", submitted["jobid"]) == (line["kind"], line["model"], line["jobid"])
    assert (IMAGE_NANO_USD, IMAGE_NANO_USD) == (line["generated_nano_usd"], line["claimed_nano_usd"])
    assert BALANCE_NANO_USD - IMAGE_NANO_USD == emulator.bill()["balance_nano_usd"]


def test_a_failed_job_is_not_billed(emulator: Emulator) -> None:
    """Charged until the failure is reported, then voided, once."""
    submitted = emulator.image("job_fails").json()
    assert PENDING == emulator.poll(submitted)
    assert IMAGE_NANO_USD == emulator.line()["generated_nano_usd"]
    assert ["error", "error"] == [emulator.poll(submitted)["status"] for _ in range(2)]
    assert (True, 0) == (emulator.line()["voided"], emulator.line()["generated_nano_usd"])
    assert BALANCE_NANO_USD == emulator.bill()["balance_nano_usd"]


@pytest.mark.parametrize(
    ("fault", "states"),
    [
        ("job_pending=0", ["success", "success"]),
        ("job_pending=2", ["processing", "processing", "success"]),
        ("job_pending=0;job_fails", ["error", "error"]),
        ("job_never", ["processing"] * 10),
    ],
)
def test_how_long_a_job_pends_can_be_asked_for(emulator: Emulator, fault: str, states: list[str]) -> None:
    """Counted in polls, so that tests need no clock."""
    submitted = emulator.image(fault).json()
    assert states == [emulator.poll(submitted)["status"] for _ in states]


def test_a_submission_can_fail(emulator: Emulator) -> None:
    """The documented error, and nothing billed."""
    assert {"status": "error", "jobid": None, "signature": None} == emulator.image("no_job").json()
    assert (0, None) == (emulator.line()["generated_nano_usd"], emulator.line()["jobid"])


def test_an_unknown_pair_is_an_error(emulator: Emulator) -> None:
    """Neither a wrong number nor another job's signature."""
    first, second = emulator.image().json(), emulator.image().json()
    for pair in (
        {**first, "signature": second["signature"]},
        {"jobid": "x", "signature": ""},
        {**first, "jobid": 1},
    ):
        assert "error" == emulator.poll(pair)["status"]


def test_errors_have_the_documented_members(emulator: Emulator) -> None:
    """A bad field and a bad key, in the image paths' own shape."""
    bad_field = emulator.image(steps=9)
    bad_key = emulator.stranger.post("/api/texttoimage/", json={})
    for answer, status in ((bad_field, 400), (bad_key, 401)):
        assert status == answer.status_code
        assert {"status": "error", "jobid": None, "signature": None}.items() <= answer.json().items()
    assert "steps" in bad_field.json()["message"]


def test_a_job_can_pend_for_a_time() -> None:
    """Seconds instead of polls; an hour is never over within a test."""
    options = EmulatorOptions(keys=(KEY,), job_pending_polls=0, job_pending_s=3_600)
    with running(options) as url, connected(url) as emulator:
        submitted = emulator.image().json()
        assert [PENDING] * 3 == [emulator.poll(submitted) for _ in range(3)]


@pytest.mark.parametrize("fault", ["split=5", "gzip", "withhold_after=5"])
def test_the_bytes_of_a_submission_can_be_shaped_too(emulator: Emulator, fault: str) -> None:
    """The faults of delivery are those of chat."""
    assert "success" == emulator.image(fault).json()["status"]


@pytest.mark.parametrize("fault", ["reset_at=0", "reset_byte=20"])
def test_a_submission_can_break_in_the_middle(emulator: Emulator, fault: str) -> None:
    """The job runs and is billed, though its number never arrived."""
    with pytest.raises(httpx.RemoteProtocolError):
        emulator.image(fault)
    assert (IMAGE_NANO_USD, False) == (emulator.line()["generated_nano_usd"], emulator.line()["finished"])


def png_size_checked(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG whose every part was checked."""
    assert b"\x89PNG\r\n\x1a\n" == data[:8]
    chunks = {}
    position = 8
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        name, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        assert struct.pack(">I", zlib.crc32(name + body)) == data[position + 8 + length : position + 12 + length]
        chunks[name] = body
        position += 12 + length
    assert [b"IHDR", b"PLTE", b"IDAT", b"IEND"] == list(chunks)
    width, height, depth, colour_type = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    rows = zlib.decompress(chunks[b"IDAT"])
    assert (8, 3, height * (width + 1)) == (depth, colour_type, len(rows))
    assert max(rows) < len(chunks[b"PLTE"]) // 3
    return width, height
