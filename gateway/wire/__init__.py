"""The wire formats, without I/O: requests are inspected here, answers are metered here.

`call` says what every endpoint has in common. `chat`, `images` and `flat` are the kinds of
endpoint. `strictjson` reads and writes bodies, `sse` splits event streams, `tokens` counts,
`headers` says what passes. Nothing here awaits, reads a clock or reads the environment.
"""
