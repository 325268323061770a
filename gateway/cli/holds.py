"""`gateway holds`: the money that running calls hold."""

import argparse
from collections.abc import Sequence

from gateway.billing.money import format_usd
from gateway.cli.control_plane import add_connection_arguments, connect
from gateway.cli.output import print_json, print_table

COLUMNS = ("id", "request_id", "key", "hold_usd", "deadline_at")


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="gateway holds", description="list the money held by running calls")
    add_connection_arguments(parser)
    arguments = parser.parse_args(argv)
    with connect(arguments) as control_plane:
        holds = list(control_plane.items("holds", org=arguments.org))
    if arguments.json:
        print_json({"data": holds})
    else:
        rows = [hold | {"hold_usd": format_usd(hold["hold_nano_usd"])} for hold in holds]
        print_table(COLUMNS, rows, empty="No call that you may see is running.")
    return 0
