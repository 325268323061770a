"""`gateway ledger adjust key key-1 -0.50 --note "charged twice"`: correct what was spent, by an entry of its own."""

import argparse
import secrets

from gateway.billing.money import parse_usd
from gateway.cli.control_plane import add_connection_arguments, connect
from gateway.cli.errors import CommandError, Unanswered
from gateway.cli.output import print_fields, print_json

SCOPES = ("organisation", "team", "user", "key")
SHOWN = ("at", "for", "scope", "id", "amount_usd", "note", "author", "entry")


def add_adjust_action(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser("adjust", help="correct what was spent, with a note")
    add_connection_arguments(parser)
    parser.add_argument("scope", choices=SCOPES, help="where; it counts there and above")
    parser.add_argument("id", help="its id")
    parser.add_argument("amount_usd", type=signed_amount, metavar="USD", help="such as 0.50, or -0.50 to give back")
    parser.add_argument("--note", required=True, help="why; it stands in the ledger")
    parser.add_argument("--at", metavar="TIME", help="the RFC 3339 instant it is for; without one, now")
    parser.add_argument("--idempotency-key", metavar="KEY", help="the same key again posts nothing more")
    parser.set_defaults(run=adjust)


def adjust(arguments: argparse.Namespace) -> int:
    names = ("org", "scope", "id", "amount_usd", "note", "at")
    body = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    key = arguments.idempotency_key or secrets.token_hex(16)
    with connect(arguments) as control_plane:
        try:
            answer = control_plane.post("adjustments", body, idempotency_key=key)
        except Unanswered as error:
            raise CommandError(
                f"{error}\nIt may be posted all the same: add --idempotency-key {key} to try again"
            ) from None
    if arguments.json:
        print_json(answer)
    else:
        print_fields({name: answer.get(name) for name in SHOWN})
    return 0


def signed_amount(text: str) -> str:
    """An amount as it was typed, with or without a minus."""
    try:
        parse_usd(text.removeprefix("-"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error
    return text
