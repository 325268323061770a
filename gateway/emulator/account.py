"""What one emulator remembers: bill, jobs, withheld answers, queued faults, the calls it received."""

from __future__ import annotations

from collections import deque
from typing import Any

from gateway.emulator.bill import Bill
from gateway.emulator.delivery import Gate
from gateway.emulator.exchange import Exchange
from gateway.emulator.faults import HEADER, FaultQueue, Faults, asked_for
from gateway.emulator.jobs import Jobs
from gateway.emulator.options import EmulatorOptions

CALLS_MAX = 1_000
LOGGED_BODY_BYTES_MAX = 64 * 1024


class Account:
    """The state of one emulated MiniToolAI account."""

    def __init__(self, options: EmulatorOptions) -> None:
        self.options = options
        self.bill = Bill(options.balance_nano_usd)
        self.jobs = Jobs(options)
        self.gate = Gate()
        self.queue = FaultQueue()
        self.calls: deque[dict[str, Any]] = deque(maxlen=CALLS_MAX)

    def reset(self) -> None:
        """Empty the bill, the queue and the list of calls, and restore the balance.

        Calls that still run keep writing to the bill they began on. Jobs go on, so that no number is used
        twice.
        """
        self.bill = Bill(self.options.balance_nano_usd)
        self.queue.clear()
        self.calls.clear()

    def authorises(self, exchange: Exchange) -> bool:
        scheme, _, key = (exchange.header(b"authorization") or "").partition(" ")
        return scheme.lower() == "bearer" and key.strip() in self.options.keys

    def faults_of(self, exchange: Exchange, kind: str, text: str) -> Faults:
        """The faults this call asks for, else the next queued ones. Raises BadFault."""
        return asked_for(exchange.header(HEADER), text) or self.queue.take(kind)

    def note(self, exchange: Exchange, body: bytes) -> None:
        """Remember a call that arrived, never with the secret of a key."""
        headers = [[self._clean(name), self._clean(value)] for name, value in exchange.headers]
        self.calls.append(
            {
                "method": exchange.method,
                "path": exchange.path,
                "headers": headers,
                "authorised": self.authorises(exchange),
                "body": self._clean(body[:LOGGED_BODY_BYTES_MAX]),
                "body_bytes": len(body),
            }
        )

    def _clean(self, data: bytes) -> str:
        text = data.decode(errors="replace")
        for key in self.options.keys:
            text = text.replace(key, "[key]")
        return text
