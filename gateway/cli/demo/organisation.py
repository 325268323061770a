"""The sample organisation, in the shapes the control plane takes. Amounts are small, as the demo's spending is."""

from gateway.cli.control_plane import ControlPlane, JSONObject

TEAMS: tuple[JSONObject, ...] = (
    {"id": "research", "name": "Research", "budgets": [{"window": "month", "limit_usd": "25.00"}]},
    {
        "id": "support",
        "name": "Customer support",
        "budgets": [{"window": "day", "limit_usd": "2.00"}],
        "models": ["gpt-4o-mini", "gpt-4.1-nano"],
    },
    {"id": "marketing", "name": "Marketing", "budgets": [{"window": "week", "limit_usd": "10.00"}]},
)

USERS: tuple[JSONObject, ...] = (
    {"id": "an", "team": "research", "name": "An"},
    {"id": "linh", "team": "research", "name": "Linh", "budgets": [{"window": "day", "limit_usd": "0.50"}]},
    {"id": "minh", "team": "support", "name": "Minh"},
    {"id": "dana", "team": "marketing", "name": "Dana"},
    # Four images, and the day is over.
    {"id": "noam", "team": "marketing", "name": "Noam", "budgets": [{"window": "day", "limit_usd": "0.006"}]},
)

KEYS: tuple[JSONObject, ...] = (
    {"id": "an-notebook", "team": "research", "user": "an"},
    {"id": "an-trial", "team": "research", "user": "an", "budgets": [{"window": "total", "limit_usd": "0.002"}]},
    {"id": "linh-scripts", "team": "research", "user": "linh"},
    {"id": "nightly-batch", "team": "research", "budgets": [{"window": "day", "limit_usd": "0.02"}]},
    {"id": "minh-helpdesk", "team": "support", "user": "minh"},
    {"id": "website", "team": "support"},
    {"id": "dana-posters", "team": "marketing", "user": "dana"},
    {"id": "noam-sketches", "team": "marketing", "user": "noam"},
    {"id": "old-laptop", "team": "marketing", "user": "noam", "blocked": True},
    {"id": "contractor", "team": "support", "expires_at": "2026-01-01T00:00:00Z"},
)


def found(control_plane: ControlPlane) -> dict[str, str]:
    """Create teams, users and keys; returns each key's secret by its id."""
    for team in TEAMS:
        control_plane.post("teams", team)
    for user in USERS:
        control_plane.post("users", user)
    return {key["id"]: control_plane.post("keys", key)["key"] for key in KEYS}
