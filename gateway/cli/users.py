"""`gateway users …`: the people of a team."""

from collections.abc import Sequence

from gateway.cli.scopes import Field, Group, parser_of, run

USERS = Group(
    collection="users",
    noun="user",
    fields=(
        Field("team", "the team's id; it never changes", required=True, changes=False),
        Field("name", "what people call the user"),
    ),
    columns=("id", "team", "name", "blocked", "budgets", "models"),
    filters=("team",),
    id_required=True,
)


def main(argv: Sequence[str]) -> int:
    return run(parser_of(USERS), argv)
