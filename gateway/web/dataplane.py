"""The table of the data plane: which path is inspected, priced and metered how.

When MiniToolAI documents another endpoint, it is one row here and one price in `config/prices.toml`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from gateway.billing.prices import PriceList
from gateway.wire.call import Call, Endpoint
from gateway.wire.chat import ChatRules, inspect_chat
from gateway.wire.chat_meter import ChatMeter
from gateway.wire.images import SIDES, ImageMeter, ImageRules, inspect_image
from gateway.wire.openai_chat import inspect_openai_chat, openai_presentation
from gateway.wire.openai_images import images_presentation, inspect_images
from gateway.wire.presentation import native_presentation
from gateway.wire.strictjson import JSONObject

IMAGE_ERROR_FIELDS: Mapping[str, object] = MappingProxyType({"status": "error", "jobid": None, "signature": None})

H = TypeVar("H")

OPENAI_CHAT = "/v1/chat/completions"
CHAT = "/api/chat-completions/"
IMAGES = "/api/texttoimage/"
JOBS = "/api/texttoimage/jobs/"
OPENAI_IMAGES = "/v1/images/generations"


def endpoints(chat: ChatRules, images: ImageRules, *, chat_path: str, image_path: str) -> tuple[Endpoint, ...]:
    """The billed endpoints, MiniToolAI's own and OpenAI's in its place; `…_path` are the upstream's."""
    return (
        Endpoint(
            path=CHAT,
            upstream_path=chat_path,
            kind="chat",
            inspect=lambda fields, prices: inspect_chat(fields, chat, prices),
            new_meter=ChatMeter,
            streamed=True,
            present=native_presentation,
        ),
        Endpoint(
            path=OPENAI_CHAT,
            upstream_path=chat_path,
            kind="chat",
            inspect=lambda fields, prices: inspect_openai_chat(fields, chat, prices),
            new_meter=ChatMeter,
            streamed=True,
            present=openai_presentation,
        ),
        Endpoint(
            path=IMAGES,
            upstream_path=image_path,
            kind="image",
            inspect=lambda fields, prices: inspect_image(fields, images, prices),
            new_meter=ImageMeter,
            streamed=False,
            error_fields=IMAGE_ERROR_FIELDS,
        ),
        Endpoint(
            path=OPENAI_IMAGES,
            upstream_path=image_path,
            kind="image",
            inspect=lambda fields, prices: inspect_images(fields, images, prices),
            new_meter=ImageMeter,
            streamed=False,
            present=images_presentation,
        ),
    )


def estimated(endpoints: Iterable[Endpoint]) -> dict[str, Endpoint]:
    """Endpoints whose calls can be estimated, by a field that only their bodies have."""
    by_path = {endpoint.path: endpoint for endpoint in endpoints}
    native, openai = by_path[IMAGES], by_path[OPENAI_IMAGES]

    def inspect(fields: JSONObject, prices: PriceList) -> Call:
        return (openai if fields.keys().isdisjoint(SIDES) else native).inspect(fields, prices)

    # Each is the one whose bodies say the most: what MiniToolAI's own paths take, OpenAI's take as well, all but an
    # image's sides.
    return {"messages": by_path[OPENAI_CHAT], "prompt": replace(openai, inspect=inspect)}


def path_table(handlers: Mapping[str, H]) -> dict[str, H]:
    """Handlers by path, with and without the trailing slash."""
    return {
        spelling: handler
        for path, handler in handlers.items()
        for spelling in (path.removesuffix("/"), path.removesuffix("/") + "/")
    }
