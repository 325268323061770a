"""Every refusal: its status and code, no call upstream, nothing billed; and the upstream's key stays inside."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.billing.principal import Scope
from gateway.store.embedded import EmbeddedRedis
from tests.books import state_of
from tests.e2e.client import CHAT, IMAGES, JOBS, Answer, send, stream
from tests.e2e.waiting import until
from tests.stack import UPSTREAM_KEY, Admin, Process, Stack, chat

BODY_BYTES_MAX = 20_000
IMAGE = {"model": "realvision", "prompt": "A tree"}


@dataclass(frozen=True)
class Door:
    """A gateway at which calls are refused."""

    stack: Stack
    gateway: Process
    admin: Admin

    def chat(self, key: str | None, body: object = None, **headers: str) -> Answer:
        spelled = {name.replace("_", "-"): value for name, value in headers.items()}
        return send(self.gateway.url, CHAT, chat() if body is None else body, key, spelled)

    def calls_seen(self) -> int:
        return len(self.stack.emulator.get("/__requests").json()["requests"])


@pytest.fixture(scope="module")
def gateway(stack: Stack) -> Process:
    return stack.gateway(body_bytes_max=str(BODY_BYTES_MAX), body_timeout_s="0.5")


@pytest.fixture
def door(stack: Stack, gateway: Process) -> Iterator[Door]:
    """Whatever a test does to be refused: the emulator saw no call, nothing was booked or held, no key came out."""
    stack.emulator.post("/__reset")
    door = Door(stack, gateway, Admin(gateway.url))
    booked = len(door.admin.ledger())
    yield door
    assert 0 == door.calls_seen()
    assert booked == len(door.admin.ledger())
    assert [] == door.admin.get("/holds")["data"]


@pytest.fixture
def passage(stack: Stack, gateway: Process) -> Door:
    """The same for tests whose calls do go upstream."""
    stack.emulator.post("/__reset")
    return Door(stack, gateway, Admin(gateway.url))


def refusal(answer: Answer) -> tuple[int, str]:
    """Status and code of an error that is the gateway's own."""
    assert "gateway" == answer.headers["x-gateway-error-source"]
    assert {"message", "type", "param", "code"} <= answer.error.keys()
    return answer.status, answer.error["code"]


@pytest.mark.parametrize("kind", ["team", "user", "key"])
def test_a_blocked_scope_refuses_the_next_call(door: Door, kind: str) -> None:
    """And names itself; unblocked, it is open again at once."""
    made = door.admin.key(f"blocked-{kind}", f"user-of-{kind}")
    scope_id = {"team": f"blocked-{kind}", "user": f"user-of-{kind}", "key": made["id"]}[kind]
    door.admin.post(f"/{kind}s/{scope_id}/block")
    for path, body in ((CHAT, chat()), (IMAGES, IMAGE)):
        answer = send(door.gateway.url, path, body, made["key"])
        assert (403, "scope_blocked") == refusal(answer)
        assert (kind, scope_id, "permission_error") == tuple(answer.error[name] for name in ("scope", "id", "type"))
    door.admin.post(f"/{kind}s/{scope_id}/unblock")
    assert state_of(door.stack.redis_url, Scope("team", f"blocked-{kind}")).blocked is False


@pytest.mark.parametrize("path", [CHAT, IMAGES, JOBS])
def test_another_method_is_told_which_one_to_use(door: Door, path: str) -> None:
    """In words and in the header that HTTP asks for."""
    with stream(door.gateway.url, path, b"", method="GET") as answer:
        assert (405, "POST") == (answer.status, answer.headers["allow"])


def test_a_blocked_organisation_refuses_everybody(door: Door) -> None:
    """The outermost scope is named, even where an inner one is blocked too."""
    made = door.admin.key("inside", "an", blocked=True)
    door.admin.post("/organisations/default/block")
    try:
        answer = door.chat(made["key"])
    finally:
        door.admin.post("/organisations/default/unblock")
    assert (403, "scope_blocked", "organisation") == (*refusal(answer), answer.error["scope"])


@pytest.mark.parametrize(("role", "told"), [("member", False), ("auditor", True), ("admin", True)])
def test_only_some_are_told_what_the_organisation_spends(door: Door, role: str, told: bool) -> None:
    """Its amounts are in the refusal of those who may read all books, and in nobody else's."""
    key = door.admin.key("curious", role=role)["key"]
    door.admin.patch("/organisations/default", {"budgets": [{"window": "total", "limit_usd": "0.00"}]})
    try:
        answer = door.chat(key)
    finally:
        door.admin.patch("/organisations/default", {"budgets": []})
    assert (402, "budget_exceeded", told) == (*refusal(answer), "limit_usd" in answer.error)
    assert told == ("of its $0.00" in answer.error["message"])


def test_a_key_that_was_good_a_moment_ago_is_dead_at_once(passage: Door) -> None:
    """Revoked, blocked or expired between two calls: the second is refused, though the gateway remembers the key."""
    keys = {action: passage.admin.key("changing") for action in ("revoke", "block", "expire")}
    for made in keys.values():
        assert 200 == passage.chat(made["key"]).status
    passage.admin.post(f"/keys/{keys['revoke']['id']}/revoke")
    passage.admin.post(f"/keys/{keys['block']['id']}/block")
    passage.admin.patch(f"/keys/{keys['expire']['id']}", {"expires_at": at(seconds=-1)})
    seen = passage.calls_seen()
    assert (401, "invalid_api_key") == refusal(passage.chat(keys["revoke"]["key"]))
    assert (403, "scope_blocked") == refusal(passage.chat(keys["block"]["key"]))
    assert (401, "expired_api_key") == refusal(passage.chat(keys["expire"]["key"]))
    assert seen == passage.calls_seen()


def test_a_key_expires_by_itself(door: Door) -> None:
    """By Redis's clock, with nobody touching it."""
    made = door.admin.key("changing", expires_at=at(seconds=3))
    assert (404, "model_not_found") == refusal(door.chat(made["key"], chat(model="gpt-5")))
    until(lambda: door.chat(made["key"], chat(model="gpt-5")).status == 401)
    assert (401, "expired_api_key") == refusal(door.chat(made["key"]))


@pytest.mark.parametrize("kind", ["team", "user", "key"])
def test_a_model_outside_an_allow_list_is_403(door: Door, kind: str) -> None:
    """At whichever scope the list is, and for both kinds of call."""
    made = door.admin.key(f"listed-{kind}", f"listed-by-{kind}")
    scope_id = {"team": f"listed-{kind}", "user": f"listed-by-{kind}", "key": made["id"]}[kind]
    door.admin.patch(f"/{kind}s/{scope_id}", {"models": ["gpt-4o-mini", "dreamshaper"]})
    for path, body in ((CHAT, chat(model="gpt-4o")), (IMAGES, IMAGE)):
        answer = send(door.gateway.url, path, body, made["key"])
        assert (403, "model_not_allowed", kind) == (*refusal(answer), answer.error["scope"])


@pytest.mark.parametrize("model", ["gpt-5", "realvision", "gpt-4o-mini-2024-07-18", "GPT-4o", "gpt-4o\n"])
def test_a_model_without_a_price_is_404(door: Door, model: str) -> None:
    """Never free: not an unknown one, nor an image model on the chat path, nor another spelling."""
    answer = door.chat(door.admin.key("models")["key"], chat(model=model))
    assert (404, "model_not_found", "model") == (*refusal(answer), answer.error["param"])


def test_refusals_come_in_their_order(door: Door) -> None:
    """One call with everything wrong, put right step by step: 401, 403, 404, 402."""
    admin = door.admin
    made = admin.key("order", "zoe", expires_at=at(seconds=-1), models=["gpt-4.1"], blocked=True)
    path = f"/keys/{made['id']}"
    admin.patch(path, {"budgets": [{"window": "day", "limit_usd": "0"}]})
    assert (401, "missing_api_key") == refusal(door.chat(None))
    assert (401, "invalid_api_key") == refusal(door.chat("sk-mt-default-0000"))
    assert (401, "expired_api_key") == refusal(door.chat(made["key"]))
    assert (401, "expired_api_key") == refusal(door.chat(made["key"], chat(model="gpt-5")))
    admin.patch(path, {"expires_at": None})
    assert (403, "scope_blocked") == refusal(door.chat(made["key"]))
    assert (403, "scope_blocked") == refusal(door.chat(made["key"], chat(model="gpt-5")))
    admin.patch(path, {"blocked": False})
    assert (404, "model_not_found") == refusal(door.chat(made["key"], chat(model="gpt-5")))
    assert (403, "model_not_allowed") == refusal(door.chat(made["key"]))
    admin.patch(path, {"models": None})
    broke = door.chat(made["key"])
    assert (402, "budget_exceeded", "false") == (*refusal(broke), broke.headers["x-should-retry"])


@pytest.mark.parametrize("scheme", ["Basic {}", "{}", "Bearer", "Token {}"])
def test_a_key_is_a_bearer_token(door: Door, scheme: str) -> None:
    """Anything else in Authorization is no key; x-api-key carries one as well."""
    key = door.admin.key("schemes")["key"]
    assert (401, "missing_api_key") == refusal(door.chat(None, authorization=scheme.format(key)))
    assert (404, "model_not_found") == refusal(door.chat(None, chat(model="gpt-5"), x_api_key=key))


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"{", "invalid_json", None),
        (b'{"model": "gpt-4o-mini", "messages": NaN}', "invalid_json", None),
        (b"[]", "invalid_json", None),
        (b"\xff{}", "invalid_json", None),
        (b"[" * 10_000, "invalid_request", None),
        (b'{"model":"gpt-4o-mini","model":"gpt-4o","messages":[]}', "duplicate_key", "model"),
        (b'{"model":"gpt-4o-mini","messages":[{"role":"user","role":"user","content":"a"}]}', "duplicate_key", "role"),
        ({"model": "gpt-4o-mini"}, "invalid_request", "messages"),
        (chat(tools=[]), "unsupported_parameter", "tools"),
        (chat(service_tier="priority"), "unsupported_parameter", "service_tier"),
        (chat(temperature=2.1), "invalid_request", "temperature"),
        (chat(max_completion_tokens=0), "invalid_request", "max_completion_tokens"),
        (chat(max_completion_tokens=10, max_tokens=11), "invalid_request", "max_tokens"),
        ({"messages": [], "model": "gpt-4o-mini"}, "invalid_request", "messages"),
    ],
)
def test_a_body_that_breaks_the_contract_names_the_field(
    door: Door, body: object, code: str, param: str | None
) -> None:
    """400, before anything is held."""
    answer = door.chat(door.admin.key("bodies")["key"], body)
    assert (400, code) == refusal(answer)
    assert param is None or param in str(answer.error["param"])


def test_what_is_not_a_json_post_is_refused(door: Door) -> None:
    """Another type, an encoded body, another method, another path."""
    key = door.admin.key("types")["key"]
    assert (415, "unsupported_media_type") == refusal(door.chat(key, content_type="text/plain"))
    assert (415, "unsupported_media_type") == refusal(door.chat(key, content_encoding="gzip"))
    for path in (CHAT, IMAGES, JOBS, CHAT.removesuffix("/")):
        with stream(door.gateway.url, path, b"", key, method="GET") as answer:
            answer.read_rest()
        assert 405 == answer.status
    assert (404, "not_found") == refusal(send(door.gateway.url, "/api/chatgpt/", chat(), key))


def test_a_body_above_the_bound_is_not_read(door: Door) -> None:
    """Declared too large it is refused before it arrives; sent in chunks, as soon as it is too large."""
    key = door.admin.key("sizes")["key"]
    assert (413, "request_too_large") == refusal(door.chat(key, chat("x" * BODY_BYTES_MAX)))
    with stream(door.gateway.url, CHAT, b"", key, {"content-length": str(10**12)}) as answer:
        answer.read_rest()
    assert 413 == answer.status
    with stream(door.gateway.url, CHAT, iter([b"x" * 8_000] * 3), key) as answer:
        answer.read_rest()
    assert 413 == answer.status


def test_a_body_that_does_not_arrive_is_given_up(door: Door) -> None:
    """A client that declares more than it sends holds no place for long."""
    key = door.admin.key("slow")["key"]
    with stream(door.gateway.url, CHAT, b'{"model":', key, {"content-length": "100"}) as answer:
        answer.read_rest()
    assert 408 == answer.status


@pytest.mark.parametrize("status", [401, 402, 403])
@pytest.mark.parametrize("path", [CHAT, IMAGES])
def test_an_upstream_that_refuses_us_is_502(passage: Door, status: int, path: str) -> None:
    """It is the organisation's key or balance, not the caller's; the hold is given back."""
    body: Any = (
        chat(f"[[fault:status={status}]]") if path == CHAT else {**IMAGE, "prompt": f"[[fault:status={status}]]"}
    )
    answer = send(passage.gateway.url, path, body, passage.admin.key("refused")["key"])
    assert (502, "upstream_refused", "upstream") == (
        answer.status,
        answer.error["code"],
        answer.headers["x-gateway-error-source"],
    )
    assert_released(passage, answer)


@pytest.mark.parametrize("fault", ["status=500", "status=429", "status=400", "status=500;body=html", "status=418"])
def test_other_failures_of_the_upstream_pass_unchanged(passage: Door, fault: str) -> None:
    """Status and body are the upstream's, marked as such, and nothing is billed."""
    body = chat(f"[[fault:{fault}]]")
    direct = send(passage.stack.emulator_url, CHAT, body, UPSTREAM_KEY)
    answer = passage.chat(passage.admin.key("failing")["key"], body)
    assert (direct.status, direct.body) == (answer.status, answer.body)
    assert direct.headers["content-type"] == answer.headers["content-type"]
    assert "upstream" == answer.headers["x-gateway-error-source"]
    assert_released(passage, answer)


@pytest.mark.parametrize("path", [CHAT, IMAGES])
def test_the_upstreams_key_never_comes_out(passage: Door, path: str) -> None:
    """Not even where the upstream repeats it: in a failure, in a redirect, in a success that is none."""
    key = passage.admin.key("curious")["key"]
    for fault in ("echo_key", "status=401", "redirect", "json200", "html200", "reset"):
        answer = send(passage.gateway.url, path, asking_for(fault, path), key)
        everything = answer.body + repr(answer.headers).encode()
        assert UPSTREAM_KEY.encode() not in everything, fault
        assert passage.stack.emulator_url.encode() not in everything, fault
    assert UPSTREAM_KEY not in passage.gateway.output
    assert key not in passage.gateway.output


def test_nothing_of_the_client_but_its_request_goes_upstream(passage: Door) -> None:
    """Its key, cookies and own headers stay here; the organisation's key goes."""
    key = passage.admin.key("private")["key"]
    passage.chat(key, cookie="session=1", user_agent="curious/1", x_forwarded_for="10.0.0.1", x_custom="1")
    (seen,) = passage.stack.emulator.get("/__requests").json()["requests"]
    assert seen["authorised"]
    assert {
        *("host", "content-length", "content-type", "authorization", "accept", "accept-encoding", "user-agent"),
        *("x-request-id", "connection"),
    } >= {name for name, _ in seen["headers"]}
    assert key not in str(seen)
    assert "curious" not in str(seen)


def test_valkey_stopped_means_503_and_no_upstream_call(stack: Stack, tmp_path: Path) -> None:
    """Never served unbilled, whichever path and whether or not the key is remembered; and it recovers by itself."""
    server = EmbeddedRedis(tmp_path)
    server.start()
    with contextlib.ExitStack() as processes:
        processes.callback(server.stop)
        gateway = Stack(server.url, stack.emulator_url, processes).gateway(redis_timeout_s="0.5")
        admin = Admin(gateway.url)
        known, unknown = admin.key("thrifty")["key"], admin.key("thrifty")["key"]
        assert 200 == send(gateway.url, CHAT, chat(), known).status
        server.stop()
        stack.emulator.post("/__reset")
        for path, body, key in ((CHAT, chat(), known), (CHAT, chat(), unknown), (IMAGES, IMAGE, known)):
            answer = send(gateway.url, path, body, key)
            assert (503, "ledger_unavailable", "2") == (*refusal(answer), answer.headers["retry-after"])
        poll = send(gateway.url, JOBS, {"jobid": "1", "signature": "a"})
        assert (503, "ledger_unavailable") == refusal(poll)
        assert [] == stack.emulator.get("/__requests").json()["requests"]
        server.start()
        until(lambda: send(gateway.url, CHAT, chat(), known).status == 200)


def assert_released(passage: Door, answer: Answer) -> None:
    """The hold of this call was given back: one entry, of nothing."""
    (entry,) = passage.admin.ledger(request_id=answer.request_id)
    assert ("release", 0, []) == (entry["type"], entry["cost_nano_usd"], entry["flags"])
    assert [] == passage.admin.get("/holds")["data"]


def asking_for(fault: str, path: str) -> dict[str, Any]:
    """A call of either kind that asks the emulator for a fault."""
    marker = f"[[fault:{fault}]]"
    return chat(marker) if path == CHAT else {**IMAGE, "prompt": marker}


def at(seconds: int) -> str:
    """An instant from now, as `expires_at` takes it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="seconds").replace("+00:00", "Z")
