"""A scope as answers show it: what is set there, and of each budget what is spent, held and left."""

from gateway.billing.budget import Budget, Spans, instant
from gateway.billing.money import format_usd
from gateway.billing.scope import ScopeSettings
from gateway.store.packed import ScopeState
from gateway.wire.scopes import budget_json, settings_json


def scope_json(settings: ScopeSettings, state: ScopeState, spans: Spans) -> dict[str, object]:
    """A scope as answers show it: its settings, and for each budget what is spent, held and left."""
    return settings_json(settings) | {"budgets": [_budget_json(budget, state, spans) for budget in settings.budgets]}


def _budget_json(budget: Budget, state: ScopeState, spans: Spans) -> dict[str, object]:
    balance = state.balance(budget.window, spans)
    prepaid = budget.window == "prepaid"
    limit = state.credit.paid_in_nano_usd if prepaid else budget.limit_nano_usd
    amounts = {"paid_in": limit} if prepaid else {}
    amounts |= {
        "spent": balance.spent_nano_usd,
        "held": balance.held_nano_usd,
        "remaining": max(0, limit - balance.spent_nano_usd - balance.held_nano_usd),
    }
    return (
        budget_json(budget)
        | {f"{name}_usd": format_usd(amount) for name, amount in amounts.items()}
        | {f"{name}_nano_usd": amount for name, amount in amounts.items()}
        | {
            "starts_at": None if balance.span.end_ms is None else instant(balance.span.start_ms),
            "resets_at": None if balance.span.end_ms is None else instant(balance.span.end_ms),
        }
    )
