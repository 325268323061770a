"""A gateway as clients of OpenAI's API meet it, and what the tests of those clients ask of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
from openai.types.chat import ChatCompletionChunk

from tests.stack import Admin, Process, Stack

MODEL = "gpt-4o-mini"
NOTHING_KEPT = httpx2.Limits(max_keepalive_connections=0)
"""So that nobody has to close a client: none of its connections outlives its call."""


@dataclass(frozen=True)
class Face:
    """One gateway and its administrator, on one stack."""

    stack: Stack
    gateway: Process
    admin: Admin

    @property
    def base_url(self) -> str:
        return f"{self.gateway.url}/v1"

    def key(self, **settings: Any) -> str:
        """A new sub-key of the team these clients are in."""
        return str(self.admin.key("clients", **settings)["key"])

    def client(
        self, key: str | None = None, *, heard: Callable[[int], None] | None = None, **options: Any
    ) -> openai.OpenAI:
        """The official client, but for URL and key as its users have it.

        `heard` is told the status of each answer it gets, those that it retries included.
        """
        hooks = [] if heard is None else [lambda response: heard(response.status_code)]
        http = openai.DefaultHttpxClient(limits=NOTHING_KEPT, event_hooks={"response": hooks})
        return openai.OpenAI(base_url=self.base_url, api_key=key or self.key(), http_client=http, **options)

    def calls_upstream(self, prompt: str) -> int:
        """How often the emulator was asked this; `prompt` must need no escape in JSON."""
        requests = self.stack.emulator.get("/__requests").json()["requests"]
        return sum(prompt in request["body"] for request in requests)

    def last_bill(self) -> tuple[int, int]:
        """Prompt and completion tokens of the call that the emulator billed last."""
        claimed = self.stack.bill()["lines"][-1]["claimed"]
        return claimed["prompt_tokens"], claimed["completion_tokens"]

    def last_charge(self) -> dict[str, Any]:
        """The ledger's newest entry."""
        return self.admin.ledger()[-1]


def text_of(chunks: Sequence[ChatCompletionChunk]) -> str:
    """What a stream said, in its first choice."""
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices if choice.index == 0)


def asking(content: object) -> Any:
    """The messages of a request that asks this, a text or parts; `[[fault:…]]` in it asks the emulator for a fault."""
    return [{"role": "user", "content": content}]
