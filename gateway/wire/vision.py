"""Images in a chat: the most tokens that one can count as, by OpenAI's published vision rules.

A model counts an image in tiles or in patches; at low detail the tiles do not matter (`config/prices.toml` has the
numbers). Where the image comes along as a data URL, its size is read from its own header and tightens the bound.
A URL is never fetched: its image may be as large as the model takes.
"""

import re

from gateway.billing.errors import InvalidRequest
from gateway.billing.prices import ModelPrice
from gateway.wire.fields import choice_of, object_of, refuse_unknown, string_of
from gateway.wire.image_size import ImageSize, size_of
from gateway.wire.strictjson import JSON

DETAILS = ("auto", "high", "low")
PATCHES_MAX = 1536
"""A larger image is shrunk until it has no more."""
IMAGES_SIZED_MAX = 32
"""Reading a size made to be slow to read takes a millisecond, and the calls on this loop wait meanwhile."""


class ImageBounds:
    """Bounds the images of one call. The first `IMAGES_SIZED_MAX` with their data in the request are looked into."""

    def __init__(self, price: ModelPrice) -> None:
        self._price = price
        self._left = IMAGES_SIZED_MAX if price.image_tile_tokens or price.image_patch_percent else 0

    def tokens_max(self, value: JSON, where: str) -> int:
        """Check an `image_url` part and bound its tokens; `auto` may turn out to be high.

        Raises InvalidRequest and UnsupportedParameter (400), `param` names the field.
        """
        image = object_of(value, where)
        refuse_unknown(image, {"url", "detail"}, f"{where}.")
        url = string_of(image.get("url"), f"{where}.url")
        found = _IMAGE_URL.match(url)
        if found is None:
            raise InvalidRequest(
                f"{where}.url must begin with http://, https:// or data:image/…;base64, "
                "with jpeg, jpg, png, webp or gif.",
                param=f"{where}.url",
            )
        is_low = choice_of(image.get("detail", "auto"), f"{where}.detail", DETAILS) == "low"
        price = self._price
        most = price.image_tokens_low if is_low else price.image_tokens_high
        media_type = found["media_type"]
        if media_type is None or not self._left:
            return most
        self._left -= 1
        size = size_of(media_type.lower(), url, found.end())
        return most if size is None else min(most, tokens_at_low(size, price) if is_low else tokens_of(size, price))


def tokens_at_low(size: ImageSize, price: ModelPrice) -> int:
    """The most tokens an image of this size counts as at low detail, by a price that names one of the two rules.

    In patches nothing is published about it: the image may count as it is, or as it is once it has `_LOW_DETAIL_SIZE`.
    """
    if price.image_tile_tokens:
        return price.image_tokens_low
    return max(tokens_of(size, price), tokens_of(_LOW_DETAIL_SIZE, price))


_LOW_DETAIL_SIZE = ImageSize(512, 512)


def tokens_of(size: ImageSize, price: ModelPrice) -> int:
    """The most tokens an image of this size counts as at high detail, by a price that names one of the two rules."""
    if price.image_tile_tokens:
        return price.image_tokens_low + price.image_tile_tokens * _tiles_max(size)
    patches = min(PATCHES_MAX, -(-size.width // 32) * -(-size.height // 32))
    return -(-patches * price.image_patch_percent // 100)


_IMAGE_URL = re.compile(r"https?://[^\s/]|data:image/(?P<media_type>jpeg|jpg|png|webp|gif);base64,(?=.)", re.IGNORECASE)


def _tiles_max(size: ImageSize) -> int:
    """How many squares of 512 pixels cover it once its shorter side has 768, which is two of them.

    Before, a large image is shrunk into 2048 × 2048, which does not change its proportions. Whether a small one
    is enlarged is published both ways; not enlarged it has fewer tiles.
    """
    short, long = sorted(size)
    return 2 * -(-3 * long // (2 * short))
