"""From what an answer proved to how its hold ends. Pure: it decides, `web` posts.

| what was seen | the hold is | usage | flags |
| --- | --- | --- | --- |
| a valid usage | captured at its cost | upstream's | overrun, if above the hold |
| only impossible usage | captured whole | the bound | anomaly |
| an image job that another call has already | captured at its price | the bound | anomaly |
| content, but no usage | captured: prompt + what was streamed | tiktoken's | estimated |
| an event stream that was cut before anything came | captured: the prompt | tiktoken's | estimated |
| no answer at all, though sent | captured: prompt (chat) or price (unit) | tiktoken's | estimated, unanswered |
| nothing billable | released | none | |
"""

from collections.abc import Sequence

from gateway.billing.ledger import ANOMALY, ESTIMATED, OVERRUN, RELEASE, UNANSWERED, Posting, Progress
from gateway.billing.prices import ModelPrice
from gateway.billing.usage import Usage
from gateway.wire.call import Call, CountPrompt, Outcome, PromptText


def posting_of(
    call: Call, price: ModelPrice, hold_nano_usd: int, outcome: Outcome, *, cut: bool = False
) -> Posting | None:
    """How the hold ends, or None where only an estimate can tell (`estimate`, which is slow).

    `cut`: the answer began and was broken off, timed out or left before its own end. What it would have said is not
    known, so that nothing was seen proves nothing: its prompt was read.
    """
    if outcome.usage is not None:
        cost = price.cost_of(outcome.usage)
        return Posting("capture", cost, outcome.usage, "upstream", (OVERRUN,) if cost > hold_nano_usd else ())
    if outcome.anomaly:
        return Posting("capture", hold_nano_usd, call.bound, "estimated", (ANOMALY,))
    return None if outcome.began or cut else RELEASE


def estimate(
    call: Call,
    price: ModelPrice,
    hold_nano_usd: int,
    outcome: Outcome,
    count: CountPrompt,
    prompt_tokens: int | None = None,
) -> Posting:
    """Charge the prompt and what was streamed, never more than was held. Counts tokens: run it off the event loop.

    `prompt_tokens`: what the prompt was counted to be before.
    """
    usage = Usage(
        prompt_tokens=prompt_tokens if prompt_tokens is not None else prompt_tokens_of(call, count),
        completion_tokens=_streamed_tokens(call, outcome, count),
        units=call.bound.units,
    )
    return Posting("capture", min(price.most_of(usage), hold_nano_usd), usage, "estimated", (ESTIMATED,))


def unanswered(call: Call, price: ModelPrice, hold_nano_usd: int, count: CountPrompt) -> Posting:
    """The request left whole and no answer came: charge the prompt, or the price of a unit. Counts tokens."""
    usage = Usage(prompt_tokens=prompt_tokens_of(call, count), units=call.bound.units)
    cost = min(price.most_of(usage), hold_nano_usd)
    return Posting("capture", cost, usage, "estimated", (ESTIMATED, UNANSWERED))


def disowned(posting: Posting) -> Posting:
    """The same charge where the job that the upstream named is another call's: what it has billed is not known."""
    return posting._replace(usage_source="estimated", flags=(*posting.flags, ANOMALY))


def together(price: ModelPrice, postings: Sequence[Posting]) -> Posting:
    """The one end of a hold that several submissions shared, from how it would end for each of them alone.

    What was charged is charged, what was released is not. Flags are those of any: where one submission's charge is an
    estimate, the whole entry says so.
    """
    charged = [posting for posting in postings if posting.type == "capture"]
    if not charged:
        return RELEASE
    usage = Usage(*map(sum, zip(*(posting.usage for posting in charged), strict=True)))
    flags = tuple(dict.fromkeys(flag for posting in charged for flag in posting.flags))
    exact = all(posting.usage_source == "upstream" for posting in charged)
    return Posting("capture", price.cost_of(usage), usage, "upstream" if exact else "estimated", flags)


def so_far_unheard(price: ModelPrice, bound: Usage, hold_nano_usd: int) -> Progress:
    """What a call is charged of which nothing was heard since its admission: its prompt, or the price of a unit."""
    usage = Usage(prompt_tokens=bound.prompt_tokens, units=bound.units)
    return Progress(min(price.most_of(usage), hold_nano_usd), usage)


def counted_bound(call: Call, count: CountPrompt) -> Usage:
    """The call's bound with its prompt counted instead of measured in bytes. Counts tokens."""
    return Usage(
        prompt_tokens=prompt_tokens_of(call, count),
        completion_tokens=call.bound.completion_tokens,
        units=call.bound.units,
    )


def least_bound(call: Call) -> Usage:
    """What no count can bring the bound below: a call whose prompt has no text to count keeps its bound."""
    if call.prompt is None:
        return call.bound
    return Usage(
        prompt_tokens=min(call.prompt.extra_tokens, call.bound.prompt_tokens),
        completion_tokens=call.bound.completion_tokens,
        units=call.bound.units,
    )


def prompt_tokens_of(call: Call, count: CountPrompt) -> int:
    """The prompt's tokens, counted; its bound where it has no text. Counts tokens: run it off the event loop."""
    if call.prompt is None:
        return call.bound.prompt_tokens
    return count(call.prompt, call.bound.prompt_tokens)


def _streamed_tokens(call: Call, outcome: Outcome, count: CountPrompt) -> int:
    if not outcome.text_complete:
        return call.completion_tokens_max
    return count(PromptText((outcome.text,), 0), call.completion_tokens_max)
