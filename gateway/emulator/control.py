"""The emulator's own paths, all beginning with `/__`: what it saw, what it billed, and orders to it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

from gateway.emulator.account import Account
from gateway.emulator.contract import BadRequest
from gateway.emulator.exchange import Exchange
from gateway.emulator.faults import FAULTS, KINDS, parse
from gateway.emulator.shapes import json_reply


async def show_bill(account: Account, exchange: Exchange, body: bytes) -> None:
    """`GET /__bill[?at_rest=1]`: balance, lines, totals; with `at_rest` once no call is running."""
    bill = account.bill
    while "at_rest" in parse_qs(_query(exchange)) and bill.running and not exchange.left.is_set():
        await exchange.until(bill.changed)
    await exchange.respond(json_reply(200, bill.as_json()))


async def show_requests(account: Account, exchange: Exchange, body: bytes) -> None:
    """`GET /__requests`: the last calls received, without the key."""
    await exchange.respond(json_reply(200, {"requests": list(account.calls)}))


async def show_withheld(account: Account, exchange: Exchange, body: bytes) -> None:
    """`GET /__withheld[?at_least=N]`: how many answers are withheld; waits until there are N."""
    wanted = parse_qs(_query(exchange)).get("at_least", ["0"])[0]
    if not wanted.isdecimal():
        raise BadRequest("at_least must be a number", "at_least")
    while account.gate.withheld < int(wanted) and not exchange.left.is_set():
        await exchange.until(account.gate.changed)
    await exchange.respond(json_reply(200, {"withheld": account.gate.withheld}))


async def show_faults(account: Account, exchange: Exchange, body: bytes) -> None:
    """`GET /__faults`: every fault with its explanation, and those queued."""
    explained = {name: explanation for name, (_, explanation) in FAULTS.items()}
    await exchange.respond(json_reply(200, {"faults": explained, "queued": account.queue.listed()}))


async def queue_faults(account: Account, exchange: Exchange, body: bytes) -> None:
    """`POST /__faults` {"fault", "count", "kind"}: for the next calls that ask for none themselves.

    Without `kind` chat calls and image submissions count, not polls: those come at times of their own.
    """
    order = _order(body)
    text, count, kind = order.get("fault"), order.get("count", 1), order.get("kind")
    if not isinstance(text, str):
        raise BadRequest("fault must be a string such as status=500", "fault")
    if type(count) is not int or count < 1:
        raise BadRequest("count must be a positive integer", "count")
    if kind is not None and kind not in KINDS:
        raise BadRequest(f"kind must be one of {', '.join(KINDS)}", "kind")
    account.queue.add(parse(text), count, ("chat", "image") if kind is None else (kind,))
    await exchange.respond(json_reply(200, {"queued": account.queue.listed()}))


async def release(account: Account, exchange: Exchange, body: bytes) -> None:
    """`POST /__release`: let every answer go that is withheld now."""
    await exchange.respond(json_reply(200, {"released": account.gate.release()}))


async def reset(account: Account, exchange: Exchange, body: bytes) -> None:
    """`POST /__reset`: an empty bill and the first balance."""
    account.reset()
    await exchange.respond(json_reply(200, {"balance_nano_usd": account.bill.balance_nano_usd}))


def _query(exchange: Exchange) -> str:
    return exchange.query.decode("latin-1")


def _order(body: bytes) -> dict[str, Any]:
    try:
        order = json.loads(body)
    except ValueError as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from error
    if not isinstance(order, dict):
        raise BadRequest("the body must be a JSON object")
    return order
