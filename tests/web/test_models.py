"""The list of models in OpenAI's shape: what a key may use, and what that costs."""

import json
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.stack import ROOT, Admin, Process, Stack, bearer

PRICES = ROOT / "config" / "prices.toml"
ODD_NAMES = ("lab/fox v2", "a?b#c%d&e=f", "50% off/", "~{}[]\"'<>", "..a")


def models(gateway: Process, key: str) -> dict[str, dict[str, object]]:
    answer = httpx.get(f"{gateway.url}/v1/models", headers=bearer(key))
    assert 200 == answer.status_code
    assert "list" == answer.json()["object"]
    return {model["id"]: model for model in answer.json()["data"]}


def test_a_key_sees_what_every_scope_above_it_allows(admin: Admin, gateway: Process) -> None:
    """The same as its own page says; each model can be asked for alone."""
    admin.post("/teams", {"id": "choosers", "models": ["gpt-4o", "gpt-4o-mini", "realvision", "retired"]})
    key = admin.key("choosers", models=["gpt-4o-mini", "realvision", "gpt-4.1"])["key"]
    listed = models(gateway, key)
    assert ["gpt-4o-mini", "realvision"] == list(listed)
    me = httpx.get(f"{gateway.url}/v1/me", headers=bearer(key)).json()
    assert list(listed) == me["models"]
    for name, model in listed.items():
        for path in (f"/v1/models/{name}", f"/v1/models/{name}/"):
            assert model == httpx.get(gateway.url + path, headers=bearer(key)).json()


def test_a_model_tells_its_price_and_its_sizes(admin: Admin, gateway: Process) -> None:
    """As decimal strings and as whole pico-dollars; never a float."""
    listed = models(gateway, admin.key("buyers")["key"])
    chat, image = dict(listed["gpt-4o-mini"]), dict(listed["realvision"])
    assert all(isinstance(model.pop("created"), int) for model in (chat, image))
    assert {
        "id": "gpt-4o-mini",
        "object": "model",
        "owned_by": "minitoolai",
        "kind": "chat",
        "pricing": {
            "input_usd_per_million": "0.15",
            "cached_usd_per_million": "0.15",
            "output_usd_per_million": "0.60",
            "input_pico_usd": 150_000,
            "cached_pico_usd": 150_000,
            "output_pico_usd": 600_000,
        },
        "context_tokens": 128_000,
        "output_tokens": 16_384,
    } == chat
    assert {
        "id": "realvision",
        "object": "model",
        "owned_by": "minitoolai",
        "kind": "image",
        "pricing": {"usd": "0.0015", "pico_usd": 1_500_000_000},
    } == image


@pytest.mark.parametrize("name", ["gpt-4.1", "gpt-4", "no/such/model", "gpt-4o-mini/"])
def test_a_model_that_is_not_allowed_is_not_there(admin: Admin, gateway: Process, name: str) -> None:
    """Whether it has a price is nobody's business who may not use it."""
    key = admin.key("narrow", models=["gpt-4o-mini"])["key"]
    answer = httpx.get(f"{gateway.url}/v1/models/{quote(name, safe='')}", headers=bearer(key))
    error = answer.json()["error"]
    assert (404, "model_not_found", "model") == (answer.status_code, error["code"], error["param"])
    assert "x-request-id" in answer.headers


def test_a_models_name_may_be_odd(stack: Stack, tmp_path: Path) -> None:
    """A name is printable ASCII: slashes, also at its end, and what separates the parts of a URL."""
    prices = tmp_path / "prices.toml"
    prices.write_text(f'{PRICES.read_text()}\n[units.odd]\nusd = "0.01"\nmodels = {json.dumps(ODD_NAMES)}\n')
    gateway = stack.gateway(prices_file=str(prices), timezone="Asia/Ho_Chi_Minh")
    key = Admin(gateway.url).key("odd")["key"]
    for name in ODD_NAMES:
        answer = httpx.get(f"{gateway.url}/v1/models/{quote(name, safe='')}", headers=bearer(key))
        assert (200, name) == (answer.status_code, answer.json().get("id")), answer.text


def test_only_who_holds_a_good_key_sees_models(admin: Admin, gateway: Process) -> None:
    """As on every path of the data plane."""
    made = admin.key("leavers")
    assert 401 == httpx.get(f"{gateway.url}/v1/models").status_code
    admin.post(f"/keys/{made['id']}/block")
    assert 403 == httpx.get(f"{gateway.url}/v1/models", headers=bearer(made["key"])).status_code
