"""`gateway audit`: who changed what on the control plane, and how it ended."""

import argparse
import json
from collections.abc import Sequence

from gateway.cli.control_plane import JSONObject, add_connection_arguments, connect
from gateway.cli.output import print_json, print_table
from gateway.cli.usage import add_period_arguments

ACTIONS = ("create", "change", "block", "unblock", "revoke", "rotate", "dismiss")
"""The words under which the control plane writes changes down (`web.trail`)."""

COLUMNS = ("at", "caller", "role", "action", "resource", "resource_id", "status", "fields")


def main(argv: Sequence[str]) -> int:
    arguments = audit_parser().parse_args(argv)
    filters = {name: getattr(arguments, name) for name in ("caller", "action", "resource", "to")}
    with connect(arguments) as control_plane:
        span = {"from": arguments.start}
        changes = list(control_plane.items("audit", **filters, **span, resource_id=arguments.id))
    if arguments.json:
        print_json({"data": changes})
        return 0
    rows = [change | {"status": _ended(change), "fields": _text_of(change["fields"])} for change in changes]
    print_table(COLUMNS, rows, empty="No such change was made in that time.")
    return 0


def audit_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gateway audit", description="list who changed what, and how it ended")
    add_connection_arguments(parser)
    parser.add_argument("--caller", metavar="ID", help="admin, or a sub-key's id")
    parser.add_argument("--action", choices=ACTIONS, help="what was done")
    parser.add_argument("--resource", metavar="NAME", help="teams, users, keys, credits, …")
    parser.add_argument("--id", metavar="ID", help="of the team, user or key")
    add_period_arguments(parser)
    return parser


def _ended(change: JSONObject) -> str:
    if change["status"] is None:
        return "unknown"
    return f"{change['status']} {change['error'] or ''}".strip()


def _text_of(fields: object) -> str | None:
    return None if fields is None else json.dumps(fields, ensure_ascii=False)
