"""`gateway COMMAND …`: finds the command's module, runs it, turns errors into one line and an exit code."""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from gateway.cli.errors import CommandError


class Command(NamedTuple):
    """`module` has `main(argv) -> int | None`; it is imported only when the command is called."""

    module: str
    summary: str


COMMANDS = {
    "demo": Command("gateway.cli.demo.command", "see it all on this machine: free, offline, with live traffic"),
    "serve": Command("gateway.cli.serve", "run the gateway"),
    "emulator": Command("gateway.emulator.__main__", "run MiniToolAI on this machine: free, offline, with faults"),
    "apply": Command("gateway.cli.apply", "make teams, users, keys and their settings as a file says"),
    "organisations": Command("gateway.cli.organisations", "list, show, set, block and unblock the organisation"),
    "teams": Command("gateway.cli.teams", "create, list, show, set, block and unblock teams"),
    "users": Command("gateway.cli.users", "create, list, show, set, block and unblock users"),
    "budgets": Command("gateway.cli.budgets", "list budgets, the fullest first; set and remove them"),
    "keys": Command("gateway.cli.keys", "create, list, show, set, block, unblock and revoke sub-keys"),
    "credit": Command("gateway.cli.credit", "pay into a prepaid budget, or move credit between two"),
    "prices": Command("gateway.cli.prices", "list prices and when they begin; set one from a day on"),
    "usage": Command("gateway.cli.usage", "report who spent what: a table, CSV or JSON"),
    "ledger": Command("gateway.cli.ledger", "list the ledger's entries; verify, correct and archive the books"),
    "reconcile": Command("gateway.cli.reconcile", "hold the ledger against what MiniToolAI billed"),
    "holds": Command("gateway.cli.holds", "list the money held by calls that are running"),
    "audit": Command("gateway.cli.audit", "list who changed what, and how it ended"),
    "doctor": Command("gateway.cli.doctor", "check what the gateway needs, and say what to do"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 called wrongly, 130 interrupted."""
    name, *rest = sys.argv[1:] if argv is None else argv or ["--help"]
    if name in ("-h", "--help", "help"):
        print(help_text())
        return 0
    command = COMMANDS.get(name)
    if command is None:
        print(f"gateway: {unknown_command(name)}", file=sys.stderr)
        return 2
    try:
        code: int = importlib.import_module(command.module).main(rest) or 0
        sys.stdout.flush()  # here a reader that left is caught; at exit Python would complain of it
        return code
    except CommandError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has gone. What is left goes nowhere, or the flush at exit would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def help_text() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())
    return f"""usage: gateway COMMAND …

{commands}

`gateway COMMAND --help` explains one. Commands about a running gateway take --url (or GATEWAY_URL) and
the administrator's key from GATEWAY_ADMIN_KEY or the data directory; with --json they print JSON."""


def unknown_command(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean `{near[0]}`?" if near else "`gateway --help` lists them."
    return f"there is no command `{name}`; {hint}"


if __name__ == "__main__":
    sys.exit(main())
