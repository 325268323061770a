"""What an estimate is worth: held against what the same call then used and cost, a thousand times."""

import base64
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.client import send
from tests.e2e.openai_face import Face
from tests.e2e.traffic import CHAT_MODELS

SEED = 20261122
PROMPTS = 1_000
AT_ONCE = 8

WORDS: Mapping[str, str] = {
    "English": "the quick brown fox isn't jumping over 12 lazy dogs, is it? Yes: O'Neill's \"dog\" — it's 3.14!",
    "Vietnamese": "một con cáo nâu nhảy qua hàng rào, rồi đường phố Việt Nam nghiêng mình dưới mưa; được không?",
    "Hebrew": "השועל החום המהיר קופץ מעל הכלב העצלן, וְהַיֶּלֶד שׁוֹאֵל: למה? ב־1948 קמה המדינה.",
    "Chinese": "敏捷 的 棕色 狐狸 跳过 了 懒狗 。 三千 年 历史 、 你 觉得 呢 。 龘 靐 㐀 𠮷",
    "code": "def f(x): return {k: v for k, v in x.items()} // <div class='a'> \t && || != === -> %d\\n #include 0xFF",
    "emoji": "🎉 🚀 👨‍👩‍👧‍👦 👋🏽 🇻🇳 ❤️‍🔥 ☔ 1️⃣ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 <|endoftext|> \u200d \ufe0f",
}
GAPS = (" ", " ", " ", "", "\n", "  ", "\t")


@dataclass(frozen=True)
class Compared:
    """One call and what was said of it before."""

    estimate: Mapping[str, Any]
    usage: Mapping[str, Any]
    request_id: str


def text_of(dice: random.Random) -> str:
    """A text of one kind: its words in any order, or the base64 of any bytes."""
    kind = dice.choice([*WORDS, "base64"])
    if kind == "base64":
        return base64.b64encode(dice.randbytes(dice.randrange(1, 3_000))).decode()
    words = WORDS[kind].split(" ")
    return "".join(dice.choice(words) + dice.choice(GAPS) for _ in range(dice.randrange(1, 200)))


def request_of(dice: random.Random) -> dict[str, Any]:
    """A conversation of one to five messages, some with names, some in parts."""
    messages = [message_of(dice) for _ in range(dice.randrange(1, 6))]
    return {"model": dice.choice(CHAT_MODELS), "messages": messages, "max_tokens": dice.randrange(1, 30)}


def message_of(dice: random.Random) -> dict[str, Any]:
    text = text_of(dice)
    content: object = (
        text if dice.random() < 0.8 else [{"type": "text", "text": part} for part in (text, text_of(dice))]
    )
    name = {"name": dice.choice(["an", "Noam-7", "x" * 64])} if dice.random() < 0.2 else {}
    return {"role": dice.choice(["system", "developer", "user", "assistant"]), "content": content, **name}


@pytest.mark.slow
def test_no_call_uses_or_costs_more_than_was_estimated(face: Face) -> None:
    """And for text the tokens of the prompt are exactly the upstream's, in every script."""
    key, dice = face.key(), random.Random(SEED)  # noqa: S311 - a seed makes it the same each time
    requests = [request_of(dice) for _ in range(PROMPTS)]

    def compare(request: dict[str, Any]) -> Compared:
        estimate = send(face.gateway.url, "/v1/estimate", request, key)
        answer = send(face.gateway.url, "/v1/chat/completions", request, key)
        assert (200, 200) == (estimate.status, answer.status), (estimate.body, answer.body)
        return Compared(estimate.json, answer.json["usage"], answer.request_id)

    with ThreadPoolExecutor(AT_ONCE) as callers:
        calls = list(callers.map(compare, requests))
    cost = {entry["request_id"]: entry["cost_nano_usd"] for entry in face.admin.ledger()}
    assert [call.usage["prompt_tokens"] for call in calls] == [call.estimate["prompt_tokens"] for call in calls]
    assert [] == [
        call
        for call in calls
        if call.usage["completion_tokens"] > call.estimate["completion_tokens_max"]
        or cost[call.request_id] > call.estimate["most_cost_nano_usd"]
        or not call.estimate["admitted"]
    ]
