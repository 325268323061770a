"""An endpoint MiniToolAI has not documented yet, text to speech, as one row and one price through the whole gateway."""

import contextlib
import json
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import uvicorn

from gateway.app import Gateway
from gateway.billing.budget import Calendar
from gateway.billing.price_file import price_schedule
from gateway.billing.price_schedule import PriceSchedule
from gateway.settings import Settings
from gateway.web.protocol import protocol_for
from gateway.wire.call import Endpoint
from gateway.wire.flat import FlatField, FlatMeter, FlatRules, inspect_flat
from tests.e2e.client import CHAT, send
from tests.e2e.waiting import until
from tests.stack import ADMIN_KEY, UPSTREAM_KEY, Admin, chat

SPEECH = "/api/texttospeech/"
JINGLE = "/api/jingle/"
AUDIO = b"ID3\x04\x00" + bytes(range(256)) * 300
CHARACTER_NANO_USD = 15_000
CALL_NANO_USD = 2_500_000

SPEECH_RULES = FlatRules(
    kind="speech",
    fields={
        "model": FlatField("string", required=True),
        "input": FlatField("string", required=True),
        "speed": FlatField("number"),
    },
    characters_of="input",
)
JINGLE_RULES = FlatRules(kind="jingle", fields={"mood": FlatField("string", required=True)}, model="jingle-1")


def added_to(prices: Path) -> PriceSchedule:
    """The price list with the two prices that the invented endpoints need."""
    document = tomllib.loads(prices.read_text(encoding="utf-8"))
    document["units"] |= {
        "speech": {"usd": "0.000015", "models": ["voice-1"]},
        "jingle": {"usd": "0.0025", "models": ["jingle-1"]},
    }
    return price_schedule(document, Calendar(UTC))


def endpoint(path: str, rules: FlatRules) -> Endpoint:
    """One row of the table."""
    return Endpoint(
        path=path,
        upstream_path=path,
        kind=rules.kind,
        inspect=lambda fields, prices: inspect_flat(fields, rules, prices),
        new_meter=FlatMeter,
        streamed=False,
    )


class Voice(BaseHTTPRequestHandler):
    """An upstream that answers bytes, and fails when it is asked to."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str | None, object]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append((self.path, self.headers["authorization"], body))
        self.send_response(500 if "fail" in body.values() else 200)
        self.send_header("content-type", "audio/mpeg")
        self.send_header("content-length", str(len(AUDIO)))
        self.end_headers()
        self.wfile.write(AUDIO)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the base class's
        """Say nothing."""


@dataclass(frozen=True)
class Talking:
    """A gateway with the two rows, and what its upstream received."""

    url: str
    admin: Admin
    seen: list[tuple[str, str | None, object]]


@pytest.fixture
def talking(redis_url: str, repository: Path) -> Iterator[Talking]:
    with contextlib.ExitStack() as open_until_then:
        upstream, seen = open_until_then.enter_context(running_upstream())
        prices = added_to(repository / "config" / "prices.toml")
        settings = Settings(upstream_api_key=UPSTREAM_KEY, upstream_base_url=upstream)
        rows = (endpoint(SPEECH, SPEECH_RULES), endpoint(JINGLE, JINGLE_RULES))
        gateway = Gateway(settings, prices, ADMIN_KEY, redis_url, extra_endpoints=rows)
        url = open_until_then.enter_context(serving(gateway))
        yield Talking(url, Admin(url), seen)


@contextlib.contextmanager
def running_upstream() -> Iterator[tuple[str, list[tuple[str, str | None, object]]]]:
    seen: list[tuple[str, str | None, object]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Voice", (Voice,), {"seen": seen}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    thread.join()
    server.server_close()


@contextlib.contextmanager
def serving(gateway: Gateway) -> Iterator[str]:
    """The gateway under uvicorn, in a thread of this process."""
    http = protocol_for(gateway.data_plane)
    config = uvicorn.Config(gateway, port=0, http=http, lifespan="on", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_it_is_answered_unchanged_and_priced_by_the_character(talking: Talking) -> None:
    """Characters are counted, not bytes; and the upstream's bytes and type are the client's."""
    made = talking.admin.key("radio", "an")
    text = "Xin chào! 👋"
    answer = send(talking.url, SPEECH, {"model": "voice-1", "input": text, "speed": 1.5}, made["key"])
    assert (200, AUDIO, "audio/mpeg") == (answer.status, answer.body, answer.headers["content-type"])
    assert [(SPEECH, f"Bearer {UPSTREAM_KEY}", {"model": "voice-1", "input": text, "speed": 1.5})] == talking.seen
    (entry,) = talking.admin.ledger()
    assert ("capture", "speech", "voice-1", []) == tuple(entry[name] for name in ("type", "kind", "model", "flags"))
    assert (len(text), len(text) * CHARACTER_NANO_USD) == (entry["units"], entry["cost_nano_usd"])
    assert entry["cost_nano_usd"] == talking.admin.get("/usage", group_by="kind")["data"][0]["cost_nano_usd"]


def test_it_may_be_priced_by_the_call(talking: Talking) -> None:
    """Whatever the request says."""
    key = talking.admin.key("radio")["key"]
    assert AUDIO == send(talking.url, JINGLE, {"mood": "happy"}, key).body
    (entry,) = talking.admin.ledger()
    assert ("jingle", "jingle-1", 1, CALL_NANO_USD) == tuple(
        entry[name] for name in ("kind", "model", "units", "cost_nano_usd")
    )


@pytest.mark.parametrize(
    ("path", "body"), [(SPEECH, {"model": "voice-1", "input": "x" * 100}), (JINGLE, {"mood": "a"})]
)
def test_it_is_refused_when_the_budget_is_gone(talking: Talking, path: str, body: dict[str, str]) -> None:
    """Room for one call and a half: the first is served, the second is 402 and never goes upstream."""
    cost_usd = {SPEECH: "0.00225", JINGLE: "0.00375"}[path]
    key = talking.admin.key("radio", budgets=[{"window": "total", "limit_usd": cost_usd}])["key"]
    assert 200 == send(talking.url, path, body, key).status
    refused = send(talking.url, path, body, key)
    assert (402, "budget_exceeded") == (refused.status, refused.error["code"])
    assert 1 == len(talking.seen)


def test_it_is_refused_for_all_that_other_calls_are_refused_for(talking: Talking) -> None:
    """Keys, models, fields, allow-lists: the new row stands behind the same door, and nothing is billed."""
    key = talking.admin.key("radio")["key"]
    listed = talking.admin.key("radio", models=["gpt-4o"])["key"]
    good = {"model": "voice-1", "input": "Hi"}
    answers = {
        "missing_api_key": send(talking.url, SPEECH, good),
        "model_not_found": send(talking.url, SPEECH, {**good, "model": "gpt-4o"}, key),
        "unsupported_parameter": send(talking.url, SPEECH, {**good, "voice": "x"}, key),
        "invalid_request": send(talking.url, SPEECH, {**good, "input": ""}, key),
        "model_not_allowed": send(talking.url, SPEECH, good, listed),
    }
    assert list(answers) == [answer.error["code"] for answer in answers.values()]
    assert ([], []) == (talking.seen, talking.admin.ledger())


def test_a_failure_of_its_upstream_is_not_billed(talking: Talking) -> None:
    """The hold is given back, as with every other endpoint."""
    key = talking.admin.key("radio")["key"]
    answer = send(talking.url, JINGLE, {"mood": "fail"}, key)
    assert (500, "upstream") == (answer.status, answer.headers["x-gateway-error-source"])
    assert [("release", 0)] == [(entry["type"], entry["cost_nano_usd"]) for entry in talking.admin.ledger()]


def test_the_old_endpoints_stay_as_they_are(talking: Talking) -> None:
    """Its models are not models for chat, and a chat body is none for it."""
    key = talking.admin.key("radio")["key"]
    assert 404 == send(talking.url, CHAT, chat(model="voice-1"), key).status
    assert 400 == send(talking.url, SPEECH, chat(), key).status
