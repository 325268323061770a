"""Prices that change while calls run: in real processes, against what the lists of each version say."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest

from gateway.billing.ledger import violations
from gateway.billing.money import parse_usd
from gateway.billing.repricing import Mispriced, repriced
from gateway.store.prices import PriceBooks
from gateway.store.scripts import RedisScripts
from tests.books import ORG, Store, read_books, with_store
from tests.e2e.client import CHAT, IMAGES, send, stream
from tests.e2e.waiting import until
from tests.stack import Admin, Process, Stack, chat

SOON = timedelta(seconds=1.5)
LEASE_S = "1"
RATES = {"input_usd_per_million": "1", "output_usd_per_million": "2"}
SIZES = {"context_tokens": 128000, "output_tokens": 16384, "image_tokens_low": 2833, "image_tokens_high": 48169}


@dataclass(frozen=True)
class Shop:
    """Two gateways on one set of books; prices are entered at the first."""

    stack: Stack
    first: Process
    second: Process
    admin: Admin

    def change(self, **body: Any) -> datetime:
        """Enter a price that begins soon, by the ledger's clock; when."""
        begins = datetime.fromisoformat(self.admin.get("/prices")["at"]) + SOON
        self.admin.post("/prices", body | {"effective_from": begins.isoformat(timespec="milliseconds")})
        return begins

    def wait_until(self, begins: datetime) -> str:
        """Until that instant has come; the version of the list in force."""
        page = until(lambda: datetime.fromisoformat((page := self.admin.get("/prices"))["at"]) >= begins and page)
        return str(page["version"])

    def version(self) -> str:
        return str(self.admin.get("/prices")["version"])

    def entry(self, request_id: str) -> dict[str, Any]:
        """The one entry of a call."""
        (entry,) = self.admin.ledger(request_id=request_id)
        return entry

    def mispriced(self) -> list[Mispriced]:
        """Entries whose charge is not what their tokens cost by their version."""

        async def look(store: Store) -> list[Mispriced]:
            books = PriceBooks(store.redis, RedisScripts(store.redis, 5))
            found = []
            async for entry in store.ledger.all_entries(ORG):
                wrong = repriced(entry, await books.list_of(ORG, entry.price_version))
                found += [wrong] if wrong else []
            return found

        return with_store(self.stack.redis_url, look)


@pytest.fixture(scope="module")
def shop(stack: Stack) -> Iterator[Shop]:
    first, second = stack.gateway(lease_s=LEASE_S), stack.gateway(lease_s=LEASE_S)
    one = Shop(stack, first, second, Admin(first.url))
    yield one
    one.admin.http.close()


def test_a_price_that_changes_in_mid_stream_is_the_next_calls(shop: Shop) -> None:
    """The stream is charged what it was held at; calls after the instant cost the new price, at either gateway."""
    key, old = shop.admin.key("market")["key"], shop.version()
    before = send(shop.second.url, CHAT, chat("Good morning"), key)
    body = chat("Good morning [[fault:withhold_after=2]]")
    with stream(shop.first.url, CHAT, body, key) as answer:
        answer.read_event()
        new = shop.wait_until(shop.change(model="gpt-4o-mini", input_usd_per_million="15", output_usd_per_million="60"))
        after = [send(url, CHAT, chat("Good morning"), key) for url in (shop.second.url, shop.first.url)]
        shop.stack.emulator.post("/__release")
        answer.read_rest()
    assert [200] * 3 == [one.status for one in (before, *after)]
    running = shop.entry(answer.request_id)
    entries = [shop.entry(one.request_id) for one in (before, *after)]
    assert [old, old, new, new] == [entry["price_version"] for entry in (running, *entries)]
    costs = [entry["cost_nano_usd"] for entry in entries]
    assert [costs[0] * 100] * 2 == costs[1:]
    held = [parse_usd(one.headers["x-gateway-hold-usd"]) for one in (before, *after)]
    assert [held[0] * 100] * 2 == held[1:]
    assert running["cost_nano_usd"] == running["prompt_tokens"] * 150 + running["completion_tokens"] * 600
    assert [] == shop.mispriced()
    assert [] == violations(read_books(shop.stack.redis_url))


def test_a_model_is_served_while_it_has_a_price(shop: Shop) -> None:
    """One that is announced is not found before its instant, one that is withdrawn not after it; nothing is free."""
    key = shop.admin.key("seasonal")["key"]
    image, new = {"model": "amigo", "prompt": "a boat"}, {"kind": "chat", **RATES, **SIZES}
    assert 200 == send(shop.second.url, IMAGES, image, key).status
    shop.admin.post("/prices", {"model": "gpt-99", "effective_from": "2099-01-01", **new})
    shop.change(model="amigo", withdrawn=True)
    shop.wait_until(shop.change(model="gpt-4.1-pro", **new))
    for path, body in ((IMAGES, image), (CHAT, chat(model="gpt-99"))):
        refused = send(shop.second.url, path, body, key)
        assert (404, "model_not_found") == (refused.status, refused.error["code"])
    me = shop.admin.http.get("/v1/me", headers={"authorization": f"Bearer {key}"}).json()
    assert ("gpt-4.1-pro" in me["models"], "amigo" in me["models"]) == (True, False)
    assert 404 != send(shop.second.url, CHAT, chat(model="gpt-4.1-pro"), key).status


def test_a_blocked_key_hears_that_before_it_hears_of_prices(shop: Shop) -> None:
    """Also where its call was priced by a list that is no longer in force, in which its model has no price any more."""
    made = shop.admin.key("shut")
    begins = shop.change(model="realism", withdrawn=True)
    shop.admin.post(f"/keys/{made['id']}/block")
    shop.wait_until(begins)
    answer = send(shop.second.url, IMAGES, {"model": "realism", "prompt": "a boat"}, made["key"])
    assert (403, "scope_blocked") == (answer.status, answer.error["code"])


def test_who_expires_a_hold_charges_its_own_price(shop: Shop) -> None:
    """Its gateway is killed, and the price changes before anyone notices."""
    doomed = shop.stack.gateway(lease_s="4")
    key, old = shop.admin.key("orphan")["key"], shop.version()
    with stream(doomed.url, CHAT, chat("Farewell [[fault:withhold_after=3]]", model="gpt-4o"), key) as answer:
        answer.read_event()
        begins = shop.change(model="gpt-4o", input_usd_per_million="250", output_usd_per_million="1000")
        doomed.signal(SIGKILL)
        doomed.wait()
        shop.wait_until(begins)
    until(lambda: shop.admin.ledger(request_id=answer.request_id))
    entry = shop.entry(answer.request_id)
    assert ("expire", old) == (entry["type"], entry["price_version"])
    assert entry["cost_nano_usd"] == entry["prompt_tokens"] * 2_500 + entry["completion_tokens"] * 10_000
    shop.stack.emulator.post("/__release")
    assert [] == shop.mispriced()


def test_a_file_that_contradicts_the_books_stops_the_start(shop: Shop, repository: Path, tmp_path: Path) -> None:
    """With one line that says which price and what to do; a change with a day in it is what it asks for."""
    text = (repository / "config" / "prices.toml").read_text()
    edited = tmp_path / "prices.toml"
    edited.write_text(text.replace('"0.0015"', '"0.0020"'))
    with pytest.raises(AssertionError, match="the process does not listen") as failed:
        shop.stack.gateway(prices_file=str(edited))
    (line,) = [line for line in str(failed.value).splitlines() if "cannot start" in line]
    assert "realvision without a date at usd 0.002, but the books have usd 0.0015" in line
    assert "[[change]]" in line
    edited.write_text(f'{text}\n[[change]]\nfrom = 2099-01-01\nmodel = "realvision"\nusd = "0.0020"\n')
    shop.stack.gateway(prices_file=str(edited))
    assert ["current", "upcoming"] == [row["state"] for row in shop.admin.get("/prices", model="realvision")["data"]]
