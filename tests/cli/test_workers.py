"""`gateway serve --workers 2` as processes: who serves, who is counted, and what each kill leaves behind."""

import contextlib
import json
import math
import os
import secrets
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import redis
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from gateway.cli.worker import own_socket
from gateway.cli.workers import reserved
from gateway.store.embedded import EmbeddedRedis
from tests.e2e.client import CHAT, OpenAnswer, send, stream
from tests.e2e.waiting import until
from tests.stack import ADMIN_KEY, UPSTREAM_KEY, Admin, Process, Stack, chat, running_stack

OPEN = chat("To the end [[fault:withhold_after=1]]")


class Crew:
    """A gateway with two workers, seen from outside."""

    def __init__(self, process: Process, data_dir: Path) -> None:
        self.process = process
        self.url = process.url
        self._data_dir = data_dir

    def children(self) -> dict[int, str]:
        """The processes it has started: id and command line."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in listed}

    def workers(self) -> list[int]:
        return [pid for pid, command in self.children().items() if "spawn_main" in command]

    def served(self) -> list[float]:
        """How many calls each worker has answered."""
        return [self._sum(f"counter_{worker}.db", "gateway_requests_total") for worker in range(2)]

    def in_flight(self) -> list[float]:
        """How many calls each worker is serving."""
        return [self._sum(f"gauge_livesum_{worker}.db", "gateway_calls_in_flight") for worker in range(2)]

    def scrape(self, name: str, **labels: str) -> list[float]:
        """The values of a metric, by one scrape over a connection of its own."""
        answer = httpx.get(f"{self.url}/metrics", headers={"authorization": f"Bearer {ADMIN_KEY}"}, timeout=30)
        return [
            sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def _sum(self, file: str, name: str) -> float:
        (path,) = self._data_dir.glob(f"metrics/*/{file}")
        families = MultiProcessCollector.merge([str(path)])  # type: ignore[no-untyped-call]  # without types
        return math.fsum(sample.value for family in families for sample in family.samples if sample.name == name)


@pytest.fixture(scope="module")
def stack(valkey: EmbeddedRedis) -> Iterator[Stack]:
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    with running_stack(valkey.url) as running:
        yield running


@pytest.fixture
def crew(stack: Stack, tmp_path: Path) -> Iterator[Crew]:
    """Two workers on a Redis that others have, too."""
    process = stack.gateway(workers="2", data_dir=str(tmp_path))
    yield Crew(process, tmp_path)
    process.stop()


@pytest.fixture
def embedded(stack: Stack, tmp_path: Path) -> Iterator[Crew]:
    """Two workers and a Valkey of their own."""
    with started_embedded(stack, tmp_path) as process:
        yield Crew(process, tmp_path)


def test_both_workers_serve_and_every_scrape_shows_all(crew: Crew) -> None:
    """Whichever worker is scraped: counters and histograms are sums, the ledger's gauges are there once."""
    admin = Admin(crew.url)
    key = admin.key("both")["key"]
    admin.patch("/teams/both", {"budgets": [{"window": "month", "limit_usd": "25.00"}]})
    calls = call_until_both_served(crew, key)
    spent_usd = sum(entry["cost_nano_usd"] for entry in admin.ledger(team="both")) / 1e9
    until(lambda: calls == sum(crew.served()))
    for _ in range(20):
        assert [calls] == crew.scrape("gateway_requests_total", team="both")
        assert [pytest.approx(spent_usd)] == crew.scrape("gateway_cost_usd_total", team="both")
        assert [calls] == crew.scrape("gateway_overhead_seconds_count")
        assert [25.0] == crew.scrape("gateway_budget_limit_usd", id="both")
        assert [0.0] == crew.scrape("gateway_calls_in_flight")


def test_a_killed_worker_is_replaced_and_no_counter_goes_back(crew: Crew) -> None:
    """The other one serves meanwhile; every call is in the books once, and what the dead one counted stays counted."""
    admin = Admin(crew.url)
    key = admin.key("killed")["key"]
    calls = call_until_both_served(crew, key)
    until(lambda: calls == sum(crew.served()))
    killed, other = crew.workers()
    os.kill(killed, signal.SIGKILL)
    until(lambda: killed not in crew.workers())
    assert [calls] == crew.scrape("gateway_requests_total", team="killed")
    until(lambda: 2 == len(crew.workers()) and other in crew.workers())
    assert f"(process {killed}) has ended by SIGKILL and is started again" in until(
        lambda: "SIGKILL" in crew.process.output and crew.process.output
    )
    before = crew.served()
    more = 0
    while not all(now > then for now, then in zip(crew.served(), before, strict=True)):
        assert 200 == send(crew.url, CHAT, chat(), key).status
        more += 1
    until(lambda: [calls + more] == crew.scrape("gateway_requests_total", team="killed"))
    assert calls + more == len(admin.ledger(team="killed"))


def test_what_a_killed_worker_had_in_flight_is_not_in_flight_any_more(crew: Crew, stack: Stack) -> None:
    """A gauge of a process that is gone would stay as it was for ever."""
    key = Admin(crew.url).key("flight")["key"]
    with open_streams_in_both(crew, key):
        for pid in crew.workers():
            os.kill(pid, signal.SIGKILL)
        until(lambda: 2 == len(crew.workers()) and answers(crew.url))
        assert [0.0] == crew.scrape("gateway_calls_in_flight")
    stack.emulator.post("/__release")


def test_sigterm_lets_the_streams_of_both_workers_finish(crew: Crew, stack: Stack) -> None:
    """As one process does: to the end and billed by usage, new calls refused, exit code 0, nothing left behind."""
    key = Admin(crew.url).key("drained")["key"]
    with open_streams_in_both(crew, key) as opened:
        crew.process.signal(signal.SIGTERM)
        until(lambda: not accepts(crew.url))
        stack.emulator.post("/__release")
        for answer in opened:
            answer.read_rest()
    assert 0 == crew.process.wait()
    assert {"data: [DONE]"} == {answer.received.decode().strip().splitlines()[-1] for answer in opened}
    admin = Admin(stack.gateway().url)
    assert Counter({("capture", "upstream"): len(opened)}) == Counter(
        (entry["type"], entry["usage_source"]) for entry in admin.ledger(team="drained")
    )


def test_a_killed_parent_takes_its_workers_along(embedded: Crew, stack: Stack, tmp_path: Path) -> None:
    """With its Valkey, and in order: the same directory starts again at once, with the same books."""
    admin = Admin(embedded.url)
    key = admin.key("orphans")["key"]
    call_until_both_served(embedded, key)
    entries = admin.ledger()
    pids = list(embedded.children())
    embedded.process.signal(signal.SIGKILL)
    until(lambda: not any(runs(pid) for pid in [embedded.process.pid, *pids]))
    with started_embedded(stack, tmp_path) as again:
        assert entries == Admin(again.url).ledger()
        assert 1 == len(list((tmp_path / "metrics").iterdir()))
        assert 0 == again.stop()


def test_a_stream_outlives_a_killed_parent(crew: Crew, stack: Stack) -> None:
    """Its worker drains, as on SIGTERM: the stream ends, and its bill is exact."""
    key = Admin(crew.url).key("outlives")["key"]
    pids = list(crew.children())
    with stream(crew.url, CHAT, OPEN, key) as answer:
        answer.read_event()
        crew.process.signal(signal.SIGKILL)
        until(lambda: not accepts(crew.url))
        stack.emulator.post("/__release")
        answer.read_rest()
    until(lambda: not any(runs(pid) for pid in pids))
    (entry,) = Admin(stack.gateway().url).ledger(team="outlives")
    assert ("capture", "upstream") == (entry["type"], entry["usage_source"])


def test_a_restart_in_time_takes_what_the_workers_of_a_killed_parent_owe(
    embedded: Crew, stack: Stack, tmp_path: Path
) -> None:
    """Their Valkey is gone with the parent; the next one has the same books, and they find it in the same place."""
    key = Admin(embedded.url).key("owed")["key"]
    pids = list(embedded.children())
    with contextlib.ExitStack() as ends:
        answer = ends.enter_context(stream(embedded.url, CHAT, OPEN, key))
        answer.read_event()
        embedded.process.signal(signal.SIGKILL)
        until(lambda: not runs(embedded.process.pid))
        again = ends.enter_context(started_embedded(stack, tmp_path))
        stack.emulator.post("/__release")
        answer.read_rest()
        until(lambda: not any(runs(pid) for pid in pids))
        (entry,) = Admin(again.url).ledger(team="owed")
        assert ("capture", "upstream", answer.request_id) == tuple(
            entry[name] for name in ("type", "usage_source", "request_id")
        )


def test_a_killed_valkey_comes_back_for_both_workers(embedded: Crew) -> None:
    """The parent starts it anew; no worker has to be."""
    key = Admin(embedded.url).key("revived")["key"]
    workers = embedded.workers()
    (server,) = [pid for pid, command in embedded.children().items() if "valkey" in command]
    os.kill(server, signal.SIGKILL)
    until(lambda: 200 == send(embedded.url, CHAT, chat(), key).status)
    assert workers == embedded.workers()


def test_a_worker_that_cannot_start_is_tried_again_while_the_other_serves(crew: Crew, stack: Stack) -> None:
    """Each time with its own words; once the cause is gone, it serves."""
    key = Admin(crew.url).key("again")["key"]
    with redis.Redis.from_url(stack.redis_url) as client:
        schema = client.getset("gw:schema", "999")
        assert isinstance(schema, bytes)
        try:
            os.kill(crew.workers()[0], signal.SIGKILL)
            until(lambda: crew.process.output.count("and is started again: ") >= 2)
            assert 200 == send(crew.url, CHAT, chat(), key).status
        finally:
            client.set("gw:schema", schema)
    call_until_both_served(crew, key)


def test_a_gateway_that_cannot_start_says_so_in_the_words_of_one_process(stack: Stack, tmp_path: Path) -> None:
    """One line, whichever worker failed, and nobody left."""
    key = secrets.token_hex(24)  # of one that may be guessed there would be a warning
    env = serve_environ(stack, tmp_path, REDIS_URL="redis://127.0.0.1:1/0", GATEWAY_ADMIN_KEY=key)
    alone, together = Process("serve", env={**env, "GATEWAY_WORKERS": "1"}), Process("serve", env=env)
    assert [1, 1] == [alone.wait(), together.wait()]
    assert alone.output == together.output
    assert 1 == together.output.count("\n")
    assert [] == list((tmp_path / "metrics").iterdir())


def test_a_port_that_is_taken_stops_the_start(crew: Crew, stack: Stack, tmp_path: Path) -> None:
    """Workers share a port among themselves, and with no other gateway, of one process or several."""
    env = serve_environ(stack, tmp_path, GATEWAY_PORT=crew.url.rpartition(":")[2], REDIS_URL=stack.redis_url)
    for workers in ("1", "2"):
        other = Process("serve", env={**env, "GATEWAY_WORKERS": workers})
        assert 1 == other.wait()
        assert "cannot listen on" in other.output


@pytest.mark.parametrize("workers", [("2", "2"), ("2", "1")])
def test_of_two_gateways_that_start_at_once_one_has_the_port(
    stack: Stack, tmp_path: Path, workers: tuple[str, str]
) -> None:
    """Two that both listen would each answer half of the calls, from different books."""
    port = str(free_port())
    rivals = [
        Process("serve", env=serve_environ(stack, tmp_path / str(number), GATEWAY_PORT=port, GATEWAY_WORKERS=count))
        for number, count in enumerate(workers)
    ]
    try:
        (loser,) = until(lambda: [rival for rival in rivals if "cannot listen on" in rival.output])
        assert 1 == loser.wait()
        (winner,) = [rival for rival in rivals if rival is not loser]
        assert winner.url.endswith(f":{port}")
    finally:
        codes = sorted(rival.stop() for rival in rivals)
    assert [0, 1] == codes


def test_an_address_is_reserved_by_one_alone_however_many_ask() -> None:
    """Before any worker listens, too, which takes a second: the reserving sockets never do."""
    port = free_port()
    for _ in range(50):
        with ThreadPoolExecutor(8) as rivals:
            results = list(rivals.map(lambda _: reserved_or_none(port), range(8)))
        kept = [one for result in results if result for one in result]
        assert 1 == len(kept)
        assert reserved_or_none(port) is None
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", port))
        with own_socket((socket.AF_INET, ("127.0.0.1", port))) as worker:
            worker.listen()
        kept[0].close()


def test_a_port_can_be_reserved_while_connections_of_an_earlier_gateway_close() -> None:
    """A restart must not have to wait for them; the kernel keeps them for a minute."""
    with socket.create_server(("127.0.0.1", 0)) as earlier:
        port = earlier.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            earlier.accept()[0].close()  # who closes first keeps what is left of the connection
            assert b"" == client.recv(1)
    kept = reserved("127.0.0.1", port)
    assert [port] == [one.getsockname()[1] for one in kept]
    kept[0].close()


def test_one_worker_is_the_process_itself(stack: Stack) -> None:
    """No parent, no child, no file: what a small installation runs is as small as it was."""
    process = stack.gateway(workers="1")
    assert {} == Crew(process, Path()).children()


def test_sighup_changes_nothing(crew: Crew) -> None:
    """There is nothing to reload: settings are read once."""
    workers = crew.workers()
    crew.process.signal(signal.SIGHUP)
    assert answers(crew.url)
    assert workers == crew.workers()
    assert 0 == crew.process.stop()


def test_each_line_of_a_call_is_one_json_object(crew: Crew) -> None:
    """From whichever worker: who reads the log cannot tell them apart, and need not."""
    key = Admin(crew.url).key("logged")["key"]
    calls = call_until_both_served(crew, key)
    logged = until(lambda: crew.process.output.count('"event":"call"') >= calls and crew.process.output)
    lines = [json.loads(line) for line in logged.splitlines() if line.startswith("{")]
    assert calls == len([line for line in lines if line["event"] == "call" and line["team"] == "logged"])


def call_until_both_served(crew: Crew, key: str) -> int:
    """Calls over connections of their own until each worker has answered some of them; how many."""
    before, calls = crew.served(), 0
    while not all(now > then for now, then in zip(crew.served(), before, strict=True)):
        assert 200 == send(crew.url, CHAT, chat(), key).status
        calls += 1
        assert calls < 1000
    return calls


@contextlib.contextmanager
def open_streams_in_both(crew: Crew, key: str) -> Iterator[list[OpenAnswer]]:
    """Streams that have begun, and each worker has some of them: the kernel deals connections out by chance.

    What a worker has is told once a second, in which hundreds could be opened.
    """
    opened: list[OpenAnswer] = []
    with contextlib.ExitStack() as ends:
        for _ in range(24):
            answer = ends.enter_context(stream(crew.url, CHAT, OPEN, key))
            answer.read_event()
            opened.append(answer)
        until(lambda: all(crew.in_flight()))
        yield opened


@contextlib.contextmanager
def started_embedded(stack: Stack, data_dir: Path) -> Iterator[Process]:
    """A gateway with a Valkey of its own; ended with the block, whatever became of the test."""
    process = Process("serve", env=serve_environ(stack, data_dir))
    try:
        assert process.url
        yield process
    finally:
        process.stop()


def serve_environ(stack: Stack, data_dir: Path, **more: str) -> dict[str, str]:
    return {
        "MINITOOLAI_API_KEY": UPSTREAM_KEY,
        "MINITOOLAI_BASE_URL": stack.emulator_url,
        "GATEWAY_ADMIN_KEY": ADMIN_KEY,
        "GATEWAY_PORT": "0",
        "GATEWAY_DATA_DIR": str(data_dir),
        "GATEWAY_WORKERS": "2",
        **more,
    }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


def reserved_or_none(port: int) -> list[socket.socket] | None:
    try:
        return reserved("127.0.0.1", port)
    except OSError:
        return None


def accepts(url: str) -> bool:
    host, _, port = url.removeprefix("http://").partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/livez", timeout=5).is_success
    except httpx.TransportError:
        return False


def runs(pid: int) -> bool:
    """Whether a process lives; one that has ended may wait for somebody to take note."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
