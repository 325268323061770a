"""`gateway budgets …`: every budget and how full it is; set one, or take it away."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from gateway.billing.budget import BUDGET_WINDOWS
from gateway.billing.principal import ScopeKind
from gateway.cli.control_plane import ControlPlane, JSONObject, connect, path_of
from gateway.cli.errors import CommandError, OutOfReach
from gateway.cli.output import print_json, print_table
from gateway.cli.scopes import add_action, budget, limit_text, others_of
from gateway.wire.wish import COLLECTIONS

COLUMNS = ("scope", "id", "window", "limit_usd", "spent_usd", "held_usd", "remaining_usd", "full_percent", "resets_at")


def main(argv: Sequence[str]) -> int:
    arguments = budgets_parser().parse_args(argv)
    with connect(arguments) as control_plane:
        code: int = arguments.action(control_plane, arguments)
    return code


def budgets_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gateway budgets", description="list, set and remove budgets")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = add_action(actions, "list", show_list, "list budgets, the fullest first")
    listing.add_argument("--scope", choices=get_args(ScopeKind), help="only those of this kind")
    setting = add_action(actions, "set", change, "set one scope's budget; its other windows keep theirs")
    _add_scope(setting)
    setting.add_argument("budget", type=budget, metavar="WINDOW=USD", help="month=25.00, prepaid, or month=none")
    setting.add_argument(
        "--soft-percent", type=int, action="append", metavar="PERCENT", help="told when it is so full; may be repeated"
    )
    removing = add_action(actions, "remove", remove, "take one scope's budget away")
    _add_scope(removing)
    removing.add_argument("window", choices=BUDGET_WINDOWS)
    return parser


def _add_scope(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scope", choices=get_args(ScopeKind))
    parser.add_argument("id")


def show_list(control_plane: ControlPlane, arguments: argparse.Namespace) -> int:
    kinds = [arguments.scope] if arguments.scope else list(COLLECTIONS)
    budgets = sorted(_budgets_in_reach(control_plane, kinds, arguments.org), key=lambda each: -each["full_percent"])
    if arguments.json:
        print_json({"data": budgets})
    else:
        rows = [each | {"limit_usd": limit_text(each)} for each in budgets]
        print_table(COLUMNS, rows, empty="There are no budgets that you may see.")
    return 0


def _budgets_in_reach(control_plane: ControlPlane, kinds: Sequence[ScopeKind], org: str | None) -> list[JSONObject]:
    """Without the kinds that the key's role may not read. Raises OutOfReach: it may read none of them."""
    budgets: list[JSONObject] = []
    refusals: list[OutOfReach] = []
    for kind in kinds:
        try:
            budgets += _budgets_of(control_plane, kind, org)
        except OutOfReach as refusal:
            refusals.append(refusal)
    if len(refusals) == len(kinds):
        raise refusals[0]
    return budgets


def _budgets_of(control_plane: ControlPlane, kind: ScopeKind, org: str | None) -> Iterator[JSONObject]:
    for scope in control_plane.items(COLLECTIONS[kind], org=org):
        if scope.get("revoked_at") is None:
            for each in scope["budgets"]:
                yield {"scope": kind, "id": scope["id"], **each, "full_percent": full_percent(each)}


def full_percent(each: Mapping[str, Any]) -> int:
    """Spent and held, of the limit or of what was paid in; whole percents, rounded down. Of nothing all is spent."""
    limit_nano_usd: int = each["paid_in_nano_usd"] if each["window"] == "prepaid" else each["limit_nano_usd"]
    used_nano_usd: int = each["spent_nano_usd"] + each["held_nano_usd"]
    return 100 * used_nano_usd // limit_nano_usd if limit_nano_usd else 100


def change(control_plane: ControlPlane, arguments: argparse.Namespace) -> int:
    window, wanted = arguments.budget
    if wanted is not None and arguments.soft_percent:
        wanted = wanted | {"soft_percent": arguments.soft_percent}
    return _replace(control_plane, arguments, window, wanted)


def remove(control_plane: ControlPlane, arguments: argparse.Namespace) -> int:
    return _replace(control_plane, arguments, arguments.window, None)


def _replace(control_plane: ControlPlane, arguments: argparse.Namespace, window: str, wanted: JSONObject | None) -> int:
    """The budget of one window, or none there; all other windows stay."""
    path = path_of(COLLECTIONS[arguments.scope], arguments.id)
    current = control_plane.get(path, org=arguments.org)["budgets"]
    before = next((each for each in current if each["window"] == window), None)
    if wanted is None and before is None:
        raise CommandError(f"{arguments.scope} {arguments.id} has no budget for {window}")
    if wanted is not None and before is not None:
        wanted = {"soft_percent": before["soft_percent"], **wanted}
    budgets = others_of(current, {window}) + ([wanted] if wanted is not None else [])
    answer = control_plane.patch(path, {"budgets": budgets}, org=arguments.org)
    if arguments.json:
        print_json(answer)
    else:
        rows = [each | {"limit_usd": limit_text(each)} for each in answer["budgets"]]
        print_table(COLUMNS[2:7], rows, empty=f"{arguments.scope} {arguments.id} has no budget any more.")
    return 0
