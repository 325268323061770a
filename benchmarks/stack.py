"""What a bench runs against: the upstream, and in front of it nothing, nginx, or the gateway with its Redis."""

import contextlib
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.calls import MINITOOLAI, Way
from benchmarks.organisation import lay_out
from benchmarks.processes import ROOT, Process, free_port, gateway_and_other_cpus, pinned_to

NGINX_IS_MISSING = "nginx is not installed, so nothing is held against it: `apt-get install nginx-light` brings it"

_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx-errors.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_max_body_size 32m;
    client_body_temp_path {folder}/nginx-bodies; proxy_temp_path {folder}/nginx-answers;
    fastcgi_temp_path {folder}/nginx-fastcgi; uwsgi_temp_path {folder}/nginx-uwsgi; scgi_temp_path {folder}/nginx-scgi;
    upstream bench {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://bench;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Side:
    """Something that calls are sent to, and how they are asked.

    `process` is the tree whose CPU counts; `redis` belongs to gateways alone.
    """

    name: str
    process: Process
    keys: deque[str]
    redis: Process | None = None
    way: Way = MINITOOLAI

    @property
    def port(self) -> int:
        return self.process.port


class Stack:
    """Starts sides on CPUs of their own; all of them end with the block of `running_stack`."""

    def __init__(self, folder: Path, processes: contextlib.ExitStack, redis_program: str) -> None:
        self._folder = folder
        self._processes = processes
        self._redis_program = redis_program
        self._gateway_cpus, self._other_cpus = gateway_and_other_cpus()
        self.all_cpus = self._gateway_cpus | self._other_cpus
        processes.enter_context(pinned_to(self._other_cpus))
        upstream_port = free_port()
        upstream = [sys.executable, "-m", "benchmarks.upstream", str(upstream_port)]
        self.upstream = self._start("upstream", upstream, upstream_port, self._other_cpus)

    def direct(self) -> Side:
        """No gateway at all: what the upstream and the load themselves take."""
        return Side("direct", self.upstream, deque(["sk-nobody-asks"]))

    def nginx(self) -> Side | None:
        """A proxy that knows nothing of money; None where it is not installed."""
        program = nginx_program()
        if program is None:
            return None
        port = free_port()
        conf = self._folder / "nginx.conf"
        conf.write_text(_NGINX.format(folder=self._folder, port=port, upstream=self.upstream.port))
        process = self._start("nginx", [program, "-c", str(conf)], port, self._gateway_cpus)
        return Side("nginx", process, deque(["sk-nobody-asks"]))

    async def gateway(
        self, name: str = "gateway", *, teams: int = 1, keys: int = 1, cpus: set[int] | None = None, **settings: str
    ) -> Side:
        """`gateway serve` of this checkout on a Redis of its own, with teams and keys as `lay_out` makes them.

        `settings` are the gateway's own, in lower case without their prefix.
        """
        redis = self._redis(f"{name}-redis")
        redis_url = f"redis://127.0.0.1:{redis.port}/0"
        port = free_port()
        env = {
            "MINITOOLAI_API_KEY": "sk-upstream",
            "MINITOOLAI_BASE_URL": f"http://127.0.0.1:{self.upstream.port}",
            "REDIS_URL": redis_url,
            "GATEWAY_CONFIG": str(ROOT / "config" / "gateway.toml"),
            "GATEWAY_DATA_DIR": str(self._folder / name),
            "GATEWAY_PORT": str(port),
            **{f"GATEWAY_{setting.upper()}": value for setting, value in settings.items()},
        }
        command = [sys.executable, "-m", "gateway.cli.main", "serve"]
        process = self._start(name, command, port, cpus or self._gateway_cpus, env)
        return Side(name, process, deque(await lay_out(redis_url, teams=teams, keys=keys)), redis)

    def _redis(self, name: str) -> Process:
        """Without persistence: what it writes to disk costs the disk, and that is not measured here."""
        port = free_port()
        arguments = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
        return self._start(name, [self._redis_program, *arguments], port, self._other_cpus)

    def _start(
        self, name: str, command: list[str], port: int, cpus: set[int], env: dict[str, str] | None = None
    ) -> Process:
        process = Process(command, port, cpus, self._folder / f"{name}.log", env)
        self._processes.callback(process.stop)
        process.wait_until_listening()
        return process


@contextlib.contextmanager
def running_stack(redis_program: str) -> Iterator[Stack]:
    """An upstream, and whatever sides are started; within the block this process, the load, stays off their CPU."""
    with contextlib.ExitStack() as processes:
        folder = processes.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        yield Stack(Path(folder), processes, redis_program)


def nginx_program() -> str | None:
    """Where nginx is: servers often stand in folders that are not on a user's PATH."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/local/sbin:/usr/sbin:/sbin")
