#!/usr/bin/env python3
"""Ask one question and print the answer as it is written. Needs nothing but Python.

GATEWAY_URL=http://127.0.0.1:8080 GATEWAY_KEY=sk-… python3 chat.py "What is a ledger?"
"""

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from typing import Any


def main() -> int:
    question = " ".join(sys.argv[1:]) or "What's the largest U.S. state by area?"
    request = urllib.request.Request(
        os.environ.get("GATEWAY_URL", "http://127.0.0.1:8080") + "/api/chat-completions/",
        data=json.dumps(
            {
                "model": "gpt-4o-mini",
                "messages": [{"role": "user", "content": question}],
                "max_completion_tokens": 300,
            }
        ).encode(),
        headers={
            "Content-Type": "application/json",
            "Authorization": f"Bearer {os.environ['GATEWAY_KEY']}",
        },
    )
    try:
        with urllib.request.urlopen(request) as response:
            for chunk in events(response):
                if chunk.get("error"):
                    return fail(chunk["error"]["message"])
                for choice in chunk["choices"]:
                    print(choice["delta"].get("content") or "", end="", flush=True)
                if chunk.get("usage"):
                    print(f"\n({chunk['usage']['total_tokens']} tokens)")
    except urllib.error.HTTPError as refusal:
        return fail(f"{refusal.code}: {refusal.read().decode()}")
    return 0


def events(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Each server-sent event's JSON, up to `[DONE]`."""
    for line in lines:
        data = line.strip().removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return
        if line.startswith(b"data:"):
            yield json.loads(data)


def fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
