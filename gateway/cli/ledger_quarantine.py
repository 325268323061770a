"""`gateway ledger quarantine`: charges whose hold the ledger does not know; `--dismiss` takes one out."""

import argparse

from gateway.cli.control_plane import JSONObject, add_connection_arguments, connect, path_of
from gateway.cli.output import print_json, print_table

COLUMNS = ("at", "hold_id", "team", "user", "key", "model", "cost_usd")


def add_quarantine_action(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser("quarantine", help="list charges that stand in no entry, or dismiss one")
    add_connection_arguments(parser)
    parser.add_argument("--dismiss", metavar="HOLD", help="take this one out; if it is owed, `adjust` books it first")
    parser.set_defaults(run=quarantine)


def quarantine(arguments: argparse.Namespace) -> int:
    with connect(arguments) as control_plane:
        if arguments.dismiss:
            return _print_dismissed(control_plane.delete(path_of("quarantine", arguments.dismiss)), arguments.json)
        found = list(control_plane.items("quarantine"))
    if arguments.json:
        print_json({"data": found})
    else:
        print_table(COLUMNS, found, empty="Nothing is in quarantine.")
    return 0


def _print_dismissed(charge: JSONObject, as_json: bool) -> int:
    if as_json:
        print_json(charge)
    else:
        print_table(COLUMNS, [charge], empty="")
        print(f"It is out of quarantine and charged to nobody; entry {charge['entry']} says so.")
    return 0
