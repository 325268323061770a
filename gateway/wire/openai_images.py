"""Images as OpenAI's clients ask for them: one call is `n` jobs of MiniToolAI's, and its answer has their pictures.

`inspect_images` reads the request; `Picture` is what became of each image, in the order they were asked for; and
`images_answer` shows them all.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.billing.errors import InvalidRequest
from gateway.billing.money import format_usd
from gateway.billing.prices import PriceList
from gateway.billing.usage import Usage
from gateway.wire.call import Call
from gateway.wire.fields import choice_of, integer_of, refuse_unknown, string_of
from gateway.wire.images import ImageRules, inspect_image
from gateway.wire.presentation import Presentation, usage_with_cost
from gateway.wire.strictjson import JSON, JSONObject

IMAGES_MAX = 10
RESPONSE_FORMATS = ("url", "b64_json")

_FORWARDED = ("model", "prompt", "negativePrompt", "scheduler", "steps", "cfgScale")
_FIELDS = frozenset({*_FORWARDED, "n", "size", "response_format", "user"})
_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")


def inspect_images(fields: JSONObject, rules: ImageRules, prices: PriceList) -> Call:
    """Validate a request for 1 to 10 images of one model. The call's body is a submission of one of them.

    A member whose value is null is as absent. Raises as `inspect_image`.
    """
    given: JSONObject = {name: value for name, value in fields.items() if value is not None}
    refuse_unknown(given, _FIELDS)
    bound = Usage(units=_count(given))
    string_of(given.get("user", ""), "user")
    submission = {name: given[name] for name in _FORWARDED if name in given} | _sides(given.get("size"), rules)
    return inspect_image(submission, rules, prices)._replace(bound=bound, usage_max=bound)


def images_presentation(fields: JSONObject, *, with_cost: bool) -> Presentation:
    """By URL or as base64, and how many: that is in no submission. Raises InvalidRequest."""
    given = fields.get("response_format")
    wanted = "url" if given is None else choice_of(given, "response_format", RESPONSE_FORMATS)
    return Presentation(cost_in_usage=with_cost, images=_count(fields), in_base64=wanted == "b64_json")


def _count(fields: JSONObject) -> int:
    count = fields.get("n")
    return 1 if count is None else integer_of(count, "n", 1, IMAGES_MAX)


def _sides(size: JSON, rules: ImageRules) -> JSONObject:
    """Width and height of "WxH"; nothing where MiniToolAI is to choose."""
    if size is None or size == "auto":
        return {}
    least, most = rules.side_pixels_min, rules.side_pixels_max
    sides = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if sides is None or not all(least <= int(side) <= most for side in sides.groups()):
        raise InvalidRequest(
            f'size must be "auto", or width and height from {least} to {most}, such as "1024x768".', param="size"
        )
    width, height = map(int, sides.groups())
    return {"width": width, "height": height}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no picture, or not as it was asked for."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Picture:
    """What became of one image: where it is (`url`), or what it is (`base64`), or neither. `failure` may stand beside
    a url: that could not be fetched.

    `charged_nano_usd` is what its submission was charged, `refunded_nano_usd` what of it came back.
    """

    index: int
    url: str = ""
    base64: str = ""
    failure: Failure | None = None
    charged_nano_usd: int = 0
    refunded_nano_usd: int = 0


def images_answer(
    request_id: str, created_s: int, pictures: Sequence[Picture], cost_nano_usd: int | None = None
) -> dict[str, object]:
    """OpenAI's shape, with the call's id; "failed" stands there only where something did, the cost where it is told."""
    failed = failed_images(pictures)
    return {
        "id": request_id,
        "created": created_s,
        "data": [_shown(picture) for picture in pictures if picture.url or picture.base64],
        **({"failed": failed} if failed else {}),
        **({} if cost_nano_usd is None else {"usage": usage_with_cost({}, cost_nano_usd)}),
    }


def failed_images(pictures: Sequence[Picture]) -> list[dict[str, object]]:
    """Each image that is missing, or not as it was asked for, by its place in the request, and what it cost."""
    return [
        {
            "index": picture.index,
            "code": picture.failure.code,
            "message": picture.failure.message,
            "cost_usd": format_usd(picture.charged_nano_usd - picture.refunded_nano_usd),
            "refunded_usd": format_usd(picture.refunded_nano_usd),
        }
        for picture in pictures
        if picture.failure is not None
    ]


def _shown(picture: Picture) -> dict[str, object]:
    return {"b64_json": picture.base64} if picture.base64 else {"url": picture.url}
