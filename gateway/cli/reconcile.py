"""`gateway reconcile --from 2026-11-01 --to 2026-11-30 --billed-usd 12.34`: the ledger against MiniToolAI's bill."""

import argparse
import secrets
from collections.abc import Sequence

from gateway.cli.control_plane import ControlPlane, JSONObject, add_connection_arguments, connect
from gateway.cli.credit import amount
from gateway.cli.errors import CommandError, Unanswered
from gateway.cli.output import print_fields, print_json, print_table

COLUMNS = ("at", "from", "to", "ledger_usd", "billed_usd", "drift_usd", "estimated_usd", "flagged", "note", "author")


def main(argv: Sequence[str]) -> int:
    parser = reconcile_parser()
    arguments = parser.parse_args(argv)
    given = [value is not None for value in (arguments.start, arguments.to, arguments.billed_usd)]
    if any(given) and not all(given):
        parser.error("--from, --to and --billed-usd belong together; without all three the earlier ones are listed")
    with connect(arguments) as control_plane:
        if all(given):
            show(reconcile(control_plane, arguments), as_json=arguments.json)
        else:
            show_list(control_plane, arguments)
    return 0


def reconcile_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gateway reconcile",
        description="hold the ledger against what MiniToolAI billed; without a figure, list what was found before",
    )
    add_connection_arguments(parser)
    parser.add_argument("--from", dest="start", metavar="TIME", help="a date, or an RFC 3339 instant")
    parser.add_argument("--to", metavar="TIME", help="a date, itself included, or an instant, itself not included")
    parser.add_argument("--billed-usd", type=amount, metavar="USD", help="what MiniToolAI billed, such as 12.34")
    parser.add_argument("--note", help="where the figure was read; it stands beside it")
    parser.add_argument("--idempotency-key", metavar="KEY", help="the same key again enters nothing more")
    return parser


def reconcile(control_plane: ControlPlane, arguments: argparse.Namespace) -> JSONObject:
    body = {"from": arguments.start, "to": arguments.to, "billed_usd": arguments.billed_usd}
    body |= {"note": arguments.note, "org": arguments.org}
    key = arguments.idempotency_key or secrets.token_hex(16)
    try:
        return control_plane.post(
            "reconciliation", {k: v for k, v in body.items() if v is not None}, idempotency_key=key
        )
    except Unanswered as error:
        raise CommandError(
            f"{error}\nIt may be entered all the same: add --idempotency-key {key} to try again"
        ) from None


def show(found: JSONObject, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    print_fields({name: found.get(name) for name in COLUMNS})
    print(f"\n{verdict(found)}")


def verdict(found: JSONObject) -> str:
    """What the figures mean, and where to look."""
    drift_nano_usd, flagged = found["drift_nano_usd"], found["flagged"]
    if drift_nano_usd == 0:
        return "The ledger is what MiniToolAI billed, to the nano-dollar."
    side = "more" if drift_nano_usd > 0 else "less"
    where = f"look at its {flagged} flagged entries" if flagged else "no entry of it is flagged"
    return f"The ledger has ${found['drift_usd'].removeprefix('-')} {side} than MiniToolAI billed: {where}."


def show_list(control_plane: ControlPlane, arguments: argparse.Namespace) -> None:
    found = list(control_plane.items("reconciliation", org=arguments.org))
    if arguments.json:
        print_json({"data": found})
    else:
        print_table(COLUMNS, found, empty="Nothing was reconciled yet.")
