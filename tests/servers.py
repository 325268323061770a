"""Redis servers beyond the embedded one: with arguments of their own, watched by Sentinel, or as a cluster."""

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from gateway.store.embedded import server_program
from gateway.store.keys import Keys
from tests.e2e.waiting import until

_CERTIFICATES = Path(__file__).parent / "upstream" / "tls"
AUTHORITY = _CERTIFICATES / "authority.pem"
"""Has signed the certificate of servers over TLS, which is localhost's."""
SERVICE = "books"
_SLOTS = 16384
_NODE_TIMEOUT_MS = 1000
_SENTINEL_CONF = """
sentinel monitor {service} 127.0.0.1 {port} 1
sentinel down-after-milliseconds {service} 1500
sentinel failover-timeout {service} 3000
"""


class Server:
    """One process on a free port of 127.0.0.1, answering once it is made.

    `config`: lines of its configuration. `tls`: it speaks nothing else, for which Debian's redis-server is needed.
    """

    def __init__(self, folder: Path, *arguments: str, config: str | None = None, tls: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._tls = tls
        first: list[str | Path] = []
        if config is not None:
            first = [folder / "server.conf"]
            (folder / "server.conf").write_text(config)
        listening = _listening_over_tls(self.port) if tls else ["--port", str(self.port), "--bind", "127.0.0.1"]
        storing = ["--dir", str(folder), "--save", "", "--repl-diskless-sync-delay", "0"]
        command = [debian_server() if tls else server_program(), *first, *listening, *storing, *arguments]
        with (folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.url = f"rediss://localhost:{self.port}" if tls else f"redis://127.0.0.1:{self.port}"
        until(lambda: self.ask("PING"))

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, *command: Any) -> Any:
        """The reply to one command; None where it cannot be reached, is loading, or refuses."""
        with (
            contextlib.suppress(redis.RedisError),
            redis.Redis(port=self.port, decode_responses=True, socket_timeout=5, **self._tls_options()) as client,
        ):
            return client.execute_command(*command)

    def _tls_options(self) -> dict[str, Any]:
        return {"ssl": True, "ssl_ca_certs": str(AUTHORITY)} if self._tls else {}

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def servers() -> Iterator[list[Server]]:
    """A list to which the block adds what it starts; all end with it."""
    started: list[Server] = []
    try:
        yield started
    finally:
        for server in started:
            server.kill()


class Watched:
    """A master with a replica, and the Sentinel that watches both; `url` names the Sentinel."""

    def __init__(self, folder: Path, started: list[Server]) -> None:
        self.master = Server(folder / "a")
        started.append(self.master)
        self.replica = Server(folder / "b", "--replicaof", "127.0.0.1", str(self.master.port))
        started.append(self.replica)
        config = _SENTINEL_CONF.format(service=SERVICE, port=self.master.port)
        self.sentinel = Server(folder / "s", "--sentinel", config=config)
        started.append(self.sentinel)
        self.url = f"redis+sentinel://127.0.0.1:{self.sentinel.port}/{SERVICE}/0"
        until(lambda: self.sentinel.ask("INFO", "sentinel")["master0"]["slaves"] == 1)
        until(self.is_replicated)

    def is_replicated(self) -> bool:
        """Whether the replica has all that the master has."""
        master, replica = self.master.ask("INFO", "replication"), self.replica.ask("INFO", "replication")
        up = replica["role"] == "slave" and replica["master_link_status"] == "up"
        return bool(up and replica["slave_repl_offset"] == master["master_repl_offset"])

    def is_promoted(self) -> bool:
        """Whether the replica has become the master, and Sentinel says so."""
        master = self.sentinel.ask("SENTINEL MASTER", SERVICE)
        seen = master["port"] == self.replica.port and master["flags"] == "master"
        return bool(seen and self.replica.ask("ROLE")[0] == "master")


class Cluster:
    """Three masters, each with a third of the slots."""

    def __init__(self, folder: Path, started: list[Server]) -> None:
        self.nodes: list[Server] = []
        for number in range(3):
            self.nodes.append(Server(folder / str(number), *cluster_arguments()))
            started.append(self.nodes[-1])
        third = _SLOTS // 3 + 1
        for number, node in enumerate(self.nodes):
            node.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
            node.ask("CLUSTER ADDSLOTSRANGE", number * third, min((number + 1) * third, _SLOTS) - 1)
            node.ask("CLUSTER MEET", "127.0.0.1", self.nodes[0].port, bus_port(self.nodes[0]))
        until(self.is_whole)
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def is_whole(self) -> bool:
        """Whether all nodes see all slots served, by the same nodes."""
        maps = [node.ask("CLUSTER SLOTS") for node in self.nodes]
        states = [node.ask("CLUSTER INFO")["cluster_state"] for node in self.nodes]
        return set(states) == {"ok"} and len(maps[0]) >= 3 and all(each == maps[0] for each in maps)

    def owner(self, org: str) -> Server:
        """The master that has an organisation's slot; all nodes agree on it."""
        until(self.is_whole)
        slot = slot_of(org)
        for first, last, (_, port, *_), *_ in self.nodes[0].ask("CLUSTER SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"nobody has slot {slot}")

    def other(self, org: str) -> Server:
        """A master that has not."""
        owner = self.owner(org)
        return next(node for node in self.nodes if node is not owner)

    def move(self, org: str, target: Server) -> None:
        """Move the organisation's slot in one step, as Valkey 9 can; returns when all nodes know."""
        owner, slot = self.owner(org), slot_of(org)
        if owner is target:
            return
        assert owner.ask("CLUSTER MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", node_id(target))
        until(lambda: self.owner(org) is target)

    def begin_move(self, org: str, target: Server) -> Server:
        """From now on keys that are not at the slot's owner (which is returned) are asked for at the target."""
        owner, slot = self.owner(org), slot_of(org)
        assert target.ask("CLUSTER SETSLOT", slot, "IMPORTING", node_id(owner))
        assert owner.ask("CLUSTER SETSLOT", slot, "MIGRATING", node_id(target))
        return owner

    def move_keys(self, org: str, owner: Server, target: Server) -> None:
        """Key by key, as every Redis can."""
        slot = slot_of(org)
        while keys := owner.ask("CLUSTER GETKEYSINSLOT", slot, 10):
            assert owner.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)

    def end_move(self, org: str, target: Server) -> None:
        """The slot is the target's."""
        for node in (target, *self.nodes):
            assert node.ask("CLUSTER SETSLOT", slot_of(org), "NODE", node_id(target))
        until(lambda: self.owner(org) is target)

    def add_replica(self, folder: Path, master: Server) -> Server:
        """A node that may take a master's place, with all that it has."""
        replica = Server(folder, *cluster_arguments())
        replica.ask("CLUSTER MEET", "127.0.0.1", master.port, bus_port(master))
        until(lambda: replica.ask("CLUSTER REPLICATE", node_id(master)))
        until(lambda: replica.ask("INFO", "replication").get("master_link_status") == "up")
        return replica


def cluster_arguments() -> list[str]:
    enabled = ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
    return [*enabled, "--cluster-node-timeout", str(_NODE_TIMEOUT_MS)]


def debian_server() -> str:
    """Debian's redis-server, which can TLS; the test is skipped, visibly, where it is not installed."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("redis-server is not installed")
    return found


def _listening_over_tls(port: int) -> list[str]:
    files = {"ca-cert": AUTHORITY, "cert": _CERTIFICATES / "server.pem", "key": _CERTIFICATES / "server.key"}
    named = [text for name, path in files.items() for text in (f"--tls-{name}-file", str(path))]
    return ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no", "--bind", "127.0.0.1", *named]


def confine(server: Server) -> str:
    """Let in but one user, with the rights that docs/operations.md grants; its name and password, as a URL has them."""
    rights = ("~gw:*", "+@all", "-@admin", "-@dangerous", "+info")
    assert server.ask("ACL SETUSER", "books", "on", ">made-up/word", *rights)
    assert server.ask("ACL SETUSER", "default", "off")
    return "books:made-up%2Fword"


def bus_port(node: Server) -> int:
    return int(node.ask("CONFIG GET", "cluster-port")["cluster-port"])


def node_id(node: Server) -> str:
    return str(node.ask("CLUSTER MYID"))


def slot_of(org: str) -> int:
    return int(key_slot(Keys(org).leases.encode()))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
