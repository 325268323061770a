"""Redis: the ledger, the scopes, the image jobs and the reports.

The only package that imports redis and the only one that knows how anything is stored. Whatever must be
atomic is one Lua script (`lua/`, one file each); the Python beside it turns values into keys and arguments and replies
into values. An expected refusal is a value (`OverBudget`, `Blocked`), a fault is `LedgerUnavailable`.
"""
