"""The name of a request: in its answer, its log line and the books."""

import os
import time


def new_request_id() -> str:
    """Time-ordered, unique over all gateways: milliseconds, then 64 random bits, in hex."""
    return f"req-{time.time_ns() // 1_000_000:012x}{os.urandom(8).hex()}"
