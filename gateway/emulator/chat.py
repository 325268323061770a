"""`POST /api/chat-completions/`: an answer streamed token by token, and billed as it is generated."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from dataclasses import replace

from gateway.emulator.account import Account
from gateway.emulator.answers import Answer, Event, compose, compose_cached
from gateway.emulator.bill import Bill, Line
from gateway.emulator.contract import ChatRequest, parse_chat
from gateway.emulator.delivery import deliver, hold_back
from gateway.emulator.exchange import Exchange
from gateway.emulator.faults import Faults, without_marker
from gateway.emulator.prices import chat_nano_usd
from gateway.emulator.shapes import error_reply, replaced, stream

SMALL_BODY_BYTES = 64 * 1024
STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


async def chat(account: Account, exchange: Exchange, body: bytes) -> None:
    """Answer one chat call. Raises BadRequest, BadFault."""
    request = parse_chat(body)
    faults = account.faults_of(exchange, "chat", request.last_text)
    answer = await _answer(request, faults, len(body))
    cost_nano_usd = chat_nano_usd(request.model, answer.prompt_tokens, answer.completion_tokens)
    bill = account.bill
    line = bill.open("chat", request.model, cost_nano_usd, exchange.header(b"x-request-id"), faults.text)
    if line is None:
        await exchange.respond(
            error_reply(402, "your balance does not cover this call; top up", "insufficient_balance")
        )
        return
    try:
        await _serve(account, exchange, answer, faults, bill, line)
    finally:
        line.client_left = exchange.left.is_set()
        line.sent_bytes = exchange.sent_bytes
        bill.close(line)


async def _serve(account: Account, exchange: Exchange, answer: Answer, faults: Faults, bill: Bill, line: Line) -> None:
    reply = replaced(faults, exchange.header(b"authorization") or "")
    if reply is None:
        # The model reads the prompt as soon as the call is accepted, whether or not its answer ever arrives.
        bill.generate(line, prompt_tokens=answer.prompt_tokens)
    await hold_back(exchange, faults, account.gate)
    if exchange.left.is_set():
        return
    if "reset" in faults:
        exchange.break_off(reset=True)
        return
    if reply is not None:
        await exchange.respond(reply)
        line.finished = True
        return

    def generated(event: Event) -> None:
        bill.generate(line, completion_tokens=event.tokens)
        if event.claims is not None:
            bill.claim(line, event.claims)

    encoding = [(b"content-encoding", b"gzip")] if "gzip" in faults else []
    await exchange.start(200, STREAM_HEADERS + encoding)
    gap_s = faults.seconds("gap", default=account.options.token_gap_s)
    line.finished = await deliver(exchange, _events(answer, faults), faults, account.gate, gap_s, generated)


async def _answer(request: ChatRequest, faults: Faults, body_bytes: int) -> Answer:
    length_tokens, line_separators = faults.integer("tokens"), "u2028" in faults
    said = without_marker(request.last_text) if "echo" in faults else None
    past_max_tokens = faults.integer("past_max")
    if past_max_tokens is not None:
        length_tokens = request.max_completion_tokens + past_max_tokens
        request = replace(request, max_completion_tokens=length_tokens)
    if body_bytes <= SMALL_BODY_BYTES:
        return compose_cached(request, length_tokens, line_separators, said)
    # Counting a long prompt takes a while, and other answers must go on meanwhile.
    return await asyncio.to_thread(compose, request, length_tokens, line_separators, said)


def _events(answer: Answer, faults: Faults) -> Iterable[Event]:
    if "endless" in faults:
        return itertools.cycle(event for event in answer.events if event.tokens)
    return stream(answer, faults)
