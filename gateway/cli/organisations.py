"""`gateway organisations …`: what bounds everybody together. The gateway's first start makes the one it serves."""

from collections.abc import Sequence

from gateway.cli.scopes import Field, Group, parser_of, run

ORGANISATIONS = Group(
    collection="organisations",
    noun="organisation",
    fields=(Field("name", "what people call it"),),
    columns=("id", "name", "blocked", "budgets", "models"),
    filters=(),
    id_required=True,
    creates=False,
)


def main(argv: Sequence[str]) -> int:
    return run(parser_of(ORGANISATIONS), argv)
