"""`gateway usage`: who spent what, as a table, CSV or JSON."""

import argparse
import csv
import sys
from collections.abc import Sequence

from gateway.billing.money import format_usd
from gateway.cli.control_plane import JSONObject, add_connection_arguments, connect
from gateway.cli.output import print_json, print_table

AMOUNTS = ("requests", "prompt_tokens", "completion_tokens", "images", "cost_usd", "estimated_usd")


def main(argv: Sequence[str]) -> int:
    arguments = usage_parser().parse_args(argv)
    with connect(arguments) as control_plane:
        report = control_plane.get(
            "usage",
            group_by=arguments.group_by,
            to=arguments.to,
            org=arguments.org,
            **{"from": arguments.start},
        )
    if arguments.json:
        print_json(report)
    elif arguments.csv:
        print_csv(report)
    else:
        print_report(report)
    return 0


def usage_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gateway usage", description="report who spent what")
    add_connection_arguments(parser)
    parser.add_argument(
        "--group-by",
        default="team,model",
        metavar="NAMES",
        help="one of org, team, user, key, with model or kind, and day or month; or tag alone (default: %(default)s)",
    )
    add_period_arguments(parser)
    parser.add_argument("--csv", action="store_true", help="print CSV, every column the gateway answered")
    return parser


def add_period_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        dest="start",
        metavar="TIME",
        help="a date, or an RFC 3339 instant (default: the start of this month)",
    )
    parser.add_argument("--to", metavar="TIME", help="a date, itself included, or an instant, itself not included")


def print_report(report: JSONObject) -> None:
    rows, total = [in_dollars(row) for row in report["data"]], report["total"]
    columns = columns_of(rows)
    shown = [
        *(name for name in columns if name not in TOTALLED),
        *(name for name in AMOUNTS if name in columns),
    ]
    if rows and total is not None:
        rows = [*rows, {shown[0]: "total"} | in_dollars(total)]
    print_table(shown, rows, empty="Nothing that you may see was used in this period.")


def print_csv(report: JSONObject) -> None:
    rows = report["data"]
    writer = csv.DictWriter(sys.stdout, fieldnames=columns_of(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


TOTALLED = {*AMOUNTS, "cost_nano_usd", "estimated_nano_usd"}


def in_dollars(row: JSONObject) -> JSONObject:
    """The same row with its estimated part in the unit of its cost: a person compares the two."""
    return row | {"estimated_usd": format_usd(row["estimated_nano_usd"])} if "estimated_nano_usd" in row else row


def columns_of(rows: Sequence[JSONObject]) -> list[str]:
    """Every column that occurs, in the order the gateway gives them."""
    return list(dict.fromkeys(name for row in rows for name in row))
