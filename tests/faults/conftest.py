"""Each test has a Valkey of its own, which it may kill, a way to it that it may break, and an empty bill.

What the tests measure is told behind the last of them; `docs/reliability.md` has the figures of a long run.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.store.embedded import EmbeddedRedis
from tests.faults.proxy import RedisProxy
from tests.faults.reckoning import Figures
from tests.stack import UPSTREAM_KEY, Process, Stack

_FIGURES = pytest.StashKey[Figures]()


@pytest.fixture(scope="session")
def emulator_url() -> Iterator[str]:
    """One emulator for all tests."""
    emulator = Process("emulator", "--port", "0", "--key", UPSTREAM_KEY, "--balance-usd", "1000")
    yield emulator.url
    emulator.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A Valkey that syncs every write before it answers."""
    server = EmbeddedRedis(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def proxy(server: EmbeddedRedis) -> Iterator[RedisProxy]:
    """A way to it that can be broken."""
    with RedisProxy(Path(server.url.removeprefix("unix://"))) as running:
        yield running


@pytest.fixture
def stack(server: EmbeddedRedis, proxy: RedisProxy, emulator_url: str) -> Iterator[Stack]:
    """The emulator with an empty bill, and no gateway yet; all that the test starts end before the proxy does."""
    with contextlib.ExitStack() as processes:
        stack = Stack(server.url, emulator_url, processes)
        processes.callback(stack.emulator.close)
        stack.emulator.post("/__reset")
        processes.callback(stack.emulator.post, "/__release")
        yield stack


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Takes what a test has measured, to be told at the end."""
    return request.config.stash.setdefault(_FIGURES, Figures())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    figures = config.stash.get(_FIGURES, None)
    if figures is not None:
        terminalreporter.section("what the faults did")
        for line in figures.table():
            terminalreporter.write_line(line)
