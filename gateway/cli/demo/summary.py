"""The demo's summary: who spent what, who was refused and why, whether the books agree; and what to try next."""

import sys
import textwrap
from collections.abc import Mapping, Sequence

from gateway.cli.control_plane import ControlPlane, JSONObject
from gateway.cli.demo.amounts import usd
from gateway.cli.demo.books import Books
from gateway.cli.demo.organisation import KEYS
from gateway.cli.demo.stage import Stage
from gateway.cli.demo.tally import Tally
from gateway.cli.output import print_table

_WIDTH = 100
_DIFFERENCES_SHOWN_MAX = 10
_WINDOW_WORDS = {"total": "in total", "day": "a day", "week": "a week", "month": "a month"}
_TRIED_KEY = "an-notebook"
_EMPTY_KEY = "noam-sketches"


def print_summary(control_plane: ControlPlane, tally: Tally, books: Books, seconds: int) -> None:
    print(
        f"\n{tally.calls} calls in {seconds} seconds: {tally.answered} answered, {tally.refused} refused or failed, "
        f"{tally.left} left by their client in mid-stream."
    )
    for group, title in (("team", "Who spent what: teams"), ("user", "Users"), ("model", "Models")):
        _heading(title)
        budgets = {} if group == "model" else _budgets(control_plane, f"{group}s")
        rows = [_usage_row(row, group, budgets) for row in _by_cost(control_plane.get("usage", group_by=group)["data"])]
        columns = (group, "calls", "tokens_in", "tokens_out", "images", "cost")
        print_table((*columns, "budget", "left") if budgets else columns, rows, empty="Nothing was used.")
    _heading("Who was refused, and why")
    _print_refusals(tally)
    _heading("Do the books agree?")
    _print_books(books)


def print_what_to_try(stage: Stage, secrets: Mapping[str, str]) -> None:
    _heading("Try it: the gateway keeps serving. In another terminal, in this folder")
    print(f"""\
  export GATEWAY_URL={stage.gateway_url}
  export GATEWAY_KEY={secrets[_TRIED_KEY]}

  curl -N $GATEWAY_URL/api/chat-completions/ -H "Authorization: Bearer $GATEWAY_KEY" \\
       -H "Content-Type: application/json" \\
       -d '{{"model": "gpt-4o-mini", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
  python3 examples/chat.py "What is a ledger?"
  php examples/chat.php "What is a ledger?"
  sh examples/image.sh

  # OpenAI's clients take $GATEWAY_URL/v1 as their base URL, and the key (docs/clients.md):
  curl $GATEWAY_URL/v1/chat/completions -H "Authorization: Bearer $GATEWAY_KEY" \\
       -H "Content-Type: application/json" \\
       -d '{{"model": "gpt-4o-mini", "messages": [{{"role": "user", "content": "Hello!"}}]}}'

  # Noam's budget for today is used up: this is refused.
  GATEWAY_KEY={secrets[_EMPTY_KEY]} \\
       python3 examples/image.py""")
    _heading("As the administrator")
    print(f"""\
  export GATEWAY_URL={stage.gateway_url} GATEWAY_DATA_DIR={stage.folder}

  ./run usage --group-by user,model
  ./run ledger tail -n 5
  ./run users set noam --budget day=1.00   # and the refused image goes through
  ./run keys block {_TRIED_KEY}            # and the curl above is refused at once
  curl -H "Authorization: Bearer $(cat $GATEWAY_DATA_DIR/admin-key)" $GATEWAY_URL/metrics""")
    _heading("URLs and keys")
    print(f"  gateway        {stage.gateway_url}   (its log: {stage.gateway_log})")
    print(f"  for OpenAI's   {stage.gateway_url}/v1   (the base URL of OpenAI's clients)")
    print(f"  emulator       {stage.emulator_url}   (/__bill is its bill, /__faults what it can break)")
    print(f"  administrator  {stage.admin_key}")
    for key in KEYS:
        print(f"  {key['id']:<13}  {secrets[key['id']]}{_remark(key)}")
    print("\nServing until Ctrl-C.", flush=True)


def _usage_row(row: JSONObject, group: str, budgets: Mapping[str, tuple[str, str]]) -> JSONObject:
    budget, left = budgets.get(row[group] or "", ("", ""))
    return {
        group: row[group] or "(no user)",
        "calls": row["requests"],
        "tokens_in": row["prompt_tokens"],
        "tokens_out": row["completion_tokens"],
        "images": row["images"],
        "cost": usd(row["cost_nano_usd"]),
        "budget": budget,
        "left": left,
    }


def _by_cost(rows: Sequence[JSONObject]) -> list[JSONObject]:
    return sorted(rows, key=lambda row: -row["cost_nano_usd"])


def _budgets(control_plane: ControlPlane, collection: str) -> dict[str, tuple[str, str]]:
    """By scope: its budgets and what is left of each, in words."""
    return {
        scope["id"]: (
            ", ".join(f"${budget['limit_usd']} {_WINDOW_WORDS[budget['window']]}" for budget in scope["budgets"]),
            ", ".join(usd(budget["remaining_nano_usd"]) for budget in scope["budgets"]),
        )
        for scope in control_plane.items(collection)
    }


def _print_refusals(tally: Tally) -> None:
    refusals = sorted(tally.refusals.items(), key=lambda item: (item[0][1], item[0][0]))
    for (key, status, code), refused in refusals:
        print(f"{refused.count:>4} ×  {status} {code}   {key}")
        print(textwrap.fill(refused.message, _WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8))


def _print_books(books: Books) -> None:
    rows = [
        {"": "the gateway's ledger", "lines": f"{books.entries} entries", "sum": usd(books.ledger_nano_usd)},
        {"": "its reports", "lines": "by team", "sum": usd(books.reported_nano_usd)},
        {"": "the emulator's bill", "lines": f"{books.calls} calls", "sum": usd(books.bill_nano_usd)},
    ]
    print_table(("", "lines", "sum"), rows, empty="")
    print(f"Images that failed and were given back: {books.refunds}.")
    if books.agree:
        print("Yes: each call's entries equal its line of the bill to the nano-dollar, and no hold is open.")
        return
    print("NO:")
    for difference in books.differences[:_DIFFERENCES_SHOWN_MAX]:
        print(f"  {difference}")
    left_out = len(books.differences) - _DIFFERENCES_SHOWN_MAX
    if left_out > 0:
        print(f"  and {left_out} more")


def _remark(key: JSONObject) -> str:
    if key.get("blocked"):
        return "  blocked"
    if key.get("expires_at"):
        return "  expired"
    return ""


def _heading(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}\n{'-' * len(text)}")
