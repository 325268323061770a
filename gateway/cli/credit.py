"""`gateway credit team research 10.00`: pay into a prepaid budget, or move credit there from a sibling."""

import argparse
import secrets
from collections.abc import Sequence

from gateway.billing.money import parse_usd
from gateway.cli.control_plane import add_connection_arguments, connect
from gateway.cli.errors import CommandError, Unanswered
from gateway.cli.output import print_fields, print_json

SCOPES = ("organisation", "team", "user", "key")
SHOWN = (
    "type",
    "at",
    "scope",
    "id",
    "from",
    "amount_usd",
    "note",
    "paid_in_usd",
    "spent_usd",
    "held_usd",
    "remaining_usd",
)


def main(argv: Sequence[str]) -> int:
    arguments = credit_parser().parse_args(argv)
    body = {"scope": arguments.scope, "id": arguments.id, "amount_usd": arguments.amount_usd, "note": arguments.note}
    body |= {"from": arguments.source, "org": arguments.org}
    # A key of its own for each command: what is repeated under it is paid in once.
    key = arguments.idempotency_key or secrets.token_hex(16)
    with connect(arguments) as control_plane:
        try:
            answer = control_plane.post(
                "credits", {k: v for k, v in body.items() if v is not None}, idempotency_key=key
            )
        except Unanswered as error:
            raise CommandError(
                f"{error}\nIt may be paid all the same: add --idempotency-key {key} to try again"
            ) from None
    if arguments.json:
        print_json(answer)
    else:
        print_fields({name: answer.get(name) for name in SHOWN})
    return 0


def credit_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gateway credit", description="pay into a prepaid budget, or move credit there from a sibling (--from)"
    )
    add_connection_arguments(parser)
    parser.add_argument("scope", choices=SCOPES, help="what has the prepaid budget")
    parser.add_argument("id", help="its id")
    parser.add_argument("amount_usd", type=amount, metavar="USD", help="such as 10.00")
    parser.add_argument("--from", dest="source", metavar="ID", help="take it from this scope of the same level")
    parser.add_argument("--note", help="why; it stands in the ledger")
    parser.add_argument("--idempotency-key", metavar="KEY", help="the same key again pays nothing more")
    return parser


def amount(text: str) -> str:
    """An amount as it was typed; argparse shows what is wrong with another text."""
    try:
        parse_usd(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error
    return text
