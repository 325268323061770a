"""Mixed calls to make, and how each must end in the books: over all kinds, models and faults."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.e2e.client import CHAT, IMAGES, JOBS, OPENAI_CHAT, send, stream
from tests.stack import Process, Stack, chat

CHAT_MODELS: tuple[str, ...] = ("gpt-4o-mini", "gpt-4o", "gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano")
IMAGE_MODELS: tuple[str, ...] = (
    *("realvision", "juggernaut", "autismmix", "dreamshaper", "valhalla", "mixrealistic", "campursari", "reality"),
    *("extrarealistic", "realism", "realgirls", "realityreborn", "amigo", "simplemix", "beautifulrealistic"),
)

CHAT_FACES: Sequence[tuple[str, Mapping[str, bool]]] = ((CHAT, {}), (OPENAI_CHAT, {"stream": True}), (OPENAI_CHAT, {}))
"""Ways to ask for a chat: MiniToolAI's own, OpenAI's stream, and its one object, which nobody can leave half-read."""

CHAT_FAULTS: Mapping[str, Sequence[str]] = {
    "exact": (
        *("", "", "", "crlf", "cr", "one_byte", "split=11", "u2028", "comment", "broken_event", "big_event=5000"),
        *("usage_twice", "usage_zero", "no_done", "usage_twice;no_done;crlf", "tokens=120", "delay=0.05", "gap=0.001"),
    ),
    "left": ("gap=0.002", "gap=0.002;crlf", "withhold_after=1;gap=0.001"),
    "estimated": (
        *("no_usage", "no_usage;no_done", "no_usage;cr", "reset_at=4", "reset_byte=700"),
        *("reset_at=0", "reset_byte=0", "reset_byte=30", "reset_byte=200"),
    ),
    "unanswered": ("reset", "gzip"),
    "anomaly": ("usage_negative", "usage_huge", "usage_bool", "usage_float", "usage_string"),
    "free": (
        *("status=500", "status=429", "status=400", "status=401", "status=402", "status=403;body=html"),
        *("json200", "html200", "redirect", "echo_key"),
    ),
}
"""Faults of chat calls by how the call must end in the books."""

IMAGE_FAULTS: Mapping[str, Sequence[str]] = {
    "exact": ("", "", "job_pending=3", "job_never", "split=5", "one_byte"),
    "refunded": ("job_fails",),
    "unanswered": ("reset", "gzip"),
    "free": ("no_job", "status=500", "status=402", "html200", "json200", "redirect"),
}


@dataclass(frozen=True)
class Planned:
    """One call to make. `key` is the number of its key; `ends` says how it must end in the books."""

    number: int
    key: int
    kind: str
    model: str
    fault: str
    ends: str

    @property
    def marker(self) -> str:
        return f"[[fault:{self.fault}]]" if self.fault else ""


@dataclass(frozen=True)
class Made:
    """What came of it; for an image whose job was polled here, also how that ended."""

    planned: Planned
    request_id: str
    status: int
    job: str = ""


def plan(calls: int, keys: int) -> Iterator[Planned]:
    """The same calls in every run: three quarters chat, one quarter images, every fault several times."""
    chance = random.Random(20261121)  # noqa: S311  # a plan that repeats, not a secret
    for number in range(calls):
        kind, faults, models = "chat", CHAT_FAULTS, CHAT_MODELS
        if number % 4 == 3:
            kind, faults, models = "image", IMAGE_FAULTS, IMAGE_MODELS
        ends = chance.choice(list(faults))
        yield Planned(number, chance.randrange(keys), kind, chance.choice(models), chance.choice(faults[ends]), ends)


def make(stack: Stack, gateways: Sequence[Process], key: str, planned: Planned) -> Made:
    """Make the call, by turns through each gateway."""
    url = gateways[planned.number % len(gateways)].url
    if planned.kind == "image":
        return _make_image(url, key, planned)
    path, shown = CHAT_FACES[planned.number % (2 if planned.ends == "left" else 3)]
    text = f"Call {planned.number}: nói gì đó. {planned.marker}"
    body = chat(text, planned.model, max_completion_tokens=200, **shown)
    if planned.ends != "left":
        answer = send(url, path, body, key)
        return Made(planned, answer.request_id, answer.status)
    with stream(url, path, body, key) as opened:
        opened.read_event()
    if "withhold" in planned.fault:
        stack.emulator.post("/__release")
    return Made(planned, opened.request_id, opened.status)


def _make_image(url: str, key: str, planned: Planned) -> Made:
    """Submit; every second job that ends is polled to its end here, the others are left to the gateway."""
    body = {"model": planned.model, "prompt": f"Picture {planned.number} {planned.marker}", "width": 256, "height": 256}
    answer = send(url, IMAGES, body, key)
    made = Made(planned, answer.request_id, answer.status)
    if planned.ends not in ("exact", "refunded") or planned.fault == "job_never" or planned.number % 8 == 3:
        return made
    job = {name: answer.json[name] for name in ("jobid", "signature")}
    state = "processing"
    while state == "processing":
        state = send(url, JOBS, job).json["status"]
    return Made(planned, answer.request_id, answer.status, state)
