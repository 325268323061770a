"""Every path of /openapi.json is asked for what nobody thought of: no answer is a 500, and each is as it is described.

`./run test tests/hostile/test_described.py --hypothesis-profile=long` asks for fifty times as much.
"""

from collections.abc import Iterator
from typing import Any, cast

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.billing.ledger import violations
from gateway.web.openapi.document import document
from gateway.wire.chat import ChatRules
from gateway.wire.images import ImageRules
from tests.books import read_books
from tests.e2e.client import CHAT, send
from tests.hostile.conftest import Target
from tests.stack import ADMIN_KEY, bearer, chat

SCHEMA = schemathesis.openapi.from_dict(cast(dict[str, Any], document(ChatRules(), ImageRules())))
OPERATIONS = {
    each.label: each for each in (found.ok() for found in SCHEMA.get_all_operations() if isinstance(found, Ok))
}
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES_SHARE = 16
"""Each operation gets so many times fewer examples than a test of one thing: there are fifty of them."""
KNOWN = "attacked"
FAULT_OF_THE_UPSTREAM = 502
"""The answer where MiniToolAI refuses an image among several."""


@pytest.fixture(scope="module")
def asker(target: Target) -> str:
    """A member's key to ask with; beside it a team, a user and a key that may be spoilt."""
    admin = target.admin
    admin.post("/teams", {"id": KNOWN, "budgets": [{"window": "prepaid"}]})
    admin.post("/users", {"id": KNOWN, "team": KNOWN})
    admin.post("/keys", {"id": KNOWN, "team": KNOWN, "user": KNOWN})
    admin.post("/teams", {"id": "askers"})
    return str(admin.post("/keys", {"team": "askers"})["key"])


@pytest.fixture(scope="module")
def lead(target: Target, asker: str) -> str:
    """The key of a team's administrator who may spoil that team; its own id is what nothing aims at."""
    return str(target.admin.post("/keys", {"team": KNOWN, "role": "team_admin"})["key"])


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as one:
        yield one


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_answer_is_a_fault_and_each_is_as_described(
    target: Target, asker: str, lead: str, session: requests.Session, operation: str
) -> None:
    """With an administrator's key, a team administrator's, a member's: of what fits its schema and what does not."""
    described = OPERATIONS[operation]
    own, foreign = (ADMIN_KEY, asker) if described.path.startswith(("/admin", "/metrics")) else (asker, ADMIN_KEY)
    modes = [mode for mode in GenerationMode if described.body or described.query or mode is GenerationMode.POSITIVE]
    cases = st.one_of(*(described.as_strategy(generation_mode=mode) for mode in modes))

    @settings(
        max_examples=max(1, settings().max_examples // EXAMPLES_SHARE),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, key=st.sampled_from([own, own, lead, foreign]), is_known=st.booleans())
    def ask(case: Case[Any], key: str, is_known: bool) -> None:
        if is_known:
            aim(case)
        headers = bearer(key) | target.from_elsewhere()
        response = case.call(base_url=target.gateway.url, session=session, headers=headers, timeout=30)
        assert response.status_code < 500 or response.status_code == FAULT_OF_THE_UPSTREAM, response.text
        case.validate_response(response, checks=CHECKS)
        if response.headers.get("x-gateway-error-source") == ["gateway"]:
            error = response.json()["error"]
            assert (str, str, str) == (type(error["message"]), type(error["type"]), type(error["code"]))

    ask()


def test_afterwards_others_are_served_and_the_books_are_right(target: Target) -> None:
    """Whatever was asked: it is the last test here."""
    assert 200 == send(target.gateway.url, CHAT, chat(), target.neighbour).status
    target.stack.bill()  # once it is at rest, so is the ledger
    assert [] == violations(read_books(target.stack.redis_url))


def aim(case: Case[Any]) -> None:
    """At what is there: chance alone names no scope and no model."""
    if "id" in case.path_parameters:
        case.path_parameters["id"] = KNOWN
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = "dreamshaper" if "image" in case.path else "gpt-4o-mini"
