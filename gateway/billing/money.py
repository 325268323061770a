"""Amounts: integer nano-USD inside, decimal strings outside, never a float.

Laws:
- 1 USD = 1,000,000,000 nano-USD. Every listed price is a whole number of nano-USD per token.
- Rates are integer pico-USD a token (1 nano = 1,000 pico), so a price below a nano-dollar stays exact.
- No amount exceeds `NANO_USD_MAX`: Lua inside Redis counts in doubles, exact below 2^53.
"""

import re
from typing import NewType

NanoUSD = NewType("NanoUSD", int)

NANO_PER_USD = 1_000_000_000
PICO_PER_NANO = 1_000

NANO_USD_MAX = NanoUSD(9_000_000 * NANO_PER_USD)
"""$9,000,000: the largest limit, balance or charge; below 2^53 nano-USD."""

_DECIMAL = re.compile(r"(\d{1,10})(?:\.(\d{1,12}))?", re.ASCII)


def parse_usd(text: object) -> NanoUSD:
    """Read a decimal string of dollars (`"25.00"`) as nano-USD.

    Raises ValueError: not a plain decimal string (a JSON number is refused, for it may be a float),
    finer than a nano-dollar, or above $9,000,000.
    """
    match = _DECIMAL.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError('an amount is a decimal string of dollars, such as "25.00"')
    whole, fraction = match[1], (match[2] or "").rstrip("0")
    if len(fraction) > 9:
        raise ValueError("an amount has at most nine decimals (one nano-dollar)")
    nano_usd = int(whole) * NANO_PER_USD + int(fraction.ljust(9, "0"))
    if nano_usd > NANO_USD_MAX:
        raise ValueError("an amount is at most 9000000.00 dollars")
    return NanoUSD(nano_usd)


def format_usd(nano_usd: int) -> str:
    """Write nano-USD as a decimal string: at least two decimals, no more than needed."""
    sign = "-" if nano_usd < 0 else ""
    whole, fraction = divmod(abs(nano_usd), NANO_PER_USD)
    digits = f"{fraction:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{digits}"


def nano_from_pico(pico_usd: int) -> NanoUSD:
    """Round a charge up to whole nano-USD: the one rounding a charge ever gets (ADR 0001)."""
    return NanoUSD(-(-pico_usd // PICO_PER_NANO))
