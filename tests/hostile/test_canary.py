"""Keys, prompts and answers of a gateway that has seen it all are looked for in everything it leaves behind."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from gateway.cli.main import main
from gateway.store.embedded import EmbeddedRedis
from tests.e2e.client import CHAT, IMAGES, JOBS, OPENAI_CHAT
from tests.e2e.waiting import until
from tests.faults.proxy import Fault, RedisProxy
from tests.faults.reckoning import spooled_bytes
from tests.hostile.test_access import ROUTES, filled
from tests.stack import ADMIN_KEY, UPSTREAM_KEY, Admin, Process, Stack, bearer, chat, running_stack

PROMPT = "canary-prompt-7f3a"
KEPT_ANSWER = "gw:{default}:answer:"
"""The one place where an answer is kept: for 24 hours, for the key that asked under an Idempotency-Key."""


@dataclass
class Life:
    """What a gateway went through. `told`: all that it said which was no answer of the upstream's."""

    stack: Stack
    gateway: Process
    key: str
    answers: list[str]
    kept: str
    told: dict[str, str]
    spool: bytes


@pytest.fixture(scope="module")
def life(valkey: EmbeddedRedis) -> Iterator[Life]:
    """Served calls and refused ones, an upstream that echoes its key, a handler that crashes, a settlement that
    reaches the spool alone, and an end by SIGABRT with Python's own dump of where it was."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    with (
        pytest.MonkeyPatch.context() as environment,
        RedisProxy(Path(valkey.url.removeprefix("unix://").partition("?")[0])) as proxy,
        running_stack(valkey.url) as stack,
    ):
        environment.setenv("PYTHONFAULTHANDLER", "1")
        gateway = stack.gateway(proxy.url, settle_wait_s="0.05", redis_timeout_s="60")
        key = Admin(gateway.url).key("canaries", "carl")["key"]
        life = Life(stack, gateway, key, [], "", {}, b"")
        live(life, proxy)
        yield life


def live(life: Life, proxy: RedisProxy) -> None:
    with httpx.Client(base_url=life.gateway.url, headers=bearer(life.key), timeout=30) as http:
        serve(life, http)
        refuse(life, http)
        crash(life, http)
        look(life)
        struck = proxy.strike(Fault("hold_command", of=("settle",)))
        life.answers.append(http.post(CHAT, json=chat(f"{PROMPT} of the spool")).text)
        struck.wait_until_struck()
        until(lambda: spooled_bytes(life.stack) > 0)
        life.spool = b"".join(path.read_bytes() for path in (life.stack.data_dir / "spool").glob("*.spool"))
        life.gateway.signal(signal.SIGABRT)
        assert -signal.SIGABRT == life.gateway.wait()
        proxy.let_go()


def serve(life: Life, http: httpx.Client) -> None:
    image = {"model": "realvision", "prompt": PROMPT}
    life.answers += [
        http.post(CHAT, json=chat(PROMPT)).text,
        http.post(OPENAI_CHAT, json=chat(f"{PROMPT} folded")).text,
    ]
    life.kept = http.post(CHAT, json=chat(f"{PROMPT} kept"), headers={"idempotency-key": "canary"}).text
    job = http.post(IMAGES, json=image).json()
    poll = http.post(JOBS, json={"jobid": str(job["jobid"]), "signature": job["signature"]})
    assert (True, 200) == (all("chatcmpl-" in answer for answer in (*life.answers, life.kept)), poll.status_code)


def refuse(life: Life, http: httpx.Client) -> None:
    bodies: dict[str, Any] = {
        "no model of ours": chat(PROMPT, model="no-such-model"),
        "a key for a model": chat(PROMPT, model=life.key),
        "a field of its own": chat(PROMPT, tools=[PROMPT]),
        "a field named like a key": chat(PROMPT) | {life.key: 1},
        "out of range": chat(PROMPT, temperature=7),
        "a role of its own": {"model": "gpt-4o-mini", "messages": [{"role": life.key, "content": PROMPT}]},
        "not a list": {"model": "gpt-4o-mini", "messages": PROMPT},
        "an upstream that echoes its key": chat(f"{PROMPT} [[fault:echo_key]]"),
        "an upstream that fails": chat(f"{PROMPT} [[fault:status=500]]"),
        "an upstream that refuses us": chat(f"{PROMPT} [[fault:status=401]]"),
        "an upstream that resets": chat(f"{PROMPT} [[fault:reset]]"),
    }
    for what, body in bodies.items():
        answer = http.post(CHAT, json=body)
        assert answer.status_code >= 400, what
        life.told[what] = f"{answer.headers} {answer.text}"
    for what, content in (("not JSON", f'{{"{PROMPT}'), ("a key twice", f'{{"{life.key}":1,"{life.key}":2}}')):
        life.told[what] = http.post(CHAT, content=content, headers={"content-type": "application/json"}).text
    for what, key in (("the upstream's key", UPSTREAM_KEY), ("the administrator's key", ADMIN_KEY)):
        life.told[what] = http.post(CHAT, json=chat(PROMPT), headers=bearer(key)).text
    life.told["a key in the URL"] = http.get("/v1/me", params={"key": life.key}).text


def crash(life: Life, http: httpx.Client) -> None:
    """A handler meets what is not there to be met; the books are put right afterwards."""
    name = "gw:{default}:settings:team:canaries"
    with redis.Redis.from_url(life.stack.redis_url) as client:
        settings = client.get(name)
        client.set(name, b"no JSON")
        answer = http.get("/admin/v1/teams/canaries", headers=bearer(ADMIN_KEY))
        client.set(name, settings or b"")
    assert 500 == answer.status_code
    life.told["a crash"] = answer.text


def look(life: Life) -> None:
    """Every page there is, as whoever may see it."""
    with httpx.Client(base_url=life.gateway.url, timeout=30) as http:
        http.post("/dashboard/login", data={"key": ADMIN_KEY})
        for route, who in ROUTES.items():
            method, path = route.split(" ")
            if method == "GET":
                key = life.key if who == "holder" else ADMIN_KEY
                life.told[route] = http.get(filled(path), headers=bearer(key)).text
        for kind in ("teams/canaries", "users/carl"):
            life.told[f"page of {kind}"] = http.get(f"/dashboard/{kind}").text


def needles(life: Life) -> dict[str, str]:
    """What is nobody's to read. An answer is known by the id that the upstream gave it."""
    ids = [answer.partition('"id":"')[2].partition('"')[0] for answer in (*life.answers, life.kept)]
    assert 4 == len(set(ids))
    secrets = {"the client's key": life.key, "the administrator's": ADMIN_KEY, "the upstream's": UPSTREAM_KEY}
    return secrets | {"the prompt": PROMPT} | {f"answer {number}": each for number, each in enumerate(ids)}


def found(life: Life, text: str) -> list[str]:
    return [what for what, needle in needles(life).items() if needle in text]


def test_what_the_gateway_tells_holds_no_secret(life: Life) -> None:
    """Errors, pages, reports, metrics, the description of the API: whoever may read them, none needs a key for it."""
    leaks = {what: found(life, text) for what, text in life.told.items()}
    assert {} == {what: leak for what, leak in leaks.items() if leak}


def test_the_log_and_the_dump_of_a_crash_hold_no_secret(life: Life) -> None:
    """Lines of calls, the traceback of a handler, and what Python writes when the process is ended from outside."""
    assert '"event":"call"' in life.gateway.output
    assert "Traceback" in life.gateway.output
    assert "Fatal Python error: Aborted" in life.gateway.output
    assert [] == found(life, life.gateway.output)


def test_the_spool_holds_no_secret(life: Life) -> None:
    """What a killed gateway leaves on the disk is what the ledger would have: who, which model, how much."""
    assert b"gpt-4o-mini" in life.spool
    assert [] == found(life, life.spool.decode("latin-1"))


def test_redis_holds_no_secret_but_the_one_answer(life: Life) -> None:
    """All keys and all values, decoded: a dump would hide them, for it is compressed."""
    places = {needle: [name for name, text in stored(life) if needle in text] for needle in needles(life).values()}
    kept = places.pop(needles(life)["answer 3"])
    assert {} == {needle: names for needle, names in places.items() if names}
    assert [KEPT_ANSWER] == [name[: len(KEPT_ANSWER)] for name in kept]


def stored(life: Life) -> list[tuple[str, str]]:
    """Name and content of everything in Redis."""
    with redis.Redis.from_url(life.stack.redis_url, encoding="latin-1", decode_responses=True) as client:
        readers: dict[str, Any] = {
            "string": client.get,
            "hash": client.hgetall,
            "set": client.smembers,
            "zset": lambda name: client.zrange(name, 0, -1),
            "stream": client.xrange,
            "list": lambda name: client.lrange(name, 0, -1),
        }
        return [(name, f"{name} {readers[client.type(name)](name)}") for name in client.scan_iter(count=1000)]


def test_what_is_exported_holds_no_secret(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An archive is handed on: to whoever keeps the books."""
    monkeypatch.setenv("REDIS_URL", life.stack.redis_url)
    monkeypatch.setenv("MINITOOLAI_API_KEY", UPSTREAM_KEY)
    archive = tmp_path / "archive"
    assert 0 == main(["ledger", "export", str(archive)])
    files = [path for path in (archive, *archive.rglob("*")) if path.is_file()]
    texts = [path.read_bytes().decode("latin-1") for path in files]
    assert any("canaries" in text for text in texts)
    assert [] == found(life, "".join(texts) + capsys.readouterr().out)
