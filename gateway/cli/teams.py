"""`gateway teams …`: the groups whose money is counted together."""

from collections.abc import Sequence

from gateway.cli.scopes import Field, Group, parser_of, run

TEAMS = Group(
    collection="teams",
    noun="team",
    fields=(Field("name", "what people call it"),),
    columns=("id", "name", "blocked", "budgets", "models"),
    filters=(),
    id_required=True,
)


def main(argv: Sequence[str]) -> int:
    return run(parser_of(TEAMS), argv)
