"""`gateway ledger verify|export|trim|rebuild|adjust` as they are typed, on the books of a running gateway."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from gateway.store.embedded import EmbeddedRedis
from tests.e2e.client import CHAT, send
from tests.stack import ADMIN_KEY, ROOT, Admin, Process, Stack, chat, running_stack


class Books:
    """A gateway that has served some calls, and its `gateway ledger` commands."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.gateway: Process = stack.gateway()
        self.admin = Admin(self.gateway.url)
        self.key = self.admin.key("red", "an", id="desk")["key"]
        for number in range(5):
            assert 200 == send(self.gateway.url, CHAT, chat(f"Call {number}"), self.key).status

    def run(self, *words: str, redis_url: str = "") -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": "",
            "REDIS_URL": redis_url or self.stack.redis_url,
            "GATEWAY_DATA_DIR": str(self.stack.data_dir),
            "GATEWAY_URL": self.gateway.url,
            "GATEWAY_ADMIN_KEY": ADMIN_KEY,
        }
        command = [sys.executable, "-m", "gateway.cli.main", "ledger", *words]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def books(redis_url: str) -> Iterator[Books]:
    with running_stack(redis_url) as stack:
        yield Books(stack)


def test_verify_says_that_all_is_well(books: Books) -> None:
    """While the gateway runs; exit code 0."""
    done = books.run("verify")
    assert (0, "") == (done.returncode, done.stderr)
    assert "5 entries" in done.stdout
    assert done.stdout.endswith("no differences.\n")


def test_every_charge_is_what_its_tokens_cost(books: Books) -> None:
    """By the price list each names; a charge that was changed together with its balances shows in this alone."""
    assert 0 == books.run("verify", "--reprice").returncode
    with redis.Redis.from_url(books.stack.redis_url) as client:
        ((entry_id, fields),) = client.xrevrange("gw:{default}:ledger", count=1)
        charged = int(fields[b"cost"])
        client.xdel("gw:{default}:ledger", entry_id)
        forged = client.xadd("gw:{default}:ledger", {**fields, b"cost": str(charged + 5)})
    found = json.loads(books.run("verify", "--reprice", "--json").stdout)
    assert [{"entry_id": forged.decode(), "charged_nano_usd": charged + 5, "priced_nano_usd": charged}] == found[
        "mispriced"
    ]
    listed = books.run("verify", "--reprice")
    assert 1 == listed.returncode
    assert f"{charged + 5} nano-USD were charged; by its tokens and prices it costs {charged}" in listed.stdout


def test_verify_lists_a_difference_and_repairs_it(books: Books) -> None:
    """Exit code 1 while there is one; the repair is an entry, and the next run finds nothing."""
    with redis.Redis.from_url(books.stack.redis_url) as client:
        fields = client.xrevrange("gw:{default}:ledger", count=1)[0][1]
        client.xadd("gw:{default}:ledger", {**fields, b"cost": b"77", b"hold": b"forged"})
    found = json.loads(books.run("verify", "--json").stdout)["differences"]
    assert {"organisation default", "team red", "user an", "key desk"} == {each["place"] for each in found}
    assert all(each["entries"] for each in found)
    listed = books.run("verify")
    assert 1 == listed.returncode
    assert "team red: spent is " in listed.stdout
    assert 0 == books.run("verify", "--repair").returncode
    assert 0 == books.run("verify").returncode
    repairs = [entry for entry in books.admin.ledger() if entry["flags"] == ["repair"]]
    assert len(found) == len(repairs)


def test_verify_names_what_it_cannot_read(books: Books) -> None:
    """One line, and exit code 1: an entry that is none, a balance that was cut."""
    with redis.Redis.from_url(books.stack.redis_url) as client:
        name = "gw:{default}:scope:team:red"
        whole = client.get(name)
        client.set(name, whole[:50])
        done = books.run("verify")
        assert (1, "gateway: The balance of team red cannot be read.\n") == (done.returncode, done.stderr)
        client.set(name, whole)
        for entry in ("{", "[]", "{}"):
            junk = client.xadd("gw:{default}:ledger", {"type": "capture", "entry": entry}).decode()
            done = books.run("verify")
            assert 1 == done.returncode
            assert done.stderr.startswith(f"gateway: entry {junk} of the ledger cannot be read")
            assert 1 == done.stderr.count("\n")
            client.xdel("gw:{default}:ledger", junk)
    assert 0 == books.run("verify").returncode


def test_books_move_to_another_redis(books: Books, tmp_path: Path) -> None:
    """Exported from one, built again in an empty one: a gateway there knows the same keys and the same balances."""
    archive = tmp_path / "books.ndjson"
    assert 0 == books.run("export", str(archive)).returncode
    assert 1 == books.run("export", str(archive)).returncode  # never over a file that is there
    before = books.admin.get("/keys/desk")
    server = EmbeddedRedis(tmp_path / "other")
    server.start()
    try:
        done = books.run("rebuild", str(archive), redis_url=server.url)
        assert (0, "5 entries; 0 differences.\n", "") == (done.returncode, done.stdout, done.stderr)
        assert 1 == books.run("rebuild", str(archive), redis_url=server.url).returncode
        with running_stack(server.url) as stack:
            gateway = stack.gateway()
            assert before == Admin(gateway.url).get("/keys/desk")
            assert 200 == send(gateway.url, CHAT, chat("Hello again"), books.key).status
            assert 0 == books.run("verify", "--reprice", redis_url=server.url).returncode
    finally:
        server.stop()


def test_a_table_for_spreadsheets(books: Books) -> None:
    """One line an entry, with the words of the API."""
    head, *rows = books.run("export", "--format", "csv").stdout.splitlines()
    assert head.startswith("id,at,admitted_at,for_period,type,request_id,")
    assert 5 == len(rows)


def test_this_month_is_not_trimmed(books: Books, tmp_path: Path) -> None:
    """Its windows still count, and its reports may still change."""
    archive = tmp_path / "books.ndjson"
    books.run("export", str(archive))
    done = books.run("trim", "--before", "2999-01-01", "--archive", str(archive))
    assert 1 == done.returncode
    assert "first of this month" in done.stderr
    done = books.run("trim", "--before", "2020-01-01", "--archive", str(archive))
    assert "no entry that old" in done.stderr


def test_adjust_posts_what_was_typed(books: Books) -> None:
    """With its note; negative amounts are no option of the command line."""
    assert 0 == books.run("adjust", "team", "red", "1.00", "--note", "a fee").returncode
    done = books.run("adjust", "team", "red", "--note", "too much", "--json", "--", "-0.25")
    assert -250_000_000 == json.loads(done.stdout)["amount_nano_usd"]
    assert 0 == books.run("verify").returncode
    assert 2 == books.run("adjust", "team", "red", "1.00").returncode


def test_without_a_gateway_the_embedded_server_is_started(tmp_path: Path) -> None:
    """The books can be checked while nothing runs; the server is gone again afterwards."""
    server = EmbeddedRedis(tmp_path)
    server.start()
    with running_stack(server.url) as stack:
        books = Books(stack)
        running = subprocess.run(
            [sys.executable, "-m", "gateway.cli.main", "ledger", "verify"],
            cwd=ROOT,
            env={"PATH": "", "GATEWAY_DATA_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "5 entries" in running.stdout
        books.gateway.stop()
    server.stop()
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli.main", "ledger", "verify"],
        cwd=ROOT,
        env={"PATH": "", "GATEWAY_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert "5 entries" in done.stdout
    assert not server.answers()
