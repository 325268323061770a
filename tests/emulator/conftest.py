"""One emulator for all tests of this folder, on a real socket; its bill is emptied before each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.emulator.options import EmulatorOptions
from gateway.emulator.server import running
from tests.emulator.driver import BALANCE_NANO_USD, KEY, Emulator, connected


@pytest.fixture(scope="session")
def emulator_url() -> Iterator[str]:
    with running(EmulatorOptions(keys=(KEY,), balance_nano_usd=BALANCE_NANO_USD, job_pending_polls=1)) as url:
        yield url


@pytest.fixture(scope="session")
def connected_emulator(emulator_url: str) -> Iterator[Emulator]:
    with connected(emulator_url) as emulator:
        yield emulator


@pytest.fixture
def emulator(connected_emulator: Emulator) -> Iterator[Emulator]:
    connected_emulator.client.post("/__reset")
    yield connected_emulator
    connected_emulator.client.post("/__release")
