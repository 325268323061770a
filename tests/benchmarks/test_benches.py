"""Every bench in small: real processes, a fraction of a second each. Whether a target is met is not asked here."""

import json
import math
import re
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import stack
from benchmarks.attackers import ATTACKS
from benchmarks.compare import Effort
from benchmarks.machine import machine
from benchmarks.report import Figure, Outcome, text_of, write
from gateway.store.embedded import server_program

QUICK = Effort(rounds=1, seconds=0.2, scale=0.002)
SIDES_BESIDE = {"direct", "nginx", "gateway"} if stack.nginx_program() else {"direct", "gateway"}


@pytest.mark.parametrize("bench", ["calls", "paced", "burst", "growth"])
def test_every_side_is_measured_beside_the_others(bench: str) -> None:
    """A side without answers would make a ratio of nothing."""
    outcome = command.run(bench, QUICK, server_program())
    assert SIDES_BESIDE == {row["side"] for row in outcome.rows}
    assert_sane(outcome)
    for row in outcome.rows:
        assert 0 < float(row["first byte p50 ms"]) <= float(row["whole p50 ms"]), row


def test_an_object_is_measured_beside_the_streams() -> None:
    """All three come from the same gateway; of an object the first byte comes with the last."""
    outcome = command.run("folded", QUICK, server_program())
    assert_sane(outcome)
    assert ["MiniToolAI's stream", "OpenAI's stream", "one object"] * 3 == [row["side"] for row in outcome.rows]
    assert 2 == len(outcome.figures)


@pytest.mark.parametrize("bench", ["streams", "stalled"])
def test_memory_is_that_of_the_running_gateway(bench: str) -> None:
    """A Python process with the gateway in it takes more than ten MiB and less than a thousand."""
    outcome = command.run(bench, QUICK, server_program())
    assert_sane(outcome)
    for row in outcome.rows:
        assert 10 < float(row["most MiB"]) < 1000


def test_large_calls_are_sent_while_streams_run() -> None:
    """Each kind at least once; chunks that nothing disturbs come in time, so the measure itself is right."""
    outcome = command.run("large", QUICK, server_program())
    assert_sane(outcome)
    assert [] == [row for row in outcome.rows if not row["sent"] and row["beside 16 streams"] != "nothing"]


def test_every_attack_is_answered_and_none_reaches_the_upstream() -> None:
    """Each is sent at least once while the watchers look on; their own calls are counted apart."""
    outcome = command.run("attacks", QUICK, server_program())
    assert_sane(outcome)
    assert ["nothing", *ATTACKS] == [row["attack"] for row in outcome.rows]
    assert [0] * len(outcome.rows) == [row["reached upstream"] for row in outcome.rows]
    refused = {row["attack"]: set(re.findall(r"[1-5]\d\d|held", str(row["answers"]))) for row in outcome.rows}
    assert {} == {name: statuses for name, statuses in refused.items() if "200" in statuses}
    assert [] == [name for name in ATTACKS if not refused[name]]


@pytest.mark.parametrize("bench", ["keys", "workers"])
def test_crowds_are_served(bench: str) -> None:
    """All keys are laid out: one that is not would be refused, and a refusal ends the bench."""
    assert_sane(command.run(bench, QUICK, server_program()))


def test_a_missing_nginx_is_told_and_not_reckoned_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader must not take a table without nginx for one where nginx was no slower."""
    monkeypatch.setattr(stack, "nginx_program", lambda: None)
    outcome = command.run("burst", QUICK, server_program())
    assert {"direct", "gateway"} == {row["side"] for row in outcome.rows}
    assert stack.NGINX_IS_MISSING in outcome.notes
    assert [] == outcome.figures


def test_a_wrong_answer_ends_the_bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Refusals are cheap; counted as calls they would make the gateway look fast."""

    async def nobody(_redis_url: str, **_crowd: int) -> list[str]:
        return ["sk-mt-nobody"]

    monkeypatch.setattr(stack, "lay_out", nobody)
    assert 1 == command.main(["calls", "--seconds", "0.1", "--rounds", "1"])
    assert "calls: 401" in capsys.readouterr().err


def test_a_result_is_written_with_its_machine(tmp_path: Path) -> None:
    """What it was measured on and with is what makes it comparable."""
    found = Outcome([{"side": "gateway", "calls/s": 1.0}], [Figure("CPU by nginx's", 5.0, 4.0)])
    path = write(tmp_path, "burst", found, machine(server_program()), QUICK)
    result = json.loads(path.read_text(encoding="utf-8"))
    assert f"{result['machine']['date'][:10]}-burst.json" == path.name
    assert {"date", "cpu", "cores", "kernel", "python", "gateway", "redis", "nginx", "packages"} == set(
        result["machine"]
    )
    assert {"rounds": 1, "seconds": 0.2, "scale": 0.002} == result["effort"]
    assert [False] == [figure["met"] for figure in result["figures"]]


def assert_sane(outcome: Outcome) -> None:
    """Rows of one shape, numbers that are numbers, and a text that can be printed."""
    assert outcome.rows
    assert {tuple(outcome.rows[0])} == {tuple(row) for row in outcome.rows}
    numbers = [cell for row in outcome.rows for cell in row.values() if not isinstance(cell, str)]
    assert all(math.isfinite(number) for number in [*numbers, *(figure.value for figure in outcome.figures)])
    assert all(figure.what in text_of("bench", outcome) for figure in outcome.figures)
