"""What `organisations`, `teams`, `users` and `keys` have in common: create, list, show, set, block and unblock a scope.

A command group is a `Group`: what it is called, which fields its items have, which columns its list shows.
What is sent is the control plane's own shape: a budget is `{"window": "month", "limit_usd": "25.00"}`.
"""

import argparse
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from gateway.billing.budget import BUDGET_WINDOWS, WINDOWS
from gateway.billing.limits import RATE_OF_LIMIT
from gateway.billing.money import parse_usd
from gateway.cli.control_plane import ControlPlane, JSONObject, add_connection_arguments, connect, path_of
from gateway.cli.errors import CommandError
from gateway.cli.output import print_fields, print_json, print_table


class Field(NamedTuple):
    """An option that creates or changes a scope: `--expires-at` sends `expires_at`."""

    name: str
    help: str
    required: bool = False
    changes: bool = True
    choices: tuple[str, ...] | None = None


class Group(NamedTuple):
    """One command group, such as `teams`: its path in the control plane, its fields, its list's columns."""

    collection: str
    noun: str
    fields: tuple[Field, ...]
    columns: tuple[str, ...]
    filters: tuple[str, ...]
    id_required: bool
    creates: bool = True


Action = Callable[[Group, ControlPlane, argparse.Namespace], int]


def run(parser: argparse.ArgumentParser, argv: Sequence[str]) -> int:
    """Parse a group's arguments, connect, and run the action they name."""
    arguments = parser.parse_args(argv)
    action: Action = arguments.action
    with connect(arguments) as control_plane:
        return action(arguments.group, control_plane, arguments)


def parser_of(
    group: Group,
    *,
    create_action: Action | None = None,
    more_actions: Mapping[str, tuple[Action, str]] | None = None,
    more_options: Mapping[str, Callable[[argparse.ArgumentParser], None]] | None = None,
) -> argparse.ArgumentParser:
    """The group's parser: the actions that every scope has, and `more_actions`, name → (action, summary).

    `more_options`: what adds options to an action of that name.
    """
    parser = argparse.ArgumentParser(prog=f"gateway {group.collection}")
    parser.set_defaults(group=group)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    if group.creates:
        add_creating(actions, group, create_action or create)
    listing = add_action(actions, "list", show_list, f"list the {group.collection}")
    for name in group.filters:
        listing.add_argument(f"--{name}", metavar="ID", help=f"only those of this {name}")
    on_one: dict[str, tuple[Action, str]] = {
        "show": (show, f"show one {group.noun} with its budgets"),
        "set": (change, f"change one {group.noun}'s settings"),
        "block": (block, f"refuse all calls of one {group.noun} from now on"),
        "unblock": (unblock, f"let one {group.noun} call again"),
        **(more_actions or {}),
    }
    for name, (action, summary) in on_one.items():
        acting = add_action(actions, name, action, summary)
        acting.add_argument("id", help=f"the {group.noun}'s id")
        if action is change:
            add_setting_arguments(acting, [field for field in group.fields if field.changes], creating=False)
        if add_options := (more_options or {}).get(name):
            add_options(acting)
    return parser


def add_creating(actions: Any, group: Group, action: Action) -> None:
    creating = add_action(actions, "create", action, f"create a {group.noun}")
    if group.id_required:
        creating.add_argument("id", help="lower-case letters, digits and hyphens; it never changes")
    else:
        creating.add_argument("--id", help="by default the gateway makes one")
    add_setting_arguments(creating, group.fields, creating=True)


def add_action(actions: Any, name: str, action: Callable[..., int], summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=summary, description=summary)
    add_connection_arguments(parser)
    parser.set_defaults(action=action)
    return parser


def add_setting_arguments(parser: argparse.ArgumentParser, fields: Sequence[Field], *, creating: bool) -> None:
    for field in fields:
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            required=creating and field.required,
            choices=field.choices,
            help=field.help,
        )
    budgets = parser.add_mutually_exclusive_group()
    budgets.add_argument(
        "--budget",
        dest="budgets",
        action="append",
        type=budget,
        metavar="WINDOW=USD",
        help=f"month=25.00, prepaid, or month=none to take it away; windows: {', '.join(WINDOWS)}; may be repeated; "
        "other windows keep theirs",
    )
    parser.add_argument(
        "--limit",
        dest="limits",
        action="append",
        type=limit,
        metavar="NAME=COUNT",
        help=f"such as requests_per_minute=60, or =none; names: {', '.join(RATE_OF_LIMIT)}; may be repeated",
    )
    models = parser.add_mutually_exclusive_group()
    models.add_argument(
        "--model",
        dest="models",
        action="append",
        metavar="MODEL",
        help="allow only this model; may be repeated",
    )
    if creating:
        return
    budgets.add_argument(
        "--no-budgets", dest="budgets", action="store_const", const=[], help="take all its budgets away"
    )
    models.add_argument("--all-models", action="store_true", help="allow every model that has a price")


def budget(text: str) -> tuple[str, JSONObject | None]:
    """Read `month=25.00` or `prepaid` as a window and the control plane's budget, None for `month=none`; argparse shows
    what is wrong with another text."""
    if text == "prepaid":
        return text, {"window": text}
    window, _, limit_usd = text.partition("=")
    if window in BUDGET_WINDOWS and limit_usd == "none":
        return window, None
    if window not in WINDOWS:
        raise argparse.ArgumentTypeError(
            f"{text!r}: the window must be one of {', '.join(WINDOWS)}; or prepaid, without amount"
        )
    try:
        parse_usd(limit_usd)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error
    return window, {"window": window, "limit_usd": limit_usd}


def limit(text: str) -> tuple[str, int | None]:
    """Read `requests_per_minute=60` as a name and a count, None for `=none`; argparse shows what is wrong."""
    name, _, count = text.partition("=")
    if name not in RATE_OF_LIMIT:
        raise argparse.ArgumentTypeError(f"{text!r}: the name must be one of {', '.join(RATE_OF_LIMIT)}")
    if count == "none":
        return name, None
    if not count.isascii() or not count.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}: the count must be a whole number, or none")
    return name, int(count)


def settings_of(group: Group, arguments: argparse.Namespace) -> JSONObject:
    """The body with what was given and nothing else, so that a change leaves the rest as it is."""
    names = [*(field.name for field in group.fields), "models"]
    given = {name: getattr(arguments, name, None) for name in names}
    body = {name: value for name, value in given.items() if value is not None}
    if arguments.budgets is not None:
        body["budgets"] = [budget for _, budget in arguments.budgets if budget is not None]
    if arguments.limits:
        body["limits"] = dict(arguments.limits)
    if getattr(arguments, "all_models", False):
        body["models"] = None
    return body


def create(group: Group, control_plane: ControlPlane, arguments: argparse.Namespace) -> int:
    answer = control_plane.post(group.collection, new_scope(group, arguments))
    print_scope(group, answer, as_json=arguments.json)
    return 0


def new_scope(group: Group, arguments: argparse.Namespace) -> JSONObject:
    given = {"id": arguments.id, "org": arguments.org}
    return {name: value for name, value in given.items() if value is not None} | settings_of(group, arguments)


def show_list(group: Group, control_plane: ControlPlane, arguments: argparse.Namespace) -> int:
    wanted = {name: getattr(arguments, name) for name in group.filters if getattr(arguments, name)}
    scopes = [
        scope
        for scope in control_plane.items(group.collection, org=arguments.org)
        if all(scope.get(name) == value for name, value in wanted.items())
    ]
    if arguments.json:
        print_json({"data": scopes})
        return 0
    rows = [scope | {"budgets": [budget_text(each) for each in scope.get("budgets") or []]} for scope in scopes]
    narrowed = "".join(f" of {name} {value}" for name, value in wanted.items())
    print_table(group.columns, rows, empty=f"There are no {group.collection}{narrowed} that you may see.")
    return 0


def show(group: Group, control_plane: ControlPlane, arguments: argparse.Namespace) -> int:
    answer = control_plane.get(path_of(group.collection, arguments.id), org=arguments.org)
    print_scope(group, answer, as_json=arguments.json)
    return 0


def change(group: Group, control_plane: ControlPlane, arguments: argparse.Namespace) -> int:
    settings = settings_of(group, arguments)
    if not settings:
        raise CommandError(f"nothing to change; `gateway {group.collection} set --help` lists what can be")
    if arguments.budgets:
        current = control_plane.get(path_of(group.collection, arguments.id), org=arguments.org)["budgets"]
        windows = {window for window, _ in arguments.budgets}
        settings["budgets"] += others_of(current, windows)
    answer = control_plane.patch(path_of(group.collection, arguments.id), settings, org=arguments.org)
    print_scope(group, answer, as_json=arguments.json)
    return 0


def others_of(current: list[JSONObject], windows: Collection[str]) -> list[JSONObject]:
    """The budgets of all windows but these, as they are: raising one limit must not drop another."""
    settable = ("window", "limit_usd", "soft_percent")
    others = [budget for budget in current if budget["window"] not in windows]
    return [{name: budget[name] for name in settable if name in budget} for budget in others]


def block(group: Group, control_plane: ControlPlane, arguments: argparse.Namespace) -> int:
    return act(group, control_plane, arguments, "block")


def unblock(group: Group, control_plane: ControlPlane, arguments: argparse.Namespace) -> int:
    return act(group, control_plane, arguments, "unblock")


def act(group: Group, control_plane: ControlPlane, arguments: argparse.Namespace, action: str) -> int:
    """By the action's own path, not by a change of settings: `gateway audit` then has it under its own word."""
    answer = control_plane.post(path_of(group.collection, arguments.id, action), org=arguments.org)
    print_scope(group, answer, as_json=arguments.json)
    return 0


def print_scope(group: Group, scope: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(scope)
        return
    names = (
        "id",
        "org",
        *(field.name for field in group.fields),
        "timezone",
        "first_weekday",
        "role",
        "expires_at",
        "blocked",
        "revoked_at",
        "models",
    )
    print_fields({name: scope.get(name) for name in dict.fromkeys(names)} | (scope.get("limits") or {}))
    budgets = scope.get("budgets") or []
    if budgets:
        print()
        columns = ("window", "limit_usd", "spent_usd", "held_usd", "remaining_usd", "resets_at")
        print_table(columns, [each | {"limit_usd": limit_text(each)} for each in budgets], empty="")


def budget_text(each: Mapping[str, Any]) -> str:
    """One budget in a list: `month 12.50 of 25.00`."""
    return f"{each.get('window')} {each.get('spent_usd', '0.00')} of {limit_text(each)}"


def limit_text(each: Mapping[str, Any]) -> str:
    """What bounds a budget: its limit, or what was paid in."""
    return str(each.get("limit_usd") or each.get("paid_in_usd") or "-")
