"""MiniToolAI gateway: sub-keys, budgets that cannot be overspent, and books that match the bill.

Where things live, from the inside out; imports point only inwards:

- `billing`    pure rules of money: prices, windows, budgets, entries
- `wire`       pure protocol: what a request may cost, what an answer used
- `counting`   tokens, counted in a process of its own
- `store`      Redis: the ledger, the scopes, the reports
- `upstream`   the HTTP leg to MiniToolAI
- `web`        the HTTP face: the proxied call, the control plane, health
- `app`        the composition root; `cli` the commands; `emulator` MiniToolAI on this machine
"""
