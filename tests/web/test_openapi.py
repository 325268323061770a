"""What is described is what is there: paths, parameters and bodies as the gateway names them, no more, no less."""

import re
import tomllib
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route

from gateway.app import Gateway
from gateway.billing.budget import Calendar
from gateway.billing.price_file import price_schedule
from gateway.settings import Settings
from gateway.web.openapi.bodies import OPTION_SCHEMAS
from gateway.web.openapi.document import document
from gateway.wire.chat import ChatRules
from gateway.wire.chat_options import OPTIONS
from gateway.wire.images import ImageRules
from tests.stack import ADMIN_KEY, Admin, Process, bearer

DOCUMENT = cast(dict[str, Any], document(ChatRules(), ImageRules()))
PAGES_FOR_PEOPLE = "/dashboard"


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and what is said of it."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def named(message: str) -> set[str]:
    """The fields or parameters that a refusal lists."""
    listed = re.search(r"(?:known are|Known are|Supported:) (.*)\.$", message)
    return set() if listed is None or listed[1] == "none" else set(listed[1].split(", "))


def test_the_document_is_one() -> None:
    """Whoever makes a client of it needs a document that OpenAPI 3.1 knows."""
    assert [] == list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors())


def test_every_route_is_in_it_and_nothing_else(redis_url: str, repository: Path) -> None:
    """A path that is not described is found by attackers alone; one that is not there, by everybody else."""
    prices = price_schedule(tomllib.loads((repository / "config" / "prices.toml").read_text()), Calendar(UTC))
    gateway = Gateway(Settings(upstream_api_key="sk-upstream"), prices, ADMIN_KEY, redis_url)
    pages = {
        (method, re.sub(r"\{(\w+):path\}", r"{\1}", route.path))
        for route in cast(list[Route], gateway._router.routes)
        for method in (route.methods or set()) - {"HEAD"}
        if not route.path.startswith(PAGES_FOR_PEOPLE)
    }
    calls = {("POST", path.rstrip("/")) for path in gateway.data_plane.handlers}
    described = {(method, path.rstrip("/")) for method, path, _ in operations()}
    assert described == pages | calls


def test_every_option_of_a_chat_has_its_schema() -> None:
    """One that is forgotten would be described as anything at all."""
    assert set(OPTIONS) == set(OPTION_SCHEMAS)


def test_it_knows_what_this_installation_lets_through() -> None:
    """Roles, further fields and schedulers are settings."""
    chat = ChatRules(roles=("user", "critic"), extra_fields=frozenset({"seed", "verbosity"}))
    schemas = cast(dict[str, Any], document(chat, ImageRules(schedulers=("Euler",)))["components"])["schemas"]
    message = schemas["ChatRequest"]["properties"]["messages"]["items"]
    assert ["user", "critic"] == message["properties"]["role"]["enum"]
    assert {"seed", "verbosity"} <= set(schemas["ChatRequest"]["properties"])
    assert "top_p" not in schemas["ChatRequest"]["properties"]
    assert {"enum": ["Euler"]} in schemas["ImageRequest"]["properties"]["scheduler"]["anyOf"]


@pytest.fixture(scope="module")
def key(admin: Admin) -> str:
    admin.post("/teams", {"id": "described"})
    return str(admin.post("/keys", {"team": "described"})["key"])


def test_query_parameters_are_those_the_gateway_knows(gateway: Process, key: str) -> None:
    """It lists them where it is asked for another one."""
    found, expected = {}, {}
    for method, path, operation in operations():
        parameters = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
        if not parameters:
            continue
        secret = ADMIN_KEY if path.startswith("/admin") else key
        answer = httpx.request(method, f"{gateway.url}{path}?unheard-of=1", headers=bearer(secret))
        assert 400 == answer.status_code
        found[path] = named(answer.json()["error"]["message"])
        expected[path] = parameters
    assert expected == found


def test_fields_of_bodies_are_those_the_gateway_knows(gateway: Process, key: str) -> None:
    """It lists them where it is sent another one."""
    found, expected = {}, {}
    for method, path, operation in operations():
        schema = body_of(operation)
        if "properties" not in schema:
            continue
        secret = ADMIN_KEY if path.startswith("/admin") else key
        url = gateway.url + path.format(id="described" if "team" in path or "key" not in path else "none")
        answer = httpx.request(method, url, json={"unheard-of": 1}, headers=bearer(secret))
        if answer.status_code == 404:  # a PATCH of what is not there
            continue
        found[method, path] = named(answer.json()["error"]["message"])
        expected[method, path] = set(schema["properties"])
    assert expected == found


def body_of(operation: dict[str, Any]) -> dict[str, Any]:
    """The schema of its body; empty where it takes none, or one of several."""
    if "requestBody" not in operation:
        return {}
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    return cast(dict[str, Any], DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]])


def test_it_is_served_to_anyone_and_tells_nothing_else(gateway: Process) -> None:
    """It is the manual: no key, no host of ours, no price, nothing of the books."""
    answer = httpx.get(f"{gateway.url}/openapi.json")
    assert (200, "application/json") == (answer.status_code, answer.headers["content-type"])
    assert DOCUMENT == answer.json()
    assert [] == [word for word in ("127.0.0.1", "sk-upstream", ADMIN_KEY, "described") if word in answer.text]


def test_the_page_shows_every_operation_and_loads_nothing(gateway: Process) -> None:
    """No script, no other host: a page about keys is no place for foreign code."""
    answer = httpx.get(f"{gateway.url}/docs")
    assert (200, "text/html; charset=utf-8") == (answer.status_code, answer.headers["content-type"])
    shown = re.findall(r"<summary><code><b>(\w+)</b> ([^<]+)</code>", answer.text)
    assert {(method, path) for method, path, _ in operations()} == set(shown)
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert [] == re.findall(r"<script|<link|<img|src=|style=|\bon\w+=|https?://", answer.text)
    targets = set(re.findall(r'href="#(\w+)"', answer.text))
    assert set() == targets - set(re.findall(r'id="(\w+)"', answer.text))
