"""Answers of a chat upstream, byte for byte, with what a meter must say about each.

The plain one is the seed's own sample (seed 000_…, "Phản hồi"); the others differ from it by one thing.
"""

from dataclasses import dataclass

from gateway.billing.usage import Usage
from gateway.wire.call import Call, Outcome

HEAD = (
    '{"id":"chatcmpl-B5qoZsT8kFDNJK3UyGLiJmjv6Pp90","object":"chat.completion.chunk","created":1740734359,'
    '"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_06737a9306",'
)
CALL = Call(
    kind="chat",
    model="gpt-4o-mini",
    body=b"{}",
    bound=Usage(prompt_tokens=100, completion_tokens=1000),
    usage_max=Usage(prompt_tokens=128_000, completion_tokens=16_384),
    completion_tokens_max=1000,
)
SEED = Usage(prompt_tokens=17, completion_tokens=3)
KNOWN = Outcome(usage=SEED, began=True)


@dataclass(frozen=True)
class Recording:
    """One answer and the outcome it must have once all of it was fed."""

    name: str
    body: bytes
    outcome: Outcome
    done: bool = True


def content(text: str, index: int = 0) -> str:
    """A chunk that says `text`, which stands in it as it is: escape it yourself."""
    choice = f'{{"index":{index},"delta":{{"content":"{text}"}},"logprobs":null,"finish_reason":null}}'
    return f'{HEAD}"choices":[{choice}],"usage":null}}'


def usage(counts: str = '"prompt_tokens":17,"completion_tokens":3,"total_tokens":20') -> str:
    """The last chunk of an answer, with these members in its usage."""
    return f'{HEAD}"choices":[],"usage":{{{counts}}}}}'


FINISH = f'{HEAD}"choices":[{{"index":0,"delta":{{}},"logprobs":null,"finish_reason":"stop"}}],"usage":null}}'
DONE = "[DONE]"
SPOKEN = (content("Ok"), content("."), FINISH)


def stream(*events: str, end: str = "\n") -> bytes:
    """Events as an upstream sends them."""
    return "".join(f"data: {event}{end}{end}" for event in events).encode()


def estimated(text: str, *, anomaly: bool = False) -> Outcome:
    """What is known without usage."""
    return Outcome(anomaly=anomaly, began=True, text=text)


def _odd(name: str, counts: str) -> Recording:
    return Recording(name, stream(*SPOKEN, usage(counts), DONE), estimated("Ok.", anomaly=True))


PLAIN = stream(*SPOKEN, usage(), DONE)
COMPLETION = (
    '{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant",'
    '"content":"Ok."},"finish_reason":"stop"}]'
)
SPLIT_DATA = usage().replace('"usage"', '\ndata: "usage"')

RECORDINGS = [
    Recording("plain", PLAIN, KNOWN),
    Recording("CRLF", stream(*SPOKEN, usage(), DONE, end="\r\n"), KNOWN),
    Recording("CR", stream(*SPOKEN, usage(), DONE, end="\r"), KNOWN),
    Recording("mixed line ends", stream(*SPOKEN) + stream(usage(), end="\r") + stream(DONE, end="\r\n"), KNOWN),
    Recording("byte-order mark", b"\xef\xbb\xbf" + PLAIN, KNOWN),
    Recording("comments", b": hello\n\n" + PLAIN.replace(b"\n\n", b"\n: ping\nid: 7\n\n"), KNOWN),
    Recording("no blank after the colon", PLAIN.replace(b"data: ", b"data:"), KNOWN),
    Recording("spaces in the JSON", PLAIN.replace(b'"usage":null', b'"usage" : null '), KNOWN),
    Recording("data over several lines", stream(*SPOKEN, SPLIT_DATA, DONE), KNOWN),
    Recording("nothing after the usage", stream(*SPOKEN, usage()), KNOWN),
    Recording("no blank line at the end", stream(*SPOKEN, usage()).rstrip(b"\n"), KNOWN, done=False),
    Recording("usage twice, the last wins", stream(usage('"prompt_tokens":1,"completion_tokens":1')) + PLAIN, KNOWN),
    Recording("a valid usage, then an odd one", stream(usage(), usage('"prompt_tokens":-1')), KNOWN),
    Recording(
        "an explicit zero",
        stream(*SPOKEN, usage('"prompt_tokens":0,"completion_tokens":0'), DONE),
        Outcome(usage=Usage(), began=True),
    ),
    Recording(
        "cached tokens",
        stream(usage('"prompt_tokens":17,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":16}')),
        Outcome(usage=Usage(prompt_tokens=17, completion_tokens=3, cached_tokens=16), began=True),
    ),
    Recording(
        "more cached tokens than tokens",
        stream(usage('"prompt_tokens":17,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":18}')),
        KNOWN,
    ),
    _odd("negative", '"prompt_tokens":17,"completion_tokens":-3'),
    _odd("boolean", '"prompt_tokens":true,"completion_tokens":3'),
    _odd("float", '"prompt_tokens":17.0,"completion_tokens":3'),
    _odd("string", '"prompt_tokens":"17","completion_tokens":3'),
    _odd("above the context", '"prompt_tokens":128001,"completion_tokens":3'),
    _odd("above the output", '"prompt_tokens":17,"completion_tokens":16385'),
    _odd("beyond 64 bits", '"prompt_tokens":17,"completion_tokens":' + "9" * 400),
    _odd("half missing", '"prompt_tokens":17'),
    Recording("no usage", stream(*SPOKEN, DONE), estimated("Ok.")),
    Recording("cut in an event", stream(*SPOKEN) + b'data: {"choi', estimated("Ok."), done=False),
    Recording("cut before a blank line", stream(*SPOKEN).rstrip(b"\n"), estimated("Ok."), done=False),
    Recording("broken event", stream(content("Ok"), '{"usage": oops', content("."), DONE), estimated("Ok.")),
    Recording("several choices", stream(content("a"), content("x", 1), content("b"), DONE), estimated("ab\nx")),
    Recording("split characters", stream(content("Xin chào 世界 שלום 😀"), DONE), estimated("Xin chào 世界 שלום 😀")),
    Recording("U+2028 is text", stream(content("a\u2028b\u2029c\x85d"), DONE), estimated("a\u2028b\u2029c\x85d")),
    Recording(
        "usage inside content",
        stream(content(r"{\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":9}}"), content("usage"), DONE),
        estimated('{"usage":{"prompt_tokens":9,"completion_tokens":9}}usage'),
    ),
    Recording("error event only", stream('{"error":{"message":"no"}}'), Outcome(), done=False),
    Recording("nothing", b"", Outcome(), done=False),
    Recording("HTML", b"<!doctype html>\n<p>data: none</p>\n\n", Outcome(), done=False),
    Recording("JSON error", b'{"error":{"message":"no"},"usage":null}', Outcome(), done=False),
    Recording(
        "JSON completion",
        f' \n{COMPLETION},"usage":{{"prompt_tokens":17,"completion_tokens":3}}}}\n'.encode(),
        KNOWN,
        done=False,
    ),
    Recording("JSON without usage", f"{COMPLETION}}}".encode(), estimated("Ok."), done=False),
    Recording("JSON cut", COMPLETION.encode(), Outcome(began=True, text_complete=False), done=False),
]
