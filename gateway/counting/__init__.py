"""Counting tokens in a process of its own, so that nobody waits while tiktoken is loaded (ADR 0029).

`counter` is the gateway's end, `process` the other one, `question` what goes between them.
"""
