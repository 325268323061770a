"""The embedded Valkey: one a directory, on a socket of its own, and its data outlive any kill."""

import itertools
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from gateway.store import embedded
from gateway.store.embedded import EmbeddedRedis, EmbeddedRedisError

OWNER = """
import sys
from pathlib import Path
from gateway.store.embedded import EmbeddedRedis

server = EmbeddedRedis(Path(sys.argv[1]))
server.start()
print(server.pid, server.url, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    one = EmbeddedRedis(tmp_path)
    one.start()
    yield one
    one.stop()


def client(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def test_it_listens_on_a_private_socket_alone(server: EmbeddedRedis, tmp_path: Path) -> None:
    """No port, and nobody else's to open; each write is on disk before it is answered, and nothing is evicted."""
    with client(server) as one:
        config = one.config_get("*")
    assert ("0", "yes", "always", "noeviction") == tuple(
        config[name] for name in ("port", "appendonly", "appendfsync", "maxmemory-policy")
    )
    socket = Path(server.url.removeprefix("unix://"))
    assert 0o700 == stat.S_IMODE(socket.stat().st_mode)
    assert 0o700 == stat.S_IMODE((tmp_path / "redis").stat().st_mode)


def test_a_second_server_on_the_same_data_is_refused(
    server: EmbeddedRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two would each believe in their own balances. The first goes on undisturbed."""
    monkeypatch.setattr(embedded, "_LOCK_TIMEOUT_S", 0.05)
    with pytest.raises(EmbeddedRedisError, match="in use by another gateway") as refused:
        EmbeddedRedis(tmp_path).start()
    assert "GATEWAY_DATA_DIR" in str(refused.value)
    with client(server) as one:
        assert one.ping()


def test_what_was_acknowledged_survives_a_kill_of_the_server(server: EmbeddedRedis) -> None:
    """SIGKILL, with no moment to save anything; the same server is started anew."""
    with client(server) as one:
        for number in range(100):
            one.xadd("entries", {"number": number})
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    server.stop()
    server.start()
    with client(server) as one:
        assert 100 == one.xlen("entries")


def test_a_gateway_that_is_killed_hands_its_data_to_the_next(tmp_path: Path) -> None:
    """At once: the next one waits until the old server has closed its files, and finds everything."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdin is not None
    old_pid, url = owner.stdout.readline().split()
    with redis.Redis.from_url(url) as one:
        one.set("kept", "yes")
    owner.kill()
    owner.wait(20)
    owner.stdout.close()
    owner.stdin.close()
    following = EmbeddedRedis(tmp_path)
    following.start()
    try:
        assert old_pid != str(following.pid)
        with client(following) as one:
            assert b"yes" == one.get("kept")
    finally:
        following.stop()


def test_a_server_that_keeps_dying_is_started_ever_more_rarely(
    server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk ends it at once: ten starts a second would keep the machine from whoever could free some. One that
    has lived is started again without a pause."""
    now_s = 1000.0
    spawned_at_s = []
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(20)

    def spawn(_self: EmbeddedRedis, _lock: object) -> subprocess.Popen[bytes]:
        spawned_at_s.append(now_s)
        server._spawned_at_s = now_s
        return dead

    alive = server._process
    with monkeypatch.context() as patch:
        patch.setattr("time.monotonic", lambda: now_s)
        patch.setattr(EmbeddedRedis, "_spawn", spawn)
        server._process, server._spawned_at_s = dead, now_s - 3600
        for _ in range(600):
            server.revive()
            now_s += 0.125
        server._process = alive
    pauses_s = [later - earlier for earlier, later in itertools.pairwise(spawned_at_s)]
    assert [0.5, 1.0, 2.0, 4.0, 8.0, *[10.0] * 5] == pauses_s
    assert 1000.0 == spawned_at_s[0]


def test_it_stops_cleanly_and_twice(server: EmbeddedRedis, tmp_path: Path) -> None:
    """The directory is free again, the process is gone, and stopping once more does nothing."""
    pid = server.pid
    assert pid is not None
    server.stop()
    server.stop()
    assert server.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    other = EmbeddedRedis(tmp_path)
    other.start()
    other.stop()


def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    """A socket's address takes some 100 bytes; data directories may be deeper."""
    deep = tmp_path / ("directory-" * 12) / "ünïcode"
    server = EmbeddedRedis(deep)
    server.start()
    try:
        socket = Path(server.url.removeprefix("unix://"))
        assert 100 >= len(os.fsencode(socket))
        assert 0o700 == stat.S_IMODE(socket.parent.stat().st_mode)
        with client(server) as one:
            assert one.ping()
        assert (deep / "redis" / "appendonlydir").is_dir()
    finally:
        server.stop()


def test_without_a_server_program_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the wheel nor on PATH."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EmbeddedRedisError, match="REDIS_URL"):
        embedded.server_program()


def test_a_server_that_cannot_start_points_to_its_log(tmp_path: Path) -> None:
    """Its data are not readable as data: nothing is thrown away to go on."""
    broken = tmp_path / "redis" / "appendonlydir"
    broken.mkdir(parents=True)
    (broken / "appendonly.aof.manifest").write_text("nonsense\n")
    server = EmbeddedRedis(tmp_path)
    with pytest.raises(EmbeddedRedisError, match=r"server\.log"):
        server.start()
    assert "nonsense\n" == (broken / "appendonly.aof.manifest").read_text()
