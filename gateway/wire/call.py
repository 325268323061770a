"""What an inspected request and a metered answer look like, whatever the endpoint.

An `Endpoint` is one row of the table of paths. It turns the decoded body of a request into a
`Call` (what to send, and the most it can use) and makes the `Meter` that reads the answer and
ends in an `Outcome` (what was used). Whoever adds an endpoint adds a row; nothing above this
package needs to know how a request of that kind looks.

Everything here is a value: no I/O, no clock, no await.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from gateway.billing.prices import PriceList
from gateway.billing.usage import Usage
from gateway.wire.presentation import Presentation
from gateway.wire.strictjson import JSONObject


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path of the data plane: how its requests are read, sent and metered.

    `path` and `upstream_path` begin with a slash; a path is served with and without one at its end. `kind` is the
    ledger's kind ("chat", "image", …) and the kind of its price. `streamed` is False where the answer is small:
    it is then read whole and settled before its headers go out. `error_fields` are members that stand beside "error" in
    every error answer of this path. `present` says how a request wants its answer shown (`with_cost`: its header asks
    for the cost); None where there is one way only.
    """

    path: str
    upstream_path: str
    kind: str
    inspect: Callable[[JSONObject, PriceList], "Call"]
    new_meter: Callable[["Call"], "Meter"]
    streamed: bool
    error_fields: Mapping[str, object] = field(default_factory=dict)
    present: "Present | None" = None


class Present(Protocol):
    def __call__(self, fields: JSONObject, *, with_cost: bool) -> Presentation:
        """Raises InvalidRequest and UnsupportedParameter (400, `param` names the field)."""


class PromptText(NamedTuple):
    """What a tokenizer must count to know the prompt's tokens: `wire.tokens.count_prompt`.

    `extra_tokens` is what is not text: overheads of messages, images, schemas (an upper bound).
    """

    texts: tuple[str, ...]
    extra_tokens: int


CountPrompt = Callable[[PromptText, int], int]
"""Counts a prompt, up to a maximum: `wire.tokens.count_prompt`, or whoever does it elsewhere. Blocks."""


class Call(NamedTuple):
    """One request, validated, priced and ready to be sent.

    `body` is the JSON to send upstream: what was priced is what is sent. `bound` is the most the
    call can use and is what its hold must cover. `usage_max` is the most an answer to it can
    claim and still be believed (a claim between `bound` and `usage_max` is an overrun, above it
    an anomaly). `prompt` is None where there is no prompt to count. `completion_tokens_max` is
    over all choices together: n × the caller's maximum, each at most the model's own.
    """

    kind: str
    model: str
    body: bytes
    bound: Usage
    usage_max: Usage
    prompt: PromptText | None = None
    completion_tokens_max: int = 0

    def apart(self, body_bytes_max: int) -> tuple["Call", bytes]:
        """The call and its body; a larger one is taken out, for whoever remembers calls to their end."""
        return (self if len(self.body) <= body_bytes_max else self._replace(body=b"")), self.body


class Outcome(NamedTuple):
    """What an answer, or the part of it that was seen so far, proves.

    `usage` is the last valid usage the upstream claimed; `anomaly` says that it claimed usage but
    never a valid one. Without usage, `began` says whether anything billable was streamed, and
    `text` is what was (kept only for that case). `text_complete` is False when more was
    streamed than is kept: the estimate is then the call's bound.
    """

    usage: Usage | None = None
    anomaly: bool = False
    began: bool = False
    text: str = ""
    text_complete: bool = True


class Measured(Protocol):
    """Whatever knows what a call has used so far."""

    def outcome(self) -> Outcome:
        """Say what was seen so far."""


class Meter(Measured, Protocol):
    """Reads the body of one answer, in chunks split anywhere, in bounded memory.

    `feed` never raises for what the upstream sent. `outcome` may be asked for at any time and
    does not end the meter.
    """

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the answer's body."""

    @property
    def done(self) -> bool:
        """Whether the bill is known: whoever reads on only for its sake may stop."""
