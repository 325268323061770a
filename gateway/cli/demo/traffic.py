"""Live traffic: who asks for what, again and again, and what the clients heard.

`ACTORS` is the whole script. Each actor goes through its requests in turn, streams answers to their end, polls images
until they are there, and comes back after a pause. Requests carry nothing but what MiniToolAI documents; a marker in
the prompt (`[[fault:…]]`) asks the emulator to misbehave.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from gateway.cli.control_plane import ControlPlane, JSONObject
from gateway.cli.demo.progress import Progress
from gateway.cli.demo.stage import Stage
from gateway.cli.demo.tally import Tally
from gateway.cli.errors import CommandError

STRANGER = "a made-up key"
_PAUSE_AFTER_REFUSAL_S = 1.5
_POLL_INTERVAL_S = 0.3
_POLLS_MAX = 100
_CALL_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Actor:
    """Who calls, and how. `at_once` requests are sent together; `leaves_after` events of an answer it hangs up."""

    key: str
    requests: tuple[JSONObject, ...]
    pause_s: float = 0.2
    at_once: int = 1
    leaves_after: int | None = None


def chat(model: str, text: str, **fields: Any) -> JSONObject:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def image(model: str, prompt: str) -> JSONObject:
    return {"model": model, "prompt": prompt, "width": 512, "height": 512}


ACTORS = (
    Actor(
        "an-notebook",
        (
            chat("gpt-4o", "Summarise what a double-entry ledger promises."),
            chat("gpt-4.1", "Vì sao bầu trời có màu xanh?"),
            chat("gpt-4o-mini", "What's the largest U.S. state by area?"),
        ),
    ),
    Actor(
        "linh-scripts",
        (
            chat("gpt-4.1-mini", "Dịch sang tiếng Anh: thuận buồm xuôi gió.", temperature=0.2),
            chat("gpt-4.1-nano", "מהי בירת וייטנאם?"),
            chat("gpt-4.1", "Write a haiku about rounding.", max_completion_tokens=200),
        ),
    ),
    # Hangs up in the middle of the answer: the gateway reads on, so that even this call's bill is exact.
    Actor("linh-scripts", (chat("gpt-4o", "Tell me a very long story."),), pause_s=1.5, leaves_after=4),
    # More at once than its budget has room for: what does not fit beside the running calls is asked to come back. The
    # upstream is told to think for a moment, so that they do run at once on any machine.
    Actor(
        "nightly-batch",
        (chat("gpt-4.1", "Label this ticket. [[fault:delay=0.7]]", max_completion_tokens=500),),
        pause_s=3.0,
        at_once=6,
    ),
    # Nearly empty from the start.
    Actor("an-trial", (chat("gpt-4o", "Just trying this out.", max_completion_tokens=100),), pause_s=0.5),
    Actor(
        "minh-helpdesk",
        (
            chat("gpt-4o-mini", "How do I reset my password?"),
            chat("gpt-4o-mini", "Tôi muốn đổi gói cước thì làm thế nào?"),
            chat("gpt-4.1-nano", "Is this message angry: 'Where is my parcel?'"),
        ),
    ),
    Actor(
        "website",
        (
            chat("gpt-4.1-nano", "Opening hours?"),
            chat("gpt-4o", "A question for a model this team may not use."),
            chat("gpt-4.1-nano", "Do you ship to Hà Nội?"),
        ),
        pause_s=0.4,
    ),
    Actor(
        "dana-posters",
        (
            image("realvision", "A lighthouse at dusk"),
            image("dreamshaper", "Paper boats on a canal"),
            # Charged when accepted, given back when the poll says that it failed.
            image("juggernaut", "A market street in the rain [[fault:job_fails]]"),
        ),
        pause_s=0.3,
    ),
    Actor("noam-sketches", (image("realism", "A fox, pencil on paper"),)),
    Actor("old-laptop", (chat("gpt-4o-mini", "Still there?"),), pause_s=4.0),
    Actor("contractor", (chat("gpt-4o-mini", "One last question."),), pause_s=6.0),
    Actor(STRANGER, (chat("gpt-4o-mini", "Let me in."),), pause_s=7.0),
    # Mistakes, and an upstream that fails: none of these costs anything.
    Actor(
        "an-notebook",
        (
            chat("gpt-4o-mini", "MiniToolAI has a bad moment. [[fault:status=500]]"),
            chat("gpt-5", "A model nobody has a price for."),
            chat("gpt-4o-mini", "Much too hot.", temperature=3),
        ),
        pause_s=1.0,
    ),
)


async def play(
    stage: Stage, control_plane: ControlPlane, secrets: Mapping[str, str], tally: Tally, seconds: int
) -> None:
    """Let all actors act for so many seconds, and every call in flight come to its end. Raises CommandError."""
    ended = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, ended.set)
    limits = httpx.Limits(max_connections=100)
    try:
        async with (
            httpx.AsyncClient(base_url=stage.gateway_url, timeout=_CALL_TIMEOUT_S, limits=limits) as http,
            asyncio.TaskGroup() as group,
        ):
            client = Client(http, secrets, tally)
            group.create_task(Progress(control_plane, tally, seconds).show(ended))
            for actor in ACTORS:
                group.create_task(perform(actor, client, ended))
    except ExceptionGroup as faults:
        expected, others = faults.split((httpx.HTTPError, CommandError))
        if expected is None or others is not None:
            raise
        raise CommandError(f"the gateway stopped answering; its log is {stage.gateway_log}") from None


async def perform(actor: Actor, client: "Client", ended: asyncio.Event) -> None:
    """One actor, until the end."""
    for request in itertools.cycle(actor.requests):
        outcomes = await asyncio.gather(*(client.call(actor, request) for _ in range(actor.at_once)))
        pause_s = actor.pause_s if all(outcomes) else max(actor.pause_s, _PAUSE_AFTER_REFUSAL_S)
        try:
            await asyncio.wait_for(ended.wait(), pause_s)
        except TimeoutError:
            continue
        return


class Client:
    """A client of MiniToolAI's documented API, pointed at the gateway. It counts what it hears."""

    def __init__(self, http: httpx.AsyncClient, secrets: Mapping[str, str], tally: Tally) -> None:
        self._http = http
        self._secrets = {**secrets, STRANGER: "sk-mt-default-" + "x" * 48}
        self._tally = tally

    async def call(self, actor: Actor, body: JSONObject) -> bool:
        """One chat or image, to its end. False: it was refused."""
        headers = {"authorization": f"Bearer {self._secrets[actor.key]}"}
        if "prompt" in body:
            return await self._image(actor, body, headers)
        async with self._http.stream("POST", "/api/chat-completions/", json=body, headers=headers) as response:
            if response.status_code != 200:
                await response.aread()
                return self._refused(actor, response)
            async for number in _event_numbers(response):
                if number == actor.leaves_after:
                    self._tally.left += 1
                    return True
        self._tally.answered += 1
        return True

    async def _image(self, actor: Actor, body: JSONObject, headers: dict[str, str]) -> bool:
        submitted = await self._http.post("/api/texttoimage/", json=body, headers=headers)
        if submitted.status_code != 200:
            return self._refused(actor, submitted)
        answer = submitted.json()
        job = {"jobid": str(answer["jobid"]), "signature": answer["signature"]}
        for _ in range(_POLLS_MAX):
            state = (await self._http.post("/api/texttoimage/jobs/", json=job, headers=headers)).json()
            if state["status"] in ("success", "error"):
                break
            await asyncio.sleep(_POLL_INTERVAL_S)
        self._tally.answered += 1
        return True

    def _refused(self, actor: Actor, response: httpx.Response) -> bool:
        error = response.json()["error"]
        upstream = response.headers.get("x-gateway-error-source") == "upstream"
        code = "(the upstream's own error)" if upstream else error["code"]
        self._tally.refuse(actor.key, response.status_code, code, error["message"])
        return False


async def _event_numbers(response: httpx.Response) -> AsyncIterator[int]:
    """Read a stream, counting its events from 1."""
    number = 0
    async for line in response.aiter_lines():
        if line.startswith("data:"):
            number += 1
            yield number
