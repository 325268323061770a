"""`gateway prices list` and `gateway prices set MODEL --from 2026-12-01 --input 0.20 --output 0.80`."""

import argparse
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.cli.control_plane import JSONObject, add_connection_arguments, connect
from gateway.cli.errors import CommandError, Unanswered
from gateway.cli.output import print_json, print_table

COLUMNS = ("model", "kind", "state", "from", "price", "note", "author")
EVERY_STATE = "current,upcoming,past,replaced"
_RATES: Mapping[str, tuple[str, str]] = {
    "input": ("input_usd_per_million", "dollars per million input tokens, such as 0.15"),
    "output": ("output_usd_per_million", "dollars per million output tokens"),
    "cached": ("cached_usd_per_million", "the same of cached input, where it costs less than other input"),
    "usd": ("usd", "dollars a piece, where that is what is priced: an image"),
}
_SIZES: Mapping[str, str] = {
    "context_tokens": "the most its prompt can be",
    "output_tokens": "the most its answer can be",
    "image_tokens_low": "the most one image part of low detail can be",
    "image_tokens_high": "the same of high detail",
    "image_tile_tokens": "tokens a tile of an image of known size",
    "image_patch_percent": "or tokens for a hundred patches of it",
}


def main(argv: Sequence[str]) -> int:
    arguments = prices_parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    return run(arguments)


def prices_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gateway prices", description="what models cost, from when on")
    actions = parser.add_subparsers(required=True, dest="action", metavar="ACTION")
    listing = actions.add_parser("list", help="prices in force and to come")
    add_connection_arguments(listing)
    listing.add_argument("--model", metavar="NAME", help="of this model only")
    listing.add_argument("--all", action="store_true", help="also what was, and what was replaced before it began")
    listing.set_defaults(run=show)
    setting = actions.add_parser("set", help="give a model a price from a day on")
    add_connection_arguments(setting)
    setting.add_argument("model", help="its name")
    setting.add_argument(
        "--from", dest="start", required=True, metavar="TIME", help="a date, or an RFC 3339 instant, that is to come"
    )
    for option, (_, help_text) in _RATES.items():
        setting.add_argument(f"--{option}", metavar="USD", help=help_text)
    for name, help_text in _SIZES.items():
        option = f"--{name.replace('_', '-')}"
        setting.add_argument(option, type=int, metavar="N", help=f"{help_text}; without it, as before")
    setting.add_argument("--withdraw", action="store_true", help="from then on the model has no price")
    setting.add_argument("--kind", help="of a new model: chat, or what is priced by the piece, such as image")
    setting.add_argument("--note", help="why; it stands in the list")
    setting.add_argument("--idempotency-key", metavar="KEY", help="the same key again enters nothing more")
    setting.set_defaults(run=enter)
    return parser


def show(arguments: argparse.Namespace) -> int:
    query = {"org": arguments.org, "model": arguments.model, "state": EVERY_STATE if arguments.all else None}
    with connect(arguments) as control_plane:
        prices = list(control_plane.items("prices", **query))
    if arguments.json:
        print_json({"data": prices})
    else:
        print_table(COLUMNS, [_line(price) for price in prices], empty="There is no such price.")
    return 0


def enter(arguments: argparse.Namespace) -> int:
    key = arguments.idempotency_key or secrets.token_hex(16)
    with connect(arguments) as control_plane:
        try:
            answer = control_plane.post("prices", _body(arguments), idempotency_key=key)
        except Unanswered as error:
            raise CommandError(
                f"{error}\nIt may be entered all the same: add --idempotency-key {key} to try again"
            ) from None
    if arguments.json:
        print_json(answer)
    else:
        line = _line(answer)
        print(f"{line['model']}: {line['price']}, from {answer['effective_from']} on.")
    return 0


def _body(arguments: argparse.Namespace) -> dict[str, Any]:
    body = {
        "org": arguments.org,
        "model": arguments.model,
        "kind": arguments.kind,
        "effective_from": arguments.start,
        "withdrawn": arguments.withdraw or None,
        "note": arguments.note,
        **{field: getattr(arguments, option) for option, (field, _) in _RATES.items()},
        **{name: getattr(arguments, name) for name in _SIZES},
    }
    return {name: value for name, value in body.items() if value is not None}


def _line(price: JSONObject) -> JSONObject:
    return {**price, "from": price["effective_from"] or "always", "price": _words(price)}


def _words(price: JSONObject) -> str:
    if price.get("withdrawn"):
        return "withdrawn"
    if "usd" in price:
        return f"${price['usd']} each"
    given, cached, made = (price[f"{name}_usd_per_million"] for name in ("input", "cached", "output"))
    discount = f" (cached ${cached})" if cached != given else ""
    return f"${given}{discount} in, ${made} out per 1M tokens"
