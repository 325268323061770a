"""What becomes of an image when the gateway itself fails at it."""

import asyncio
from types import SimpleNamespace
from typing import cast

from gateway.billing.prices import ModelPrice
from gateway.billing.principal import Principal
from gateway.billing.usage import Usage
from gateway.call_log import CallRecord
from gateway.store.admission import HoldRequest
from gateway.web.relay import HeldCall
from gateway.web.services import Services, UpstreamKey
from gateway.web.settlement import Tasks
from gateway.web.submissions import Submissions
from gateway.wire.call import Call, Endpoint

PRICE = ModelPrice("realvision", "image", unit_pico_usd=3_000)
HOLD = HoldRequest("h", "req-1", Principal("o", "t", None, "k"), "image", "realvision", 6, "v1")


class Faulty:
    """A way upstream with a fault of ours in it."""

    async def send(self, *_: object) -> None:
        raise RuntimeError("a fault of ours")


def test_a_fault_of_ours_is_booked_and_is_not_to_be_repeated() -> None:
    """The image may have been submitted: whoever asks again may buy it twice."""

    services = SimpleNamespace(
        upstream=Faulty(),
        upstream_keys={"o": UpstreamKey("sk")},
        tasks=Tasks(),
        limits=SimpleNamespace(answer_s_max=60.0),
    )
    two = Usage(units=2)
    held = HeldCall(Call("image", "realvision", b"{}", two, two), PRICE, HOLD, CallRecord("/", "req-1", 0.0))
    endpoint = cast(Endpoint, SimpleNamespace(upstream_path="/"))
    submissions = asyncio.run(Submissions(endpoint, cast(Services, services), held).all())
    assert 2 * [(3, ("estimated", "unanswered"))] == [
        (each.posting.cost_nano_usd, each.posting.flags) for each in submissions
    ]
    assert [False, False] == [each.error.should_retry for each in submissions if each.error]
