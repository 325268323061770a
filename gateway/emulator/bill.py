"""The bill: one line a call, what it claimed beside what it truly generated, and the prepaid balance.

The laws:
    balance = opening balance - sum of `generated_nano_usd` over all lines, at any moment
    held    = the cost that admitted calls have not yet generated; no call is admitted beyond balance - held
    a failed image job's line is voided: its cost goes back to the balance, once
Amounts are integer nano-USD.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from dataclasses import dataclass
from typing import Any

from gateway.emulator.answers import Usage
from gateway.emulator.prices import IMAGE_NANO_USD, chat_nano_usd

LINES_MAX = 100_000


@dataclass(slots=True)
class Line:
    """One call that was admitted. `claimed` is the last usage it sent, None when it sent none."""

    n: int
    kind: str
    model: str
    request_id: str | None
    fault: str | None
    held_nano_usd: int
    claimed: Usage | None = None
    claimed_nano_usd: int | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    generated_nano_usd: int = 0
    finished: bool = False
    sent_bytes: int = 0
    client_left: bool = False
    jobid: int | None = None
    voided: bool = False

    def as_json(self) -> dict[str, Any]:
        line = dataclasses.asdict(self)
        del line["held_nano_usd"]
        line["generated"] = {name: line.pop(name) for name in ("prompt_tokens", "completion_tokens")}
        return line


class Bill:
    """What one account used since the start or the last reset; the last `LINES_MAX` lines are kept.

    `running` calls are open; `changed` is set whenever one is closed.
    """

    def __init__(self, opening_balance_nano_usd: int) -> None:
        self.opening_balance_nano_usd = opening_balance_nano_usd
        self.generated_nano_usd = 0
        self.held_nano_usd = 0
        self.calls = 0
        self.running = 0
        self.changed = asyncio.Event()
        self.lines: deque[Line] = deque(maxlen=LINES_MAX)

    @property
    def balance_nano_usd(self) -> int:
        return self.opening_balance_nano_usd - self.generated_nano_usd

    def open(self, kind: str, model: str, cost_nano_usd: int, request_id: str | None, fault: str | None) -> Line | None:
        """A line for a call of this cost, or None when balance and running calls leave no room for it."""
        if cost_nano_usd > self.balance_nano_usd - self.held_nano_usd:
            return None
        self.calls += 1
        self.running += 1
        line = Line(self.calls, kind, model, request_id, fault, cost_nano_usd)
        self.held_nano_usd += cost_nano_usd
        self.lines.append(line)
        return line

    def generate(self, line: Line, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        """Charge tokens at the moment they are generated."""
        line.prompt_tokens += prompt_tokens
        line.completion_tokens += completion_tokens
        self._charge(line, chat_nano_usd(line.model, prompt_tokens, completion_tokens))

    def generate_image(self, line: Line, jobid: int) -> None:
        """Charge an image when its job is accepted."""
        line.jobid = jobid
        line.claimed_nano_usd = IMAGE_NANO_USD
        self._charge(line, IMAGE_NANO_USD)

    def claim(self, line: Line, usage: Usage) -> None:
        """Note the usage that was sent; what cannot be priced has no amount."""
        line.claimed = usage
        prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
        priceable = all(type(tokens) is int and tokens >= 0 for tokens in (prompt, completion))
        line.claimed_nano_usd = chat_nano_usd(line.model, prompt, completion) if priceable else None

    def void(self, line: Line) -> None:
        """Give a failed image back, once."""
        if not line.voided:
            self.generated_nano_usd -= line.generated_nano_usd
            line.generated_nano_usd = line.claimed_nano_usd = 0
            line.voided = True

    def close(self, line: Line) -> None:
        """The call is over: what it has not generated is free for others."""
        self.held_nano_usd -= line.held_nano_usd
        line.held_nano_usd = 0
        self.running -= 1
        self.changed.set()
        self.changed = asyncio.Event()

    def as_json(self) -> dict[str, Any]:
        """Balance, lines and totals; of the totals only calls and generated_nano_usd count dropped lines."""
        return {
            "opening_balance_nano_usd": self.opening_balance_nano_usd,
            "balance_nano_usd": self.balance_nano_usd,
            "held_nano_usd": self.held_nano_usd,
            "running": self.running,
            "lines": [line.as_json() for line in self.lines],
            "lines_dropped": self.calls - len(self.lines),
            "totals": {"calls": self.calls, "generated_nano_usd": self.generated_nano_usd, **self._sums()},
        }

    def _sums(self) -> dict[str, int]:
        """Sums over the lines that are kept."""
        return {
            "claimed_nano_usd": sum(line.claimed_nano_usd or 0 for line in self.lines),
            "prompt_tokens": sum(line.prompt_tokens for line in self.lines),
            "completion_tokens": sum(line.completion_tokens for line in self.lines),
            "images": sum(line.jobid is not None and not line.voided for line in self.lines),
        }

    def _charge(self, line: Line, cost_nano_usd: int) -> None:
        line.generated_nano_usd += cost_nano_usd
        self.generated_nano_usd += cost_nano_usd
        freed = min(line.held_nano_usd, cost_nano_usd)
        line.held_nano_usd -= freed
        self.held_nano_usd -= freed
