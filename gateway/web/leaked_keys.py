"""What a request is answered whose URL holds a key, whatever it asks for, on both planes."""

import time

from gateway.billing.errors import InvalidRequest
from gateway.call_log import CallRecord
from gateway.metrics import NONE
from gateway.web.edge import answer_call
from gateway.web.exchange import Exchange
from gateway.web.services import Services

_ADVICE = (
    "The address of this request holds an API key. Addresses are kept in logs on the way, so treat that key as leaked: "
    "rotate it, and send the new one in the header Authorization: Bearer … alone."
)


class KeyInURL:
    """Refuses the call without a look at the key, and without a word of the URL anywhere."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def __call__(self, exchange: Exchange) -> None:
        record = CallRecord(NONE, exchange.request_id, time.perf_counter())
        answer_call(self._serve, exchange, record, self._services, {})

    async def _serve(self, _exchange: Exchange, _record: CallRecord) -> None:
        raise InvalidRequest(_ADVICE)
