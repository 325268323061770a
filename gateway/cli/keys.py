"""`gateway keys …`: the sub-keys that programs call with. A secret is shown once, when it is created."""

import argparse
from collections.abc import Sequence
from typing import get_args

from gateway.billing.principal import Role
from gateway.cli.control_plane import ControlPlane, path_of
from gateway.cli.output import print_json
from gateway.cli.scopes import Field, Group, new_scope, parser_of, print_scope, run

KEYS = Group(
    collection="keys",
    noun="key",
    fields=(
        Field("team", "the team's id; it never changes", required=True, changes=False),
        Field("user", "the user's id; it never changes", changes=False),
        Field("name", "where it is used"),
        Field("role", "what it may do in the control plane", choices=get_args(Role)),
        Field("expires_at", "an RFC 3339 instant, such as 2027-01-01T00:00:00Z"),
    ),
    columns=("id", "team", "user", "name", "blocked", "expires_at", "budgets", "models"),
    filters=("team", "user"),
    id_required=False,
)


def main(argv: Sequence[str]) -> int:
    revoking = (revoke, "end one key for good; block it instead to be able to take that back")
    rotating = (rotate, "give one key a new secret; the old one stays good for a while")
    parser = parser_of(
        KEYS,
        create_action=create_key,
        more_actions={"rotate": rotating, "revoke": revoking},
        more_options={"rotate": add_grace},
    )
    return run(parser, argv)


def add_grace(rotating: argparse.ArgumentParser) -> None:
    rotating.add_argument(
        "--grace-s",
        type=int,
        metavar="SECONDS",
        help="how long the old secret stays good: a day by default, 0 not at all",
    )


def create_key(group: Group, control_plane: ControlPlane, arguments: argparse.Namespace) -> int:
    """Print the new key's settings, then its secret alone on the last line.

    So a script may say `GATEWAY_KEY=$(gateway keys create … | tail -1)`.
    """
    answer = control_plane.post(group.collection, new_scope(group, arguments))
    print_scope(group, answer, as_json=arguments.json)
    if not arguments.json:
        print("\nThe secret is not kept and will not be shown again:")
        print(answer["key"])
    return 0


def rotate(group: Group, control_plane: ControlPlane, arguments: argparse.Namespace) -> int:
    """Print until when the old secret is good, then the new one alone on the last line."""
    body = {} if arguments.grace_s is None else {"grace_s": arguments.grace_s}
    answer = control_plane.post(path_of(group.collection, arguments.id) + "/rotate", body, org=arguments.org)
    if arguments.json:
        print_json(answer)
        return 0
    print(f"Key {arguments.id} has a new secret; the old one is good until {answer['old_secret_until']}.")
    print("The new one is not kept and will not be shown again:")
    print(answer["key"])
    return 0


def revoke(group: Group, control_plane: ControlPlane, arguments: argparse.Namespace) -> int:
    answer = control_plane.delete(path_of(group.collection, arguments.id), org=arguments.org)
    if arguments.json:
        print_json(answer)
    else:
        print(f"Key {arguments.id} is revoked; its next call is refused.")
    return 0
