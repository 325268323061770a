"""`/admin/v1/quarantine`: a charge whose hold Redis has lost is shown, and goes when a person says so."""

import json
import re
import subprocess
import sys

import redis

from tests.e2e.client import CHAT, stream
from tests.e2e.waiting import until
from tests.stack import ADMIN_KEY, ROOT, Admin, Stack, bearer, chat


def test_a_charge_without_a_hold_is_shown_and_dismissed(stack: Stack) -> None:
    """Redis was restored from an old copy, say: nothing is posted by itself, and nothing is forgotten."""
    gateway = stack.gateway()
    admin = Admin(gateway.url)
    key = admin.key("lost")["key"]
    with stream(gateway.url, CHAT, chat("Where am I [[fault:withhold_after=1]]"), key) as answer:
        answer.read_event()
        with redis.Redis.from_url(stack.redis_url) as client:
            (name,) = client.scan_iter(f"gw:{{default}}:hold:{answer.request_id}")
            client.delete(name)
        stack.emulator.post("/__release")
        answer.read_rest()
    (charge,) = until(lambda: admin.get("/quarantine")["data"])
    assert (answer.request_id, "lost") == (charge["request_id"], charge["team"])
    assert charge["cost_nano_usd"] > 0
    assert [] == admin.ledger(request_id=answer.request_id)
    assert "gateway_quarantined_total 1.0" in admin.http.get("/metrics").text
    assert "in quarantine, not posted" in gateway.output
    environment = {"GATEWAY_URL": gateway.url, "GATEWAY_ADMIN_KEY": ADMIN_KEY}
    command = [sys.executable, "-m", "gateway.cli.main", "ledger", "quarantine"]
    listed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert charge["hold_id"] in listed.stdout
    member = admin.http.delete(f"/admin/v1/quarantine/{charge['hold_id']}", headers=bearer(key))
    assert 403 == member.status_code
    command += ["--dismiss", charge["hold_id"]]
    dismissed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    (entry,) = admin.ledger(request_id=answer.request_id)
    assert ("adjustment", 0, ["dismissed"], "admin") == tuple(
        entry[name] for name in ("type", "cost_nano_usd", "flags", "author")
    )
    assert {charge["hold_id"], str(charge["cost_nano_usd"]), charge["key"]} <= set(re.findall(r"[\w-]+", entry["note"]))
    assert charge["hold_id"] in dismissed.stdout
    assert entry["id"] in dismissed.stdout
    assert [] == admin.get("/quarantine")["data"]
    assert 404 == admin.http.delete(f"/admin/v1/quarantine/{charge['hold_id']}").status_code


def test_the_list_is_paged_as_all_others_are(stack: Stack) -> None:
    """After a restore there may be thousands."""
    admin = Admin(stack.gateway().url)
    facts = {"request_id": "req", "team": "t", "user": None, "key": "k", "kind": "chat", "model": "gpt-4o-mini"}
    held = [f"req-{number}" for number in (3, 1, 2)]
    with redis.Redis.from_url(stack.redis_url) as client:
        charges = {hold: f"{1_700_000_000_000 + int(hold[-1]) // 3}\n7\n{json.dumps(facts)}" for hold in held}
        client.hset("gw:{default}:quarantine", mapping=charges)
        try:
            first = admin.get("/quarantine", limit="2")
            rest = admin.get("/quarantine", limit="2", cursor=first["next_cursor"])
        finally:
            client.hdel("gw:{default}:quarantine", *held)
    assert [["req-1", "req-2"], ["req-3"]] == [[row["hold_id"] for row in page["data"]] for page in (first, rest)]
    assert rest["next_cursor"] is None
    for refused in ("limit=0", "cursor=x", "team=red"):
        assert 400 == admin.http.get(f"/admin/v1/quarantine?{refused}").status_code
