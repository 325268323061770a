"""Usage that is missing, said twice, zero, impossible or above what was held: what is charged, how it is flagged."""

import re
from dataclasses import dataclass

from gateway.billing.ledger import ANOMALY, ESTIMATED, OVERRUN
from gateway.billing.money import parse_usd
from tests.e2e.client import CHAT, send
from tests.faults.reckoning import Figures, reckon
from tests.stack import Admin, Stack, chat

TOKENS, TOKENS_MAX = 5, 16
COUNTERS = (
    "gateway_usage_estimated_total",
    "gateway_usage_anomalies_total",
    "gateway_hold_overruns_total",
)


@dataclass(frozen=True)
class Odd:
    """A usage, and what must come of it: `charged` names the amount, `counted` is by how much each counter grows."""

    fault: str
    charged: str
    flags: tuple[str, ...] = ()
    counted: tuple[int, int, int] = (0, 0, 0)


WHOLE_HOLD = ("held", (ANOMALY,), (1, 1, 0))
ALL = (
    Odd("no_usage", "generated", (ESTIMATED,), (1, 0, 0)),
    Odd("no_usage;no_done", "generated", (ESTIMATED,), (1, 0, 0)),
    Odd("usage_twice", "claimed"),
    Odd("usage_zero", "claimed"),
    Odd("usage_negative", *WHOLE_HOLD),
    Odd("usage_bool", *WHOLE_HOLD),
    Odd("usage_float", *WHOLE_HOLD),
    Odd("usage_string", *WHOLE_HOLD),
    Odd("usage_huge", *WHOLE_HOLD),
    Odd("usage_more=11", "claimed"),
    Odd("usage_more=4000", "claimed", (OVERRUN,), (0, 0, 1)),
    Odd("usage_more=40000", *WHOLE_HOLD),
)


def test_odd_usage_is_charged_as_documented_flagged_and_counted(stack: Stack, figures: Figures) -> None:
    """Up to the call's own maximum a claim is an ordinary one, up to the model's an overrun, above it impossible."""
    admin = Admin(stack.gateway().url)
    key = admin.key("odd")["key"]
    for odd in ALL:
        before = counters(admin)
        body = chat(f"Odd [[fault:tokens={TOKENS};{odd.fault}]]", max_completion_tokens=TOKENS_MAX)
        answer = send(str(admin.http.base_url), CHAT, body, key)
        (line,) = [line for line in stack.bill()["lines"] if line["request_id"] == answer.request_id]
        (entry,) = admin.ledger(request_id=answer.request_id)
        amounts = {
            "held": parse_usd(answer.headers["x-gateway-hold-usd"]),
            "claimed": line["claimed_nano_usd"],
            "generated": line["generated_nano_usd"],
        }
        assert ("capture", list(odd.flags)) == (entry["type"], entry["flags"]), odd
        assert amounts[odd.charged] == entry["cost_nano_usd"], (odd, amounts)
        assert odd.counted == tuple(now - then for now, then in zip(counters(admin), before, strict=True)), odd
    reckoning = reckon(stack)
    assert [] == reckoning.faults()
    figures.add("odd usage", reckoning)


def counters(admin: Admin) -> tuple[int, ...]:
    """The counters, over all models."""
    text = admin.http.get("/metrics").text
    return tuple(
        sum(int(float(value)) for value in re.findall(rf"^{name}\{{.*\}} (\S+)$", text, re.MULTILINE))
        for name in COUNTERS
    )
