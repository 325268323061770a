"""MiniToolAI's price list in integer nano-USD (1 USD = 1,000,000,000), as the emulator charges it.

Source: MiniToolAI's documentation, section "Giá API" (API prices). Every price is a whole number of
nano-USD per token, so integer arithmetic is exact. The gateway reads its own list from a file; a mistake
in one of the two shows up as a difference between ledger and bill.
"""

from __future__ import annotations

NANO_USD_PER_TOKEN: dict[str, tuple[int, int]] = {
    "gpt-4o-mini": (150, 600),
    "gpt-4o": (2_500, 10_000),
    "gpt-4.1": (2_000, 8_000),
    "gpt-4.1-mini": (400, 1_600),
    "gpt-4.1-nano": (100, 400),
}
"""Price of one prompt token and of one completion token, by chat model."""

IMAGE_NANO_USD = 1_500_000
"""Price of one image, whatever its model and size."""


def chat_nano_usd(model: str, prompt_tokens: int, completion_tokens: int) -> int:
    """Price of a chat call. Raises KeyError for a model without a price."""
    prompt_price, completion_price = NANO_USD_PER_TOKEN[model]
    return prompt_tokens * prompt_price + completion_tokens * completion_price
