"""Names of things that come from data, marked for translation; templates look them up and translate them."""

from collections.abc import Mapping


def marked(message: str) -> str:
    """Say that a text has a translation; it is translated where it is shown."""
    return message


KINDS: Mapping[str, str] = {
    "organisation": marked("Organisation"),
    "team": marked("Team"),
    "user": marked("User"),
    "key": marked("Key"),
}
LISTS: Mapping[str, str] = {"team": marked("Teams"), "user": marked("Users"), "key": marked("Keys")}
ROLES: Mapping[str, str] = {
    "admin": marked("Administrator"),
    "team_admin": marked("Team administrator"),
    "auditor": marked("Auditor"),
    "member": marked("Member"),
}
ROLES_OF_NEW_KEYS: Mapping[str, str] = {role: ROLES[role] for role in ("member", "team_admin", "auditor", "admin")}
"""What most keys are comes first."""
WINDOWS: Mapping[str, str] = {
    "total": marked("in total"),
    "day": marked("today"),
    "week": marked("this week"),
    "month": marked("this month"),
    "prepaid": marked("prepaid"),
}
SPANS: Mapping[str, str] = {
    "month": marked("Month"),
    "week": marked("Week"),
    "day": marked("Day"),
    "total": marked("Total"),
}
"""Windows of a budget with a limit, for a new one."""
CALLS: Mapping[str, str] = {"chat": marked("Chat"), "image": marked("Image")}
ENTRIES: Mapping[str, str] = {
    "capture": marked("Charged"),
    "release": marked("Not charged"),
    "expire": marked("Expired"),
    "late_capture": marked("Charged late"),
    "refund": marked("Given back"),
    "credit": marked("Credit"),
    "transfer": marked("Transfer"),
    "adjustment": marked("Adjustment"),
}
STATUSES: Mapping[str, str] = {
    "active": marked("Active"),
    "blocked": marked("Blocked"),
    "revoked": marked("Revoked"),
    "expired": marked("Expired"),
}
LIMITS: Mapping[str, str] = {
    "requests_per_minute": marked("Requests a minute"),
    "tokens_per_minute": marked("Tokens a minute"),
    "images_per_minute": marked("Images a minute"),
    "concurrent_requests": marked("Calls at once"),
}
REFUSALS: Mapping[str, str] = {
    "budget_exceeded": marked("The budget is used up"),
    "credit_exhausted": marked("The prepaid credit is used up"),
    "budget_held": marked("Running calls hold the rest of the budget"),
    "rate_limit_exceeded": marked("Too many calls, tokens or images a minute"),
    "concurrency_limit_exceeded": marked("Too many calls at once"),
    "request_exceeds_limit": marked("The call is larger than a whole minute allows"),
    "model_not_allowed": marked("The model is not allowed here"),
    "model_not_found": marked("The model has no price"),
    "scope_blocked": marked("Blocked by an administrator"),
    "expired_api_key": marked("The key has expired"),
    "invalid_api_key": marked("The key was revoked"),
    "request_too_large": marked("The request is too large"),
}
OTHER_REFUSAL = marked("The request was not valid")
LOGIN: Mapping[str, str] = {
    "invalid_api_key": marked("This key is not valid here."),
    "missing_api_key": marked("Enter a key."),
    "expired_api_key": marked("This key has expired."),
    "too_many_failures": marked("Too many wrong keys came from this address. Wait a little and try again."),
    "scope_blocked": marked("This key, or its user or team, is blocked."),
    "ledger_unavailable": marked("The ledger cannot be reached. Try again in a few seconds."),
}
REFUSED_CHANGES: Mapping[str, str] = {
    "permission_denied": marked("Your key may not make this change."),
    "not_found": marked("There is nothing here that you may see."),
    "already_exists": marked("This id is taken."),
    "precondition_failed": marked("Somebody else changed this at the same time. Look at it again, then send the form."),
    "idempotency_conflict": marked("This form was sent before, filled in differently. Nothing was done this time."),
    "idempotency_unreplayable": marked(
        "This form was sent before. The secret was shown then; it is kept nowhere and is not shown again."
    ),
    "ledger_unavailable": marked("The ledger cannot be reached. Try again in a few seconds."),
}
REFUSED_CHANGE = marked("This was not done.")
FAULTS: Mapping[int, str] = {
    400: marked("This address is not complete."),
    403: marked("This form was not sent from the dashboard. Open it again and send it from there."),
    404: marked("There is nothing here that you may see."),
    413: marked("That is more than a form of the dashboard takes."),
    503: marked("The ledger cannot be reached. Try again in a few seconds."),
}
FAULT = marked("The gateway failed at this page; its log has the cause.")
