"""Images in a chat: held for by their size, and charged exactly."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.client import CHAT, Answer, send
from tests.pictures import FORMATS, data_url, gif, png
from tests.stack import Admin, Process, Stack

MODELS = ("gpt-4o-mini", "gpt-4o", "gpt-4.1-nano")
SIZES = ((8, 8), (640, 480), (3000, 700))


@dataclass(frozen=True)
class Seeing:
    """A gateway and its administrator."""

    stack: Stack
    gateway: Process
    admin: Admin

    def ask(self, url: str, key: str, model: str = "gpt-4o-mini") -> Answer:
        return send(self.gateway.url, CHAT, question(url, model), key)


def question(url: str, model: str) -> dict[str, Any]:
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    return {"model": model, "messages": [{"role": "user", "content": parts}], "max_completion_tokens": 5}


@pytest.fixture(scope="module")
def seeing(stack: Stack) -> Iterator[Seeing]:
    gateway = stack.gateway()
    admin = Admin(gateway.url)
    yield Seeing(stack, gateway, admin)
    admin.http.close()


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_is_charged_what_it_counts_as(seeing: Seeing, name: str) -> None:
    """The hold covers it, so no charge is an overrun; the bill reads and counts the picture on its own."""
    key = seeing.admin.key("eyes", name=name)["key"]
    media_type, draw = FORMATS[name]
    for model in MODELS:
        for width, height in SIZES:
            answer = seeing.ask(data_url(media_type, draw(width, height)), key, model)
            assert 200 == answer.status, answer.body
            (entry,) = seeing.admin.ledger(request_id=answer.request_id)
            (line,) = [one for one in seeing.stack.bill()["lines"] if one["request_id"] == answer.request_id]
            assert (line["claimed_nano_usd"], []) == (entry["cost_nano_usd"], entry["flags"])


def test_a_small_image_fits_where_one_of_unknown_size_does_not(seeing: Seeing) -> None:
    """Four tiles at most are $0.0038; what may be eight are $0.0072, and so is a picture that cannot be read."""
    budget = [{"window": "total", "limit_usd": "0.005"}]
    answers = [
        seeing.ask(url, seeing.admin.key("frugal", budgets=budget)["key"])
        for url in (
            data_url("png", png(64, 64)),
            data_url("png", png(64, 640)),
            data_url("png", gif(64, 64)),
            "https://example.com/small.png",
        )
    ]
    assert [200, 402, 402, 402] == [answer.status for answer in answers]
