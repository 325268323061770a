"""What strangers can write into the log and the metrics: one line a request, and no series of their own."""

import json
import re
import secrets
import socket
import string
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest

from tests.e2e.client import CHAT, send
from tests.e2e.waiting import until
from tests.hostile.conftest import Target
from tests.stack import ADMIN_KEY, ROOT, Process, chat

FORGED = '{"at":"2026-11-21T20:00:00.123Z","event":"call","request_id":"req-forged","cost_nano_usd":0}'
HOSTILE = {
    "CR and LF": f"\r\n{FORGED}\r\n",
    "LF": f"\n{FORGED}\n",
    "ANSI": "\x1b[2J\x1b[31mred\x07",
    "NUL": "a\0b",
    "U+2028 and U+0085": f"\u2028{FORGED}\u2029\x85{FORGED}",
    "DEL and C1": "\x7f\x9b31m",
    "right to left": "\u202efdp.exe",
    "quotes": '","event":"call","a":"\\',
    "long": "a" * 5000,
}
_LINE = re.compile(r"[ -~]+")


def lines_of(target: Target, request_id: str) -> list[dict[str, Any]]:
    """The lines of one request, once there is one; each is all of a line, printable and ASCII."""

    def found() -> list[str]:
        return [line for line in target.gateway.output.split("\n") if request_id in line]

    lines = until(found)
    assert all(_LINE.fullmatch(line) for line in lines)
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_line_stays_one_line(target: Target, text: str) -> None:
    """Wherever it is put: a path, a model, a key's id, a header; nobody forges a line or commands a terminal."""
    as_header = re.sub(rb"[\0-\x1f\x7f]", b" ", text.encode("latin-1", "replace")).strip()
    headers = {"user-agent": as_header, "x-request-id": as_header, "x-gateway-tags": as_header}
    with target.untouched():
        answers = [
            target.ask("GET", f"/{quote(text)}"),
            target.ask("GET", f"/admin/v1/teams/{quote(text)}", ADMIN_KEY),
            target.ask("POST", "/admin/v1/teams", ADMIN_KEY, json={"id": text, text: text}),
            target.ask("POST", CHAT, target.neighbour, json=chat(model=text), headers=headers),
            target.ask("POST", CHAT, text.encode("ascii", "replace").hex(), json=chat(), headers=headers),
            target.ask("POST", "/api/texttoimage/jobs/", json={"jobid": text[:200], "signature": text[:200]}),
        ]
    assert [404, 400, 400, 404, 401, 404] == [answer.status_code for answer in answers]
    for answer in answers:
        (line,) = lines_of(target, answer.headers["x-request-id"])
        assert (answer.status_code, answer.json()["error"]["code"]) == (line["status"], line["error"])
    assert [] == [line for line in target.gateway.output.splitlines() if line.startswith(FORGED[:30])]


def test_every_request_has_its_line(target: Target) -> None:
    """Also those that are no calls; probes only where something is wrong."""
    admin = target.ask("GET", "/admin/v1/teams?limit=1", ADMIN_KEY)
    (line,) = lines_of(target, admin.headers["x-request-id"])
    expected = {"event": "request", "method": "GET", "path": "/admin/v1/teams", "status": 200, "role": "admin"}
    assert expected | {"error": None, "key": None} == {name: line[name] for name in [*expected, "error", "key"]}
    me = target.ask("GET", "/v1/me", target.neighbour)
    (line,) = lines_of(target, me.headers["x-request-id"])
    assert ("default", "neighbours", "nora") == (line["org"], line["team"], line["user"])
    refused = target.ask("GET", "/metrics")
    (line,) = lines_of(target, refused.headers["x-request-id"])
    assert (401, "missing_api_key") == (line["status"], line["error"])
    probe = target.ask("GET", "/livez").headers["x-request-id"]
    last = target.ask("GET", "/nowhere").headers["x-request-id"]
    assert lines_of(target, last)
    assert probe not in target.gateway.output


def test_what_is_no_request_has_a_line_too(target: Target) -> None:
    """By whom and with what result; of what was sent nothing."""
    before = target.gateway.output.count('"event":"refused"')
    with connected(target) as connection:
        connection.sendall(b"GET /\x1b[31mcanary HTTP/1.1\r\n\r\n")
        assert b"HTTP/1.1 400 " in connection.recv(65_536)
    until(lambda: target.gateway.output.count('"event":"refused"') > before)
    line = next(line for line in reversed(target.gateway.output.splitlines()) if '"event":"refused"' in line)
    told = json.loads(line)
    assert (400, "invalid_request", "127.0.0.1") == (told["status"], told["error"], told["address"])
    assert "canary" not in target.gateway.output


def test_the_fields_of_these_lines_are_documented(target: Target) -> None:
    """Beside those of a call."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (line,) = lines_of(target, target.ask("GET", "/nowhere").headers["x-request-id"])
    told = {"at", "event", "status", "error", "address", "level", "logger", "message", "traceback", *line}
    assert set() == {name for name in told if f"`{name}`" not in text}
    assert {"`request`", "`refused`", "`log`"} <= set(re.findall(r"`\w+`", text))


def test_made_up_models_and_paths_add_no_series(target: Target) -> None:
    """Whoever makes names up fills no memory here and no disk at Prometheus."""
    key = f"authorization: bearer {target.neighbour}\r\n"

    def call(model: str) -> bytes:
        body = json.dumps(chat(model=model))
        return f"POST {CHAT} HTTP/1.1\r\nhost: a\r\n{key}content-length: {len(body)}\r\n\r\n{body}".encode()

    def page(path: str) -> bytes:
        return f"GET /{path} HTTP/1.1\r\nhost: a\r\n{key}\r\n".encode()

    ask(target, [call("a"), page("a")])
    send(target.gateway.url, CHAT, chat(), target.neighbour)
    before = series(target)
    with target.untouched():
        ask(target, [call(made_up()) for _ in range(5_000)])
        ask(target, [page(made_up()) for _ in range(5_000)])
    send(target.gateway.url, CHAT, chat(), target.neighbour)
    assert before == series(target)


class Unread(Process):
    """Once it listens nobody reads its output, until `read_on` is set."""

    def __init__(self, command: str, *args: str, env: Mapping[str, str] | None = None) -> None:
        self.read_on = threading.Event()
        super().__init__(command, *args, env=env)

    def _told(self) -> None:
        self.read_on.wait()

    def stop(self) -> int:
        self.read_on.set()
        return super().stop()


def test_a_log_that_nobody_reads_stops_no_call(target: Target) -> None:
    """And whoever has no key may ask for what is not there as often as it likes: a call keeps its line."""
    gateway = target.stack.gateway_of(Unread, None, {})
    ask(replace(target, gateway=gateway), [b"GET /made-up HTTP/1.1\r\nhost: a\r\n\r\n"] * 2_500)
    calls = [send(gateway.url, CHAT, chat(), target.neighbour) for _ in range(10)]
    assert {200} == {call.status for call in calls}
    metrics = httpx.get(f"{gateway.url}/metrics", headers={"authorization": f"Bearer {ADMIN_KEY}"}).text
    counts = dict(re.findall(r'^gateway_log_lines_dropped_total{whose="(.+)"} (.+)$', metrics, re.MULTILINE))
    assert 0 == float(counts["caller"]) < float(counts["stranger"])
    gateway.read_on.set()
    until(lambda: f"{float(counts['stranger']):.0f} lines are left out above" in gateway.output)
    assert set() == {call.request_id for call in calls if call.request_id not in gateway.output}


def made_up() -> str:
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(12))


def series(target: Target) -> set[str]:
    """Names and labels of all there is, without their values."""
    lines: Iterable[str] = target.ask("GET", "/metrics", ADMIN_KEY).text.splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


def connected(target: Target) -> socket.socket:
    place = urlsplit(target.gateway.url)
    return socket.create_connection((place.hostname, place.port), timeout=30)


def ask(target: Target, requests: list[bytes]) -> None:
    """All on one connection, some at a time; each is 404."""
    with connected(target) as connection, connection.makefile("rb") as answers:
        for start in range(0, len(requests), 50):
            some = requests[start : start + 50]
            connection.sendall(b"".join(some))
            for _ in some:
                assert b"HTTP/1.1 404 Not Found\r\n" == answers.readline()
                length = 0
                while (line := answers.readline()) != b"\r\n":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line[15:])
                answers.read(length)
