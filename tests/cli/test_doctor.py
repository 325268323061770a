"""`gateway doctor`: each thing a start needs is looked at as it really is, and nothing is changed by looking."""

import json
import re
import secrets
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from gateway.billing.principal import Scope
from gateway.cli.checkup import clock_finding, redis_findings, unready
from gateway.cli.main import main
from gateway.store.embedded import EmbeddedRedis
from gateway.store.keys import DEFAULT_ORG, Keys
from gateway.store.server_facts import ServerFacts
from tests.servers import Server, free_port, servers
from tests.stack import UPSTREAM_KEY, running_stack

WELL = ServerFacts(
    name="Valkey",
    version="8.1.0",
    is_old=False,
    keeps_on_disk=True,
    is_replica=False,
    used_bytes=1,
    bytes_max=0,
    clock_ms=0,
    has_books=True,
)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment in which the upstream is a port that nobody listens on, and nothing is there yet."""
    for name, value in {
        "MINITOOLAI_API_KEY": UPSTREAM_KEY,
        "MINITOOLAI_BASE_URL": f"http://127.0.0.1:{free_port()}",
        "GATEWAY_DATA_DIR": str(tmp_path),
        "GATEWAY_PORT": str(free_port()),
        "REDIS_URL": "",
    }.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def told(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and each check by its name."""
    code = main(["doctor", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] == (code == 0)
    return code, {check["check"]: check for check in answer["checks"]}


def test_a_running_gateway_has_what_it_needs(
    redis_url: str, place: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a real Redis, upstream and gateway every check is ok, and looking writes nothing."""
    with running_stack(redis_url) as stack:
        gateway = stack.gateway()
        place.setenv("MINITOOLAI_BASE_URL", stack.emulator_url)
        place.setenv("REDIS_URL", redis_url)
        place.setenv("GATEWAY_ADMIN_KEY", secrets.token_urlsafe(32))
        place.setenv("GATEWAY_PORT", gateway.url.rpartition(":")[2])
        code, checks = told(capsys)
        assert {"ok"} == {check["state"] for check in checks.values()}, checks
        assert 0 == code
        assert {"Redis", "Redis's clock", "books", "upstream", "upstream's clock", "gateway", "prices"} <= set(checks)
        assert f"runs at {gateway.url} and is ready" == checks["gateway"]["found"]
        assert 0 == main(["doctor"])
        assert "The gateway has what it needs." == capsys.readouterr().out.splitlines()[-1]
        assert [] == stack.bill()["lines"]


def test_an_empty_redis_is_not_claimed(
    redis_url: str, place: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever asks about the wrong server must not leave a mark there."""
    place.setenv("REDIS_URL", redis_url)
    _, checks = told(capsys)
    assert "ok" == checks["Redis"]["state"]
    assert checks["Redis"]["found"].endswith("without books")
    with redis.Redis.from_url(redis_url) as client:
        assert 0 == client.dbsize()


def test_a_fresh_machine_lacks_only_the_upstream(
    place: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the first start makes by itself is no fault."""
    code, checks = told(capsys)
    assert 1 == code
    assert ["upstream"] == [name for name, check in checks.items() if check["state"] == "failed"]
    assert "the first start makes one" in checks["administrator's key"]["found"]
    assert "is free for it" in checks["gateway"]["found"]
    assert [] == list(tmp_path.iterdir())


def test_each_fault_is_found_and_says_what_to_do(
    place: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No key, no Redis, a key that others can read, a port that somebody else has."""
    place.setenv("MINITOOLAI_API_KEY", "")
    place.setenv("REDIS_URL", f"redis://:hunter2-secret@127.0.0.1:{free_port()}/0")
    (tmp_path / "admin-key").write_text("sk-admin-for-tests-of-the-doctor\n")
    (tmp_path / "admin-key").chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as other:
        place.setenv("GATEWAY_PORT", str(other.getsockname()[1]))
        place.setenv("GATEWAY_REDIS_TIMEOUT_S", "0.1")
        code, checks = told(capsys)
        main(["doctor"])
    text = capsys.readouterr().out
    assert 1 == code
    assert {"MiniToolAI's key", "Redis", "upstream", "gateway"} == {
        name for name, check in checks.items() if check["state"] == "failed"
    }
    assert "something else listens on" in checks["gateway"]["found"]
    assert "warning" == checks["administrator's key"]["state"]
    assert f"chmod 600 {tmp_path / 'admin-key'}" in text
    assert "4 to mend, 1 to look at" in text
    assert "hunter2-secret" not in text + str(checks)


def test_a_chosen_administrators_key_is_a_warning(
    place: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever guesses it owns the books; it is not repeated."""
    place.setenv("GATEWAY_ADMIN_KEY", "our-own-gateway-2026")
    main(["doctor"])
    text = capsys.readouterr().out
    assert "GATEWAY_ADMIN_KEY may be guessed" in text
    assert "our-own-gateway" not in text


def test_a_redis_that_keeps_nothing_is_a_warning(
    place: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It works until it is restarted: then nobody has spent anything."""
    with servers() as started:
        started.append(Server(tmp_path / "redis", "--maxmemory", "2mb"))
        place.setenv("REDIS_URL", started[0].url)
        _, checks = told(capsys)
    assert "ok" == checks["Redis"]["state"]
    assert "warning" == checks["Redis on disk"]["state"]
    assert "appendonly yes" in checks["Redis on disk"]["advice"]


@pytest.mark.parametrize(("setting", "value"), [("TIMEZONE", "Europe/Paris"), ("FIRST_WEEKDAY", "thursday")])
def test_settings_that_contradict_the_books_fail(
    redis_url: str, place: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], setting: str, value: str
) -> None:
    """The start refuses them, in a moment when nobody wants to hear it."""
    with running_stack(redis_url) as stack:
        stack.gateway()
    place.setenv("REDIS_URL", redis_url)
    place.setenv(f"GATEWAY_{setting}", value)
    with redis.Redis.from_url(redis_url) as client:
        before = {key: client.dump(key) for key in client.scan_iter()}
        _, checks = told(capsys)
        assert before == {key: client.dump(key) for key in client.scan_iter()}
    assert "failed" == checks["books"]["state"]
    assert f"{setting.lower()} " in checks["books"]["found"]
    assert f"the setting says {value}; set it back" in checks["books"]["found"]
    assert "no gateway starts" in checks["books"]["advice"]


def test_an_organisation_without_its_balance_fails(
    redis_url: str, place: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Redis is well then, and what helps is another command."""
    with running_stack(redis_url) as stack:
        stack.gateway()
    place.setenv("REDIS_URL", redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.delete(Keys(DEFAULT_ORG).state(Scope("organisation", DEFAULT_ORG)))
    _, checks = told(capsys)
    assert ("ok", "failed") == (checks["Redis"]["state"], checks["books"]["state"])
    assert "gateway ledger verify" in checks["books"]["advice"]


def test_books_of_the_embedded_redis_are_looked_at_while_it_runs(
    place: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At rest it is not started for it: doctor says that it did not look, and when it could."""
    place.setenv("GATEWAY_TIMEZONE", "Europe/Paris")
    server = EmbeddedRedis(tmp_path)
    server.start()
    try:
        with running_stack(server.url) as stack:
            stack.gateway()
        _, checks = told(capsys)
        assert "failed" == checks["books"]["state"]
    finally:
        server.stop()
    _, checks = told(capsys)
    assert "ok" == checks["books"]["state"]
    assert "cannot be looked at" in checks["books"]["found"]
    assert "while the gateway runs" in checks["books"]["advice"]


def test_a_metrics_token_that_may_be_guessed_is_a_warning(
    place: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As at the start; a random one is well."""
    place.setenv("GATEWAY_METRICS_TOKEN", "prometheus-2026")
    _, checks = told(capsys)
    assert "warning" == checks["metrics token"]["state"]
    assert "random" in checks["metrics token"]["advice"]
    assert "prometheus-2026" not in str(checks)
    place.setenv("GATEWAY_METRICS_TOKEN", secrets.token_urlsafe(32))
    _, checks = told(capsys)
    assert "ok" == checks["metrics token"]["state"]


def test_a_machine_without_a_server_program_is_told_what_to_do(
    place: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither the wheel nor a server on PATH, and no REDIS_URL."""
    place.setattr("gateway.store.embedded.importlib.util.find_spec", lambda name: None)
    place.setenv("PATH", "")
    _, checks = told(capsys)
    assert "failed" == checks["Redis"]["state"]
    assert "no Redis server found" in checks["Redis"]["found"]
    assert "REDIS_URL" in checks["Redis"]["advice"]


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("redis://127.0.0.1:{free_port}/0", "Start it, or correct REDIS_URL"),
        ("mysql://127.0.0.1/books", "docs/settings.md explains each form"),
    ],
)
def test_a_redis_that_is_not_there_is_told_what_to_do(
    place: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str, advice: str
) -> None:
    """What it is depends on what is wrong: the server, or the URL."""
    place.setenv("REDIS_URL", url.format(free_port=free_port()))
    _, checks = told(capsys)
    assert "failed" == checks["Redis"]["state"]
    assert advice in checks["Redis"]["advice"]


def test_a_gateway_that_is_not_ready_names_a_page_that_helps(repository: Path) -> None:
    """The chapter it names is there."""
    finding = unready("http://127.0.0.1:8080", {"redis": False, "spool": True})
    page, _, chapter = finding.advice.removesuffix(".").rpartition("; ")[2].partition(": ")
    assert "runs at http://127.0.0.1:8080 and is not ready: redis" == finding.found
    assert f"\n## {chapter}\n" in (repository / page).read_text()


def test_an_evicting_redis_fails(place: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The start would refuse it with the same words."""
    with servers() as started:
        started.append(Server(tmp_path / "redis", "--maxmemory-policy", "allkeys-lru"))
        place.setenv("REDIS_URL", started[0].url)
        _, checks = told(capsys)
    assert "failed" == checks["Redis"]["state"]
    assert "noeviction" in checks["Redis"]["found"]
    assert checks["Redis"]["advice"].startswith("Change that in the server")


def test_a_wrong_setting_is_told_alone(place: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without settings nothing else can be looked at."""
    place.setenv("GATEWAY_LEASE_S", "soon")
    code, checks = told(capsys)
    assert 1 == code
    assert ["settings"] == list(checks)
    assert "GATEWAY_LEASE_S" in checks["settings"]["found"]


@pytest.mark.parametrize(
    ("change", "state", "word"),
    [
        ({}, "ok", ""),
        ({"name": "Redis", "version": "6.0.16", "is_old": True}, "failed", "Redis 6.2"),
        ({"is_replica": True}, "failed", "master"),
        ({"keeps_on_disk": False}, "warning", "appendonly"),
        ({"used_bytes": 900, "bytes_max": 1000}, "warning", "maxmemory"),
        ({"used_bytes": 700, "bytes_max": 1000}, "ok", ""),
    ],
)
def test_what_a_server_says_of_itself_is_judged(change: dict[str, Any], state: str, word: str) -> None:
    """The worst finding is the server's."""
    findings = list(redis_findings(replace(WELL, **change)))
    worst = max(findings, key=lambda finding: ("ok", "warning", "failed").index(finding.state))
    assert state == worst.state
    assert re.search(word, worst.advice)


@pytest.mark.parametrize(
    ("ahead_ms", "state", "found"),
    [
        (2000, "ok", "within 2 s of this machine's"),
        (-2001, "warning", "2 s behind this machine's"),
        (3_600_000, "warning", "3600 s ahead of this machine's"),
    ],
)
def test_a_clock_that_is_off_is_told(ahead_ms: int, state: str, found: str) -> None:
    """By how much, and in which direction."""
    finding = clock_finding("Redis's clock", ahead_ms)
    assert (state, found) == (finding.state, finding.found)
