"""`gateway apply organisation.toml`: make teams, users, keys and their settings as a file says, and show it first."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gateway.billing.principal import Scope, ScopeKind
from gateway.billing.scope import ScopeSettings
from gateway.cli.control_plane import ControlPlane, JSONObject, add_connection_arguments, connect, path_of
from gateway.cli.errors import CommandError
from gateway.cli.organisation_file import Change, Fields, changes_to, left_alone, read_file
from gateway.cli.output import cell_text, print_json
from gateway.wire.scopes import stored_settings
from gateway.wire.wish import COLLECTIONS


def main(argv: Sequence[str]) -> int:
    """Returns 1 where something differs and was not changed."""
    arguments = apply_parser().parse_args(argv)
    wanted = read_file(arguments.file)
    with connect(arguments) as control_plane:
        current = dict(_scopes_at(control_plane, arguments.org, _kinds_for(wanted)))
        changes, others = changes_to(wanted, current), left_alone(wanted, current)
        if not arguments.json:
            _show(changes, others, unchanged=len(wanted) - len(changes))
        made: list[JSONObject] = []
        agreed = bool(changes) and not arguments.check and (arguments.yes or _is_agreed(arguments))
        try:
            if agreed:
                _carry_out(control_plane, changes, arguments.org, made, show=not arguments.json)
        finally:  # whatever stopped it half-way: the secrets of keys that were made are told nowhere else
            if arguments.json:
                print_json(_report(changes, others, made))
    return 0 if agreed or not changes else 1


def apply_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gateway apply",
        description="make teams, users, keys and their settings as a file says; what it does not name stays as it is. "
        "The difference is shown first; the same file again changes nothing",
    )
    add_connection_arguments(parser)
    parser.add_argument("file", type=Path, help="such as config/organisation.toml, which shows the form")
    going = parser.add_mutually_exclusive_group()
    going.add_argument("--yes", action="store_true", help="make the changes without asking")
    going.add_argument("--check", action="store_true", help="only show them; exit code 1 where there are any")
    return parser


def _kinds_for(wanted: Mapping[Scope, Fields]) -> Sequence[ScopeKind]:
    """Those to be read: without need not the organisation, which a team's administrator may not read."""
    named = any(scope.kind == "organisation" for scope in wanted)
    return [kind for kind in COLLECTIONS if named or kind != "organisation"]


def _scopes_at(
    control_plane: ControlPlane, org: str | None, kinds: Sequence[ScopeKind]
) -> Iterator[tuple[Scope, ScopeSettings]]:
    for kind in kinds:
        for found in control_plane.items(COLLECTIONS[kind], org=org):
            settings = stored_settings(kind, found)
            yield settings.scope, settings


def _is_agreed(arguments: argparse.Namespace) -> bool:
    if arguments.json or not sys.stdin.isatty():
        print("Nothing was changed; --yes makes these changes.", file=sys.stderr)
        return False
    return input("\nMake these changes? [y/N] ").strip().lower() in ("y", "yes")


def _carry_out(
    control_plane: ControlPlane, changes: Sequence[Change], org: str | None, made: list[JSONObject], *, show: bool
) -> None:
    """Make the changes one by one; what is answered is added to `made`. Raises CommandError: one could not be made."""
    for change in changes:
        try:
            answer = _send(control_plane, change, org)
        except CommandError as error:
            rest = f"{len(made)} of {len(changes)} changes were made; mend it and apply the file again for the rest"
            raise CommandError(f"{change.scope.kind} {change.scope.id}: {error}\n{rest}") from None
        made.append(answer)
        if show:
            print(f"{'created' if change.before is None else 'changed'} {change.scope.kind} {change.scope.id}")
            if secret := answer.get("key"):
                print(f"  its secret, which is not kept and will not be shown again:\n{secret}", flush=True)


def _send(control_plane: ControlPlane, change: Change, org: str | None) -> JSONObject:
    collection = COLLECTIONS[change.scope.kind]
    if change.before is None:
        return control_plane.post(collection, change.fields | ({"org": org} if org else {}))
    return control_plane.patch(path_of(collection, change.scope.id), change.fields, org=org)


def _show(changes: Sequence[Change], others: Sequence[Scope], *, unchanged: int) -> None:
    for change in changes:
        before = change.before or {}
        print(f"{'+' if change.before is None else '~'} {change.scope.kind} {change.scope.id}")
        for name, value in change.after.items():
            new = _value_text(name, value)
            if change.before is not None:
                print(f"    {name}: {_value_text(name, before[name])} → {new}")
            elif value not in (None, "", [], {}, False):
                print(f"    {name}: {new}")
    for other in others:
        print(f"  {other.kind} {other.id} is not in the file and stays as it is")
    create = sum(change.before is None for change in changes)
    print(f"\n{create} to create, {len(changes) - create} to change, {unchanged} as the file says.")


def _value_text(name: str, value: object) -> str:
    """A setting in a few words; control characters of what others typed never reach the terminal."""
    if name == "budgets" and isinstance(value, list):
        return cell_text([_budget_text(each) for each in value]) or "none"
    if isinstance(value, dict):
        return cell_text([f"{limit} {count}" for limit, count in value.items()]) or "none"
    if name == "models" and value is None:
        return "all"
    return cell_text(value) or "none"


def _budget_text(budget: Mapping[str, object]) -> str:
    amount = f" {budget['limit_usd']}" if "limit_usd" in budget else ""
    told = f" (told at {cell_text(budget['soft_percent'])} %)" if budget.get("soft_percent") else ""
    return f"{budget['window']}{amount}{told}"


def _report(changes: Sequence[Change], others: Sequence[Scope], made: Sequence[JSONObject]) -> JSONObject:
    return {
        "changes": [
            {"scope": change.scope.kind, "id": change.scope.id, "before": change.before, "after": change.after}
            for change in changes
        ],
        "left_alone": [{"scope": scope.kind, "id": scope.id} for scope in others],
        "made": len(made),
        "keys": [{"id": answer["id"], "key": answer["key"]} for answer in made if "key" in answer],
    }
