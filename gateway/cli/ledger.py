"""`gateway ledger …`: the entries of the books, oldest first; `tail` shows the newest and can follow them.

What corrects the books is in `ledger_adjust`, what checks and archives them in `books`.
"""

import argparse
import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from gateway.cli.books import add_book_actions
from gateway.cli.control_plane import ControlPlane, JSONObject, add_connection_arguments, connect
from gateway.cli.ledger_adjust import add_adjust_action
from gateway.cli.ledger_quarantine import add_quarantine_action
from gateway.cli.output import cell_text, print_json, print_table
from gateway.cli.usage import add_period_arguments

COLUMNS = (
    "at",
    "type",
    "team",
    "user",
    "key",
    "model",
    "prompt_tokens",
    "completion_tokens",
    "images",
    "cost_usd",
    "usage_source",
    "flags",
    "tags",
)
FILTERS = ("team", "user", "key")
FOLLOW_INTERVAL_S = 1.0
PAGE_SIZE = 1000


def main(argv: Sequence[str]) -> int:
    arguments = ledger_parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    return run(arguments)


def show(arguments: argparse.Namespace) -> int:
    query = {name: getattr(arguments, name) for name in ("org", *FILTERS, "to")} | {"from": arguments.start}
    with connect(arguments) as control_plane:
        if arguments.action == "tail" and arguments.follow:
            follow(control_plane, query, arguments.count, as_json=arguments.json)
        elif arguments.action == "tail":
            newest = deque(control_plane.items("ledger", **query), maxlen=arguments.count)
            print_entries(newest, as_json=arguments.json)
        else:
            print_entries(control_plane.items("ledger", count_max=arguments.count, **query), as_json=arguments.json)
    return 0


def ledger_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gateway ledger", description="show, check, correct and archive the ledger")
    actions = parser.add_subparsers(required=True, dest="action", metavar="ACTION")
    listing = actions.add_parser("list", help="list entries, oldest first")
    listing.add_argument("-n", "--count", type=positive, metavar="N", help="at most N entries (default: all)")
    tailing = actions.add_parser("tail", help="show the newest entries")
    tailing.add_argument("-n", "--count", type=positive, default=20, metavar="N", help="default: %(default)s")
    tailing.add_argument("-f", "--follow", action="store_true", help="then show each new entry, until interrupted")
    for action in (listing, tailing):
        add_connection_arguments(action)
        add_period_arguments(action)
        for name in FILTERS:
            action.add_argument(f"--{name}", metavar="ID", help=f"only those of this {name}")
        action.set_defaults(run=show)
    add_adjust_action(actions)
    add_quarantine_action(actions)
    add_book_actions(actions)
    return parser


def follow(control_plane: ControlPlane, query: dict[str, str | None], count: int, *, as_json: bool) -> None:
    """Print the newest entries, then every new one, a line each: JSON lines or words."""
    batches = new_entries(control_plane, query)
    for batch in itertools.chain([deque(next(batches), maxlen=count)], batches):
        for entry in batch:
            print(json.dumps(entry, ensure_ascii=False) if as_json else line_of(entry), flush=True)


def new_entries(control_plane: ControlPlane, query: dict[str, str | None]) -> Iterator[list[JSONObject]]:
    """Yield all entries there are, then, a second apart, those that came since.

    The last page is read again until the gateway gives a cursor to the next one; its entries that
    were seen are known by their ids.
    """
    cursor: str | None = None
    seen: set[str] = set()
    batch: list[JSONObject] = []
    while True:
        page = control_plane.get("ledger", cursor=cursor, limit=PAGE_SIZE, **query)
        batch += [entry for entry in page["data"] if entry["id"] not in seen]
        if page.get("next_cursor") is not None:
            cursor, seen = page["next_cursor"], set()
            continue
        seen = {entry["id"] for entry in page["data"]}
        yield batch
        batch = []
        time.sleep(FOLLOW_INTERVAL_S)


def print_entries(entries: Iterable[JSONObject], *, as_json: bool) -> None:
    listed = list(entries)
    if as_json:
        print_json({"data": listed})
    else:
        print_table(COLUMNS, listed, empty="The ledger has no entries here that you may see.")


def line_of(entry: JSONObject) -> str:
    """One entry on one line, for a list that never ends and so has no column widths."""
    return "  ".join(cell_text(entry[name]) for name in COLUMNS if entry.get(name) not in (None, "", []))


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
