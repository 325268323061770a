"""How much is tried: a few rounds on every change, many where `FAULTS=long` is in the environment."""

import os

LONG = os.environ.get("FAULTS") == "long"
REPEATS = 20 if LONG else 2
"""How often a gateway is killed at each point."""
OUTAGE_S = 30.0 if LONG else 4.0
"""How long Redis is away while calls end."""
