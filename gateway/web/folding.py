"""A chat answer for a client of OpenAI's API: as a stream, or as one object made of the stream when it is whole.

Of one object nothing is sent before the call is settled, so whatever goes wrong is still an answer with a status of its
own. Such a client takes every status 200 for an answer of the model's, so what is none is not passed on as one.
"""

from gateway.billing.errors import GatewayError, UpstreamBrokeOff, UpstreamError, UpstreamTimeout
from gateway.billing.ledger import INEXACT, Posting
from gateway.upstream.leg import BrokenOff, CutOff, Stalled, UpstreamAnswer
from gateway.web.errors import Header
from gateway.web.exchange import ClientLeft, Exchange
from gateway.web.relay import MAY_BE_BILLED, HeldCall, Relay
from gateway.web.services import Services
from gateway.wire.call import Endpoint
from gateway.wire.filtered import Filtered
from gateway.wire.folded import Folded, is_completion
from gateway.wire.presentation import AS_SENT, AsSent, Presentation

_JSON: Header = (b"content-type", b"application/json")
_OF_A_STREAM = (b"content-type", b"cache-control", b"x-accel-buffering")


def relay_of(
    presentation: Presentation, endpoint: Endpoint, services: Services, exchange: Exchange, held: HeldCall
) -> Relay:
    """The relay of an admitted call that shows its answer as it was asked for."""
    secret = services.upstream_keys[held.hold.principal.org].secret
    if presentation is AS_SENT:
        return Relay(endpoint, services, exchange, held, AsSent(secret))
    if presentation.folded:
        folded = Folded(presentation, secret, services.limits.whole_answer_bytes_max)
        return FoldingRelay(endpoint, services, exchange, held, folded)
    if presentation.choices:
        return OpenAIRelay(endpoint, services, exchange, held, Filtered(presentation, secret))
    return Relay(endpoint, services, exchange, held, Filtered(presentation, secret))


class OpenAIRelay(Relay):
    """As `Relay`, but that an answer which is no stream is an error to who asked for one."""

    def _misfit(self, body: bytes, posting: Posting) -> GatewayError | None:
        return _failure(None, "The upstream answered without the stream it was asked for.", posting)


class FoldingRelay(Relay):
    """As `Relay`, but for how an answer that comes as events is brought to the client.

    One that is an object already passes, if it is one of chat.
    """

    def __init__(
        self, endpoint: Endpoint, services: Services, exchange: Exchange, held: HeldCall, folded: Folded
    ) -> None:
        super().__init__(endpoint, services, exchange, held, folded)
        self._folded = folded

    async def _stream(self, answer: UpstreamAnswer, headers: list[Header], first: bytes) -> None:
        fault = await self._copied(answer, first)
        posting = await self._metered(cut=fault is not None or self._cut_short)
        missing = self._folded.missing()
        if missing:
            await self._post(posting)
            raise ClientLeft if self._exchange.gone else _failure(fault, missing, posting)
        body = self._folded.end(posting.cost_nano_usd, whole=True)
        shown = [_JSON, *(header for header in headers if header[0] not in _OF_A_STREAM)]
        await self._post(posting, answer=self._kept_whole(answer.status, shown, body, posting))
        await self._exchange.answer(answer.status, shown, body)

    def _misfit(self, body: bytes, posting: Posting) -> GatewayError | None:
        return None if is_completion(body) else _failure(None, "The upstream answered with what is no chat.", posting)


def _failure(fault: BrokenOff | None, missing: str, posting: Posting) -> GatewayError:
    """What a caller hears who gets no object, and whether repeating the call may cost again."""
    if posting.type == "release":
        return UpstreamError(f"{missing} Nothing was billed.")
    if INEXACT.isdisjoint(posting.flags):
        return UpstreamBrokeOff(f"{missing} The call was billed; repeating it costs again.")
    if isinstance(fault, CutOff | Stalled):
        return UpstreamTimeout(f"{missing} {MAY_BE_BILLED}")
    return UpstreamBrokeOff(f"{missing} {MAY_BE_BILLED}")
