"""Amounts in the demo's tables."""

from gateway.billing.money import NANO_PER_USD


def usd(nano_usd: int) -> str:
    """All nine decimals, so that columns line up and every nano-dollar shows."""
    sign = "-" if nano_usd < 0 else ""
    whole, fraction = divmod(abs(nano_usd), NANO_PER_USD)
    return f"{sign}${whole}.{fraction:09d}"
