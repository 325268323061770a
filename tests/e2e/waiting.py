"""Waiting for what has no event of its own: asked again and again until it is so, never slept for luck."""

import time
from collections.abc import Callable
from typing import Literal, TypeVar

T = TypeVar("T")

_PAUSE_S = 0.02


def until(question: Callable[[], T | Literal[False] | None], timeout_s: float = 20) -> T:
    """The first answer that is true. Raises AssertionError with the last one after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not so after {timeout_s} s; the last answer was {answer!r}")
        time.sleep(_PAUSE_S)
