"""`gateway demo`: the whole gateway on this machine, with a sample organisation and live traffic, free and offline.

command       the order of things: start, traffic, summary, serve until stopped
stage         the demo's folder, and its child processes: emulator and gateway (which brings its own Valkey)
organisation  the sample teams, users, keys and budgets
traffic       who asks for what, again and again
tally         what the clients heard, counted
progress      one line about what is going on
books         the gateway's ledger against the emulator's bill, call by call
summary       who spent what, who was refused and why, and what to try next
"""
