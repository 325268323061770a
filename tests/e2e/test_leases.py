"""Leases in real processes: who is killed blocks nobody, who lives is never expired, who comes late corrects."""

import signal
from pathlib import Path

from gateway.billing.ledger import violations
from gateway.store.embedded import EmbeddedRedis
from tests.books import read_books
from tests.e2e.client import CHAT, send, stream
from tests.e2e.waiting import until
from tests.stack import Admin, Stack, chat, running_stack

LEASE_S = "1"


def kinds(admin: Admin, request_id: str) -> list[str]:
    return [entry["type"] for entry in admin.ledger(request_id=request_id)]


def cost(admin: Admin, request_id: str) -> int:
    return sum(entry["cost_nano_usd"] for entry in admin.ledger(request_id=request_id))


def billed(stack: Stack, request_id: str) -> int:
    (line,) = [line for line in stack.bill()["lines"] if line["request_id"] == request_id]
    amount: int = line["claimed_nano_usd"]
    return amount


def test_a_killed_gateways_hold_expires_at_another(stack: Stack) -> None:
    """Its money is free again within the lease and a moment; the charge is what was streamed, and says so."""
    living, killed = stack.gateway(lease_s=LEASE_S), stack.gateway(lease_s=LEASE_S)
    admin = Admin(living.url)
    key = admin.key("bereft", limits={"concurrent_requests": 1})["key"]
    with stream(killed.url, CHAT, chat("Long ago [[fault:withhold_after=3]]"), key) as answer:
        request_id = answer.request_id
        answer.read_event()
        assert 429 == send(living.url, CHAT, chat(), key).status
        killed.signal(signal.SIGKILL)
        killed.wait()
    until(lambda: kinds(admin, request_id) == ["expire"])
    (entry,) = admin.ledger(request_id=request_id)
    assert ["estimated"] == entry["flags"]
    assert 0 < entry["cost_nano_usd"]
    stack.emulator.post("/__release")
    assert 200 == send(living.url, CHAT, chat(), key).status
    assert '"event":"expiry"' in living.output
    metrics = admin.http.get("/metrics").text
    assert "gateway_holds_expired_total 1.0" in metrics
    assert [] == violations(read_books(stack.redis_url))


def test_a_stream_that_runs_is_renewed_for_as_long_as_it_runs(stack: Stack) -> None:
    """Many leases long; its hold tells what it has used so far, which grows to less than the bytes' bound."""
    gateway = stack.gateway(lease_s=LEASE_S)
    admin = Admin(gateway.url)
    key = admin.key("patient")["key"]
    body = chat("Wait for me " * 50 + "[[fault:withhold_after=3]]")
    with stream(gateway.url, CHAT, body, key) as answer:
        answer.read_event()
        (first,) = [hold for hold in admin.get("/holds")["data"] if hold["request_id"] == answer.request_id]
        deadlines = {first["deadline_at"]}

        def renewed_often() -> bool:
            (hold,) = [hold for hold in admin.get("/holds")["data"] if hold["request_id"] == answer.request_id]
            deadlines.add(hold["deadline_at"])
            return len(deadlines) >= 8

        until(renewed_often)
        stack.emulator.post("/__release")
        answer.read_rest()
    assert ["capture"] == kinds(admin, answer.request_id)
    assert billed(stack, answer.request_id) == cost(admin, answer.request_id)


def test_who_was_asleep_and_comes_late_corrects_its_expiry(stack: Stack) -> None:
    """Stopped for longer than its lease, then continued: its true charge is posted as the difference, once."""
    living, asleep = stack.gateway(lease_s=LEASE_S), stack.gateway(lease_s=LEASE_S)
    admin = Admin(living.url)
    key = admin.key("sleeper")["key"]
    with stream(asleep.url, CHAT, chat("Dream on [[fault:withhold_after=2]]"), key) as answer:
        answer.read_event()
        asleep.signal(signal.SIGSTOP)
        until(lambda: kinds(admin, answer.request_id) == ["expire"])
        asleep.signal(signal.SIGCONT)
        stack.emulator.post("/__release")
        answer.read_rest()
    until(lambda: kinds(admin, answer.request_id) == ["expire", "late_capture"])
    assert billed(stack, answer.request_id) == cost(admin, answer.request_id)
    assert [["estimated"], []] == [entry["flags"] for entry in admin.ledger(request_id=answer.request_id)]
    assert [] == violations(read_books(stack.redis_url))


def test_an_outage_longer_than_the_lease_expires_no_live_stream(tmp_path: Path) -> None:
    """Nobody could renew meanwhile: after the return the reapers wait one lease, and by then it is renewed."""
    server = EmbeddedRedis(tmp_path)
    server.start()
    try:
        with running_stack(server.url) as stack:
            gateway, other = stack.gateway(lease_s=LEASE_S), stack.gateway(lease_s=LEASE_S)
            admin = Admin(other.url)
            key = admin.key("steady")["key"]
            with stream(gateway.url, CHAT, chat("On and on [[fault:withhold_after=2]]"), key) as answer:
                answer.read_event()
                (before,) = admin.get("/holds")["data"]
                server.stop()
                until(lambda: other.output.count("cannot be reached") >= 3)
                server.start()

                def renewed() -> bool:
                    holds = admin.http.get("/admin/v1/holds").json().get("data", [])
                    return [True for hold in holds if hold["deadline_at"] > before["deadline_at"]] == [True]

                until(renewed)
                stack.emulator.post("/__release")
                answer.read_rest()
            assert ["capture"] == kinds(admin, answer.request_id)
            assert billed(stack, answer.request_id) == cost(admin, answer.request_id)
    finally:
        server.stop()


def test_a_settlement_survives_its_gateway(tmp_path: Path) -> None:
    """Redis was away when the call ended, and the gateway was killed before it came back: the spool has the charge."""
    server = EmbeddedRedis(tmp_path)
    server.start()
    try:
        with running_stack(server.url) as stack:
            gateway = stack.gateway(lease_s="600")
            key = Admin(gateway.url).key("spooled")["key"]
            with stream(gateway.url, CHAT, chat("Keep this [[fault:withhold_after=2]]"), key) as answer:
                answer.read_event()
                server.stop()
                stack.emulator.post("/__release")
                assert answer.read_rest().endswith(b"data: [DONE]\n\n")
            gateway.signal(signal.SIGKILL)
            gateway.wait()
            server.start()
            admin = Admin(stack.gateway(lease_s="600").url)
            until(lambda: kinds(admin, answer.request_id) == ["capture"])
            (entry,) = admin.ledger(request_id=answer.request_id)
            assert ([], billed(stack, answer.request_id)) == (entry["flags"], entry["cost_nano_usd"])
            until(lambda: not [path for path in (stack.data_dir / "spool").iterdir() if path.stat().st_size])
            assert [] == violations(read_books(stack.redis_url))
    finally:
        server.stop()
