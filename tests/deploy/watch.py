"""What docker-compose.yml starts, side by side without containers: the same files, on free ports, with short times."""

import contextlib
import functools
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import redis

from tests.deploy.tools import DEPLOY, compose_project, make_secrets, program, start_books
from tests.e2e.waiting import until
from tests.stack import UPSTREAM_KEY, Admin, Process, chat

RANGE_S = 8
"""What every range of a rule is shortened to, so that what fired also clears."""
SLOW_S = 2
"""How late a first byte is that alerts here, in place of half a minute."""
FIRST_BYTE_LATE = f"(gateway_time_to_first_byte_seconds_bucket[10m]))) > {SLOW_S / 2}"
LEASE_S = 3
"""How soon the holds of a killed gateway are found."""
_STOP_S = 30


@dataclass
class Watched:
    """Two gateways of two workers each, an emulator behind them, watched by Prometheus, which tells Alertmanager."""

    books: subprocess.Popen[bytes]
    gateways: list[Process]
    emulator: httpx.Client
    admin: Admin
    prometheus: httpx.Client
    alertmanager: httpx.Client
    environ: Mapping[str, str]
    ports: list[int]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series an instant query finds now."""
        answer = self.prometheus.get("/api/v1/query", params={"query": expression}).json()
        assert "success" == answer["status"], f"{expression}: {answer}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        groups = self.prometheus.get("/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def fires(self, alert: str, **labels: str) -> None:
        """Wait until an alert fires."""
        until(lambda: self.firing(alert, **labels), timeout_s=40)

    def clears(self, alert: str, **labels: str) -> None:
        """Wait until it fires no more."""
        until(lambda: not self.firing(alert, **labels), timeout_s=40)

    def redis(self) -> redis.Redis:
        """What the gateways keep their books in."""
        password = Path(self.environ["GATEWAY_REDIS_PASSWORD_FILE"]).read_text().strip()
        return redis.Redis.from_url(self.environ["REDIS_URL"], password=password)

    def start_gateway(self, number: int) -> Process:
        """One more gateway on the port of that number; its predecessor has ended."""
        process = Process("serve", env={**self.environ, "GATEWAY_PORT": str(self.ports[number])})
        assert process.url
        return process

    def firing(self, alert: str, **labels: str) -> list[dict[str, Any]]:
        """The series of an alert that fires."""
        wanted = "".join(f',{name}="{value}"' for name, value in labels.items())
        return self.query(f'ALERTS{{alertname="{alert}",alertstate="firing"{wanted}}}')


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    """All of it; everything ends with the block."""
    secrets = make_secrets(folder, UPSTREAM_KEY)
    ports = [free_port() for _ in range(4)]
    with contextlib.ExitStack() as ends:
        books = start_books(compose_project()["services"]["valkey"], secrets, folder)
        ends.callback(stop, books)
        emulator = Process("emulator", "--port", "0", "--key", UPSTREAM_KEY, "--balance-usd", "1000")
        ends.callback(emulator.stop)
        environ = gateway_environ(secrets, folder, emulator.url)
        start_prometheus(ends, folder, secrets, ports)
        all_of_it = Watched(
            books=books,
            gateways=[],
            emulator=ends.enter_context(httpx.Client(base_url=emulator.url, timeout=30)),
            admin=ends.enter_context(contextlib.closing(_Admin(f"http://127.0.0.1:{ports[0]}", secrets))),
            prometheus=ends.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{ports[2]}", timeout=30)),
            alertmanager=ends.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{ports[3]}", timeout=30)),
            environ=environ,
            ports=ports[:2],
        )
        ends.callback(lambda: [gateway.stop() for gateway in all_of_it.gateways])
        all_of_it.gateways += [all_of_it.start_gateway(number) for number in range(2)]
        until(lambda: 2 == len(all_of_it.query("up == 1")), timeout_s=40)
        yield all_of_it


def gateway_environ(secrets: Path, folder: Path, emulator: str) -> dict[str, str]:
    """The container's own environment, with this machine's paths and addresses."""
    environ: dict[str, str] = compose_project()["services"]["gateway"]["environment"]
    here = {name: text.replace("/run/secrets", str(secrets)) for name, text in environ.items()}
    # A Redis that hangs must be noticed within a scrape of this test.
    return {
        **here,
        "MINITOOLAI_BASE_URL": emulator,
        "REDIS_URL": f"unix://{folder}/s",
        "GATEWAY_DATA_DIR": str(folder / "data"),
        "GATEWAY_WORKERS": "2",
        "GATEWAY_REDIS_TIMEOUT_S": "0.3",
        "GATEWAY_LEASE_S": str(LEASE_S),
    }


def start_prometheus(ends: contextlib.ExitStack, folder: Path, secrets: Path, ports: list[int]) -> None:
    """Prometheus and Alertmanager by deploy/'s files."""
    (folder / "rules.yml").write_text(shortened((DEPLOY / "prometheus" / "rules.yml").read_text(encoding="utf-8")))
    (folder / "prometheus.yml").write_text(prometheus_config(secrets, ports))
    alerting = (DEPLOY / "alertmanager" / "alertmanager.yml").read_text(encoding="utf-8")
    (folder / "alertmanager.yml").write_text(replaced(alerting, {"group_wait: 30s": "group_wait: 1s"}))
    for command in (
        [
            *(program("prometheus"), "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb"),
            f"--web.listen-address=127.0.0.1:{ports[2]}",
        ],
        [
            *(program("prometheus-alertmanager"), "--config.file=alertmanager.yml", "--storage.path=alerts"),
            *(f"--web.listen-address=127.0.0.1:{ports[3]}", "--cluster.listen-address="),
        ],
    ):
        log = ends.enter_context((folder / f"{Path(command[0]).name}.log").open("wb"))
        ends.callback(stop, subprocess.Popen(command, cwd=folder, stdout=log, stderr=log))
    for port in ports[2:]:
        until(functools.partial(is_ready, port), timeout_s=40)


def prometheus_config(secrets: Path, ports: list[int]) -> str:
    """deploy/'s, with this machine's addresses and a scrape a second."""
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    discovery = text[text.index("    dns_sd_configs:") :]
    targets = ", ".join(f'"127.0.0.1:{port}"' for port in ports[:2])
    return replaced(
        text,
        {
            discovery: f"    static_configs:\n      - targets: [{targets}]\n",
            "scrape_interval: 15s": "scrape_interval: 1s",
            "scrape_timeout: 10s": "scrape_timeout: 1s",
            "evaluation_interval: 15s": "evaluation_interval: 1s",
            "[alertmanager:9093]": f'["127.0.0.1:{ports[3]}"]',
            "/run/secrets": str(secrets),
        },
    )


def shortened(rules: str) -> str:
    """The same rules with short ranges, waiting no more than a second, and with a shorter patience for a first byte."""
    rules = replaced(rules, {"(gateway_time_to_first_byte_seconds_bucket[10m]))) > 30": FIRST_BYTE_LATE})
    return re.sub(r"for: \w+", "for: 1s", re.sub(r"\[\d+[mh]\]", f"[{RANGE_S}s]", rules))


def replaced(text: str, changes: Mapping[str, str]) -> str:
    for there, here in changes.items():
        assert there in text, there
        text = text.replace(there, here)
    return text


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/-/ready").is_success
    except httpx.TransportError:
        return False


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(_STOP_S)


def send(url: str, path: str, key: str, body: dict[str, Any]) -> int:
    """Make a call and read its answer to the end; the status."""
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{url}{path}", json=body, headers=headers, timeout=30).status_code


def send_chat(url: str, key: str, fault: str = "", model: str = "gpt-4o-mini") -> int:
    text = f"Hello [[fault:{fault}]]" if fault else "Hello"
    return send(url, "/api/chat-completions/", key, chat(text, model))


class _Admin(Admin):
    """The administrator, by the key in the secret's file."""

    def __init__(self, url: str, secrets: Path) -> None:
        super().__init__(url)
        self.http.headers["authorization"] = f"Bearer {(secrets / 'gateway_admin_key').read_text().strip()}"

    def close(self) -> None:
        self.http.close()
