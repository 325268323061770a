"""Many searches through everybody's books at once, by who reaches few of them: others' are served all the same."""

import json
import socket
import struct

import pytest
import redis

from gateway.web.searches import WAITING_MAX
from tests.e2e.client import CHAT
from tests.e2e.waiting import until
from tests.hostile.conftest import Target
from tests.hostile.wire import Reply, connected, read_to_end, replies
from tests.stack import chat

ENTRIES = 10_000
"""Within what one page of a list looks through at most."""
PIECES = ENTRIES // 250
MANY = 60


@pytest.fixture(scope="module")
def members(target: Target) -> dict[str, str]:
    """Secrets of a member of one team and the administrator of another, beside long books of a third."""
    owners = {"an-key": ("red", "an", "member"), "lead-key": ("blue", "lead", "team_admin")}
    secrets = {
        name: target.admin.key(team, user, id=name, role=role)["key"] for name, (team, user, role) in owners.items()
    }
    assert 200 == target.ask("POST", CHAT, target.neighbour, json=chat()).status_code
    with redis.Redis.from_url(target.stack.redis_url) as client:
        ledger = "gw:{default}:ledger"
        (_, entry), *_ = client.xrevrange(ledger, count=1)
        pipeline = client.pipeline()
        for _ in range(ENTRIES):
            pipeline.xadd(ledger, entry)
        pipeline.execute()
    target.admin.get("/usage")  # the cells have them, so nobody reads them but who searches
    return secrets


def test_one_members_many_searches_keep_no_other_team_out(target: Target, members: dict[str, str]) -> None:
    """Some are answered, one behind the other; the others hear when to come back."""
    asking = [asked(target, members["an-key"]) for _ in range(MANY)]
    assert 200 == target.ask("GET", "/admin/v1/credits", members["lead-key"]).status_code
    answers = [answer_on(client) for client in asking]
    refused = [answer for answer in answers if answer.status != 200]
    assert len(answers) - len(refused) > WAITING_MAX
    assert refused
    assert {((429, "concurrency_limit_exceeded"), "1")} == {
        (answer.refusal, answer.headers["retry-after"]) for answer in refused
    }


def test_nothing_is_read_for_who_has_left(target: Target, members: dict[str, str]) -> None:
    """Who asks and leaves at once, again and again, costs a few pieces, and not one search each."""
    reads, lines = ledger_reads(target), len(lines_of_searches(target))
    for _ in range(MANY):
        asked(target, members["an-key"]).close()
    until(lambda: len(lines_of_searches(target)) == lines + MANY)
    ends = {(line["status"], line["error"]) for line in lines_of_searches(target)[lines:]}
    assert not ends <= {(429, "concurrency_limit_exceeded")}
    assert ends <= {(400, "invalid_request"), (None, "client_left"), (429, "concurrency_limit_exceeded")}
    assert ledger_reads(target) - reads < 3 * PIECES


def test_who_is_cut_off_is_in_the_log_as_such(target: Target, members: dict[str, str]) -> None:
    """A connection that is reset while its request waits in line: nobody is answered, and it is no fault of ours."""
    reads, lines = ledger_reads(target), len(lines_of_searches(target))
    before = [asked(target, members["an-key"]) for _ in range(3)]
    client = asked(target, members["an-key"])
    until(lambda: ledger_reads(target) > reads + PIECES)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert [200] * 3 == [answer_on(waiting).status for waiting in before]
    until(lambda: len(lines_of_searches(target)) == lines + 4)
    ends = [(line["status"], line["error"]) for line in lines_of_searches(target)[lines:]]
    assert [(200, None)] * 3 + [(None, "client_left")] == ends


def asked(target: Target, key: str) -> socket.socket:
    """A connection on which a search was asked for."""
    client = connected(target.gateway.url)
    client.sendall(
        f"GET /admin/v1/ledger HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
    )
    return client


def answer_on(client: socket.socket) -> Reply:
    with client:
        (answer,) = replies(read_to_end(client))
    return answer


def ledger_reads(target: Target) -> int:
    """How often entries were read, a piece at a time."""
    with redis.Redis.from_url(target.stack.redis_url) as client:
        return int(client.info("commandstats")["cmdstat_xrange"]["calls"])


def lines_of_searches(target: Target) -> list[dict[str, object]]:
    lines = [line for line in target.gateway.output.splitlines() if '"path":"/admin/v1/ledger"' in line]
    return [json.loads(line) for line in lines]
