"""What tests do with an emulator, over a real socket."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx

KEY = "sk-test-secret"
BALANCE_NANO_USD = 1_000_000_000


class Emulator:
    """What tests do with an emulator: `client` has the right key, `stranger` has none."""

    def __init__(self, client: httpx.Client, stranger: httpx.Client) -> None:
        self.client = client
        self.stranger = stranger

    def url(self, path: str) -> str:
        return str(self.client.base_url.join(path))

    def chat(self, fault: str | None = None, text: str = "Hello", **fields: Any) -> httpx.Response:
        return self.client.post("/api/chat-completions/", json=chat_body(text, **fields), headers=fault_header(fault))

    def image(self, fault: str | None = None, **fields: Any) -> httpx.Response:
        body = {"model": "realvision", "prompt": "A lake at dawn", **fields}
        return self.client.post("/api/texttoimage/", json=body, headers=fault_header(fault))

    def poll(self, submitted: dict[str, Any]) -> dict[str, Any]:
        """Poll the way the documentation does: without Authorization, the jobid as a string."""
        body = {"jobid": str(submitted["jobid"]), "signature": submitted["signature"]}
        answer: dict[str, Any] = self.stranger.post("/api/texttoimage/jobs/", json=body).json()
        return answer

    def bill(self) -> dict[str, Any]:
        """The bill once no call is running."""
        bill: dict[str, Any] = self.client.get("/__bill", params={"at_rest": 1}).json()
        return bill

    def line(self) -> dict[str, Any]:
        """The bill's last line."""
        line: dict[str, Any] = self.bill()["lines"][-1]
        return line


@contextlib.contextmanager
def connected(url: str) -> Iterator[Emulator]:
    """A driver of the emulator at `url`, with the right key."""
    with (
        httpx.Client(base_url=url, headers={"authorization": f"Bearer {KEY}"}, timeout=20) as client,
        httpx.Client(base_url=url, timeout=20) as stranger,
    ):
        yield Emulator(client, stranger)


def chat_body(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    messages = [{"role": "developer", "content": "You help."}, {"role": "user", "content": text}]
    return {"model": "gpt-4o-mini", "messages": messages, **fields}


def fault_header(fault: str | None) -> dict[str, str]:
    return {} if fault is None else {"x-emulator-fault": fault}


def events(response: httpx.Response) -> list[Any]:
    """The JSON of each event of a well-formed answer, without the closing [DONE]."""
    *data, done, rest = response.text.split("\n\n")
    assert "data: [DONE]" == done
    assert rest == ""
    return [json.loads(event.removeprefix("data: ")) for event in data]


def content(response: httpx.Response, index: int = 0) -> str:
    """The text of one choice."""
    choices = [choice for event in events(response) for choice in event["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content", "") for choice in choices)
