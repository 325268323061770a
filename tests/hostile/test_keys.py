"""Keys that are wrong, guessed, or shown where they do not belong."""

import secrets
import string
import threading
from collections.abc import Iterator

import httpx
import pytest
import redis

from gateway.billing.principal import SECRET_CHARS, make_sub_key
from tests.e2e.client import CHAT, send
from tests.e2e.waiting import until
from tests.hostile.conftest import Target
from tests.stack import ADMIN_KEY, Process, bearer, chat

SURFACES = {"call": ("POST", CHAT), "page": ("GET", "/v1/me"), "control plane": ("GET", "/admin/v1/teams")}


def made_up_key() -> str:
    """Well spelled, and nobody's: it takes a look into Redis to know."""
    return make_sub_key("default", "".join(secrets.choice(string.ascii_letters) for _ in range(SECRET_CHARS)))


GOOD_LOOKING = make_sub_key("default", "a" * SECRET_CHARS)


@pytest.fixture
def commands(target: Target) -> Iterator[list[str]]:
    """What Redis is asked from here on, command by command."""
    seen: list[str] = []
    with redis.Redis.from_url(target.stack.redis_url) as client, client.monitor() as monitor:
        watching = threading.Thread(target=watch, args=(monitor, seen), daemon=True)
        watching.start()
        yield seen
        with redis.Redis.from_url(target.stack.redis_url) as last:
            last.echo("enough")
        watching.join(10)
        assert not watching.is_alive()


def watch(monitor: object, seen: list[str]) -> None:
    for command in monitor.listen():  # type: ignore[attr-defined]
        seen.append(command["command"])
        if command["command"] == "ECHO enough":
            return


def until_now(target: Target, commands: list[str]) -> list[str]:
    """All that was asked, up to a mark of our own."""
    mark = secrets.token_hex(8)
    with redis.Redis.from_url(target.stack.redis_url) as client:
        client.echo(mark)
    until(lambda: f"ECHO {mark}" in commands)
    return list(commands)


def about_callers(commands: list[str]) -> list[str]:
    """Those that ask who somebody is, or what they may; a gateway has others of its own now and then."""
    return [each for each in commands if ":digest:" in each or ":scope:" in each]


@pytest.mark.parametrize(
    "key",
    [
        GOOD_LOOKING[:-1] + ("0" if GOOD_LOOKING[-1] != "0" else "1"),
        GOOD_LOOKING[:-8] + GOOD_LOOKING[-8:].upper().replace("0", "O"),
        GOOD_LOOKING.replace("aaaa", "aaab", 1),
        GOOD_LOOKING.replace("default", "defau1t"),
        GOOD_LOOKING[:-1],
        GOOD_LOOKING + "0",
        make_sub_key("other", "a" * SECRET_CHARS),
        "sk-mt-default-",
        "sk-mt-{default}-" + "a" * 48,
        "sk-proj-" + "a" * 48,
        "*",
        "a" * 8000,
        "gw:{default}:digest:*",
    ],
)
def test_a_key_that_cannot_be_one_costs_redis_nothing(target: Target, commands: list[str], key: str) -> None:
    """Its checksum says so: an attacker's load stays at the gateway, whose table of such keys is empty."""
    with target.untouched():
        commands.clear()
        for surface, (method, path) in SURFACES.items():
            answer = target.ask(method, path, key, **({"json": chat()} if method == "POST" else {}))
            error = answer.json()["error"]
            assert (401, "invalid_api_key") == (answer.status_code, error["code"]), surface
            assert key not in answer.text
        asked = until_now(target, commands)
        assert [] == about_callers(asked)


def test_a_well_spelled_key_costs_one_look(target: Target, commands: list[str]) -> None:
    """By its digest: what was sent is in no command, so in no log of Redis's slow ones either."""
    key = made_up_key()
    assert 401 == target.ask("POST", CHAT, key, json=chat()).status_code
    asked = about_callers(until_now(target, commands))
    assert 1 == len(asked)
    assert asked[0].startswith("GET gw:{default}:digest:")
    assert key not in "".join(commands)


@pytest.mark.parametrize("surface", SURFACES)
def test_wrong_keys_are_slowed_and_right_ones_are_not(target: Target, surface: str) -> None:
    """One script with a wrong key, among many with right ones behind one address: only the one waits."""
    method, path = SURFACES[surface]
    address = target.from_elsewhere()
    right = target.admin.key("office", role="auditor")["key"]
    body = {"json": chat()} if method == "POST" else {}
    with target.untouched():
        for _ in range(10):
            assert 401 == target.ask(method, path, made_up_key(), headers=address, **body).status_code
        slowed = target.ask(method, path, made_up_key(), headers=address, **body)
        error = slowed.json()["error"]
        told = (slowed.status_code, error["type"], error["code"], slowed.headers["x-should-retry"])
        assert (429, "rate_limit_error", "rate_limit_exceeded", "false") == told
        assert 1 <= int(slowed.headers["retry-after"]) <= 6
        assert f"try again in {slowed.headers['retry-after']} s" in error["message"]
        assert 401 == target.ask(method, path, made_up_key(), **body).status_code
    assert 200 == target.ask(method, path, right, headers=address, **body).status_code


@pytest.mark.parametrize("path", ["/admin/v1/teams", "/metrics"])
def test_guesses_at_the_administrators_key_are_not_looked_at(target: Target, path: str) -> None:
    """It may be a word that somebody chose: past ten guesses not even the right one is told from them, for six
    seconds. Who holds a sub-key is served meanwhile, and so is the administrator from another address."""
    address = target.from_elsewhere()
    guesses = [target.ask("GET", path, f"guess-{number}", headers=address).status_code for number in range(12)]
    assert [401] * 10 + [429] * 2 == guesses
    assert 429 == target.ask("GET", path, ADMIN_KEY, headers=address).status_code
    assert 200 == target.ask("GET", path, ADMIN_KEY).status_code
    auditor = target.admin.key("office", role="auditor")["key"]
    assert 200 == target.ask("GET", "/admin/v1/teams", auditor, headers=address).status_code
    assert 200 == target.ask("POST", CHAT, auditor, headers=address, json=chat()).status_code


RANDOM_KEY, RANDOM_TOKEN = f"sk-admin-{secrets.token_urlsafe(32)}", secrets.token_hex(16)


@pytest.fixture(scope="module")
def behind_proxy(target: Target) -> Process:
    """A second gateway on the same books, behind a proxy that nobody told it of: to it, everybody has one address."""
    return target.stack.gateway(admin_key=RANDOM_KEY, metrics_token=RANDOM_TOKEN)


def test_who_guesses_keeps_no_random_secret_out(target: Target, behind_proxy: Process) -> None:
    """Nobody finds one by trying, so that an answer tells it from a guess is of no use: the administrator, Prometheus
    and whoever logs in with a sub-key are served, whatever else comes from their address."""
    auditor = target.admin.key("office", role="auditor")["key"]
    with httpx.Client(base_url=behind_proxy.url) as http:
        until(lambda: http.get("/metrics", headers=bearer("guess")).status_code == 429)
        for path in ("/metrics", "/admin/v1/teams"):
            assert 429 == http.get(path, headers=bearer(RANDOM_KEY[:-1])).status_code
            assert 200 == http.get(path, headers=bearer(RANDOM_KEY)).status_code
        assert 200 == http.get("/metrics", headers=bearer(RANDOM_TOKEN)).status_code
        logins = {
            key: http.post("/dashboard/login", data={"key": key}).status_code for key in (RANDOM_KEY, auditor, "")
        }
        assert {RANDOM_KEY: 303, auditor: 303, "": 429} == logins


def test_wrong_sub_keys_keep_no_right_one_from_logging_in(target: Target) -> None:
    """At the login, too, they are slowed by themselves, and are no guesses at the administrator's key."""
    address = target.from_elsewhere()
    keys = [made_up_key() for _ in range(11)] + [target.admin.key("office")["key"], ADMIN_KEY]
    logins = [target.ask("POST", "/dashboard/login", headers=address, data={"key": key}) for key in keys]
    assert [401] * 10 + [429, 303, 303] == [answer.status_code for answer in logins]


def test_a_word_for_a_secret_is_warned_of(target: Target, behind_proxy: Process) -> None:
    """At the start, in one line, which does not repeat it."""
    warned = [line for line in target.gateway.output.splitlines() if "enough to be guessed" in line]
    assert [True] == ["GATEWAY_ADMIN_KEY" in line for line in warned]
    assert ADMIN_KEY not in target.gateway.output
    assert "enough to be guessed" not in behind_proxy.output


def test_a_proxy_that_nobody_named_is_warned_of(target: Target, behind_proxy: Process) -> None:
    """In one line, however often it forwards, on either plane; what stands in the header is not in it."""
    forged = {"x-forwarded-for": "198.51.100.77, forged"}
    with httpx.Client(base_url=behind_proxy.url) as http:
        for path in ("/livez", "/v1/me", "/v1/models", CHAT):
            http.get(path, headers=forged)
    until(lambda: "GATEWAY_TRUSTED_PROXIES=127.0.0.1" in behind_proxy.output)
    assert 1 == behind_proxy.output.count("is not in trusted_proxies")
    assert "198.51.100.77" not in behind_proxy.output
    assert "forged" not in behind_proxy.output
    assert "is not in trusted_proxies" not in target.gateway.output


def test_the_login_form_is_no_second_chance(target: Target) -> None:
    """Guesses there and at the control plane count together."""
    address = target.from_elsewhere()
    for number in range(5):
        assert 401 == target.ask("GET", "/admin/v1/teams", f"guess-{number}", headers=address).status_code
        login = target.ask("POST", "/dashboard/login", headers=address, data={"key": f"guess-{number}"})
        assert 401 == login.status_code
    assert 429 == target.ask("GET", "/admin/v1/teams", "guess", headers=address).status_code
    assert 429 == target.ask("POST", "/dashboard/login", headers=address, data={"key": "guess"}).status_code


def test_an_address_is_not_what_a_stranger_says(target: Target) -> None:
    """Only what a trusted proxy wrote counts: who writes another name for each guess is slowed all the same."""
    address = target.from_elsewhere()["x-forwarded-for"]
    forged = [{"x-forwarded-for": f"192.0.2.{number}, {address}"} for number in range(11)]
    answers = [target.ask("POST", CHAT, made_up_key(), headers=one, json=chat()).status_code for one in forged]
    assert [401] * 10 + [429] == answers


CANARY = make_sub_key("default", "CANARYcanary" + "c" * (SECRET_CHARS - 12))


@pytest.mark.parametrize(
    "query",
    [
        f"key={CANARY}",
        f"api_key={CANARY}",
        f"API-KEY={CANARY}",
        "access_token=CANARYcanary",
        "token=CANARYcanary",
        "apikey=CANARYcanary",
        "x-api-key=CANARYcanary",
        "authorization=Bearer%20CANARYcanary",
        "key=CANARYcanary",
        f"anything={CANARY}",
        f"{CANARY}",
        f"{CANARY}=1",
        f"a=%73%6b-mt{CANARY.removeprefix('sk-mt')}",
        f"limit=1&note=see+{CANARY}",
        "k=sk-proj-CANARYcanary",
    ],
)
def test_a_key_in_the_url_is_refused(target: Target, query: str) -> None:
    """On every plane, before anything is looked at; whoever reads the answer learns what to do, and no log the key."""
    with target.untouched():
        for method, path in (*SURFACES.values(), ("GET", "/livez"), ("GET", "/dashboard"), ("GET", "/no-such-path")):
            answer = target.ask(
                method, f"{path}?{query}", target.neighbour, **({"json": chat()} if path == CHAT else {})
            )
            error = answer.json()["error"]
            assert (400, "invalid_request") == (answer.status_code, error["code"]), f"{path}: {answer.text}"
            assert "treat that key as leaked" in error["message"]
            assert "canary" not in answer.text
    assert "canary" not in target.gateway.output.lower()


@pytest.mark.parametrize(
    "path", [f"/v1/models/{CANARY}", f"/{CANARY}/v1/me", "/v1/models/" + CANARY.replace("s", "%73")]
)
def test_a_key_in_the_path_is_one_in_the_url(target: Target, path: str) -> None:
    """Who builds URLs puts it there by mistake."""
    answer = target.ask("GET", path, target.neighbour)
    assert (400, False) == (answer.status_code, "canary" in answer.text)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/admin/v1/ledger?key=key-0123456789ab", 200),
        ("/admin/v1/ledger?team=sk-team&key=", 200),
        ("/admin/v1/ledger?limit=%D9%A1", 400),
        ("/admin/v1/ledger?limit=%ff%00", 400),
        (f"{CHAT}?trace=1", 200),
    ],
)
def test_an_id_in_the_url_is_no_key(target: Target, path: str, status: int) -> None:
    """Lists are asked for those of one key by its id."""
    if path.startswith(CHAT):
        answer = target.ask("POST", path, target.neighbour, json=chat())
    else:
        answer = target.ask("GET", path, ADMIN_KEY)
    assert status == answer.status_code


def test_a_secret_is_shown_once(target: Target) -> None:
    """In the answer that creates the key, and in none that follows."""
    made = target.admin.key("once", "olga")
    for path in ("/keys", f"/keys/{made['id']}"):
        assert made["key"] not in target.ask("GET", f"/admin/v1{path}", ADMIN_KEY).text
    for action in ("block", "unblock", "revoke"):
        assert made["key"] not in target.ask("POST", f"/admin/v1/keys/{made['id']}/{action}", ADMIN_KEY).text


def test_a_key_is_not_told_twice_under_an_idempotency_key(target: Target) -> None:
    """Who lost the answer hears which key to revoke; keeping the secret for them would be keeping a secret."""
    headers = {"idempotency-key": "once"}
    first = target.ask("POST", "/admin/v1/keys", ADMIN_KEY, json={"team": "neighbours"}, headers=headers)
    again = target.ask("POST", "/admin/v1/keys", ADMIN_KEY, json={"team": "neighbours"}, headers=headers)
    assert (201, 409) == (first.status_code, again.status_code)
    assert ("idempotency_unreplayable", first.json()["id"]) == tuple(
        again.json()["error"][name] for name in ("code", "id")
    )
    assert "sk-mt-" not in again.text


def rotate(target: Target, key_id: str, **fields: object) -> dict[str, str]:
    answer = target.ask("POST", f"/admin/v1/keys/{key_id}/rotate", ADMIN_KEY, json=fields)
    assert 200 == answer.status_code, answer.text
    rotated: dict[str, str] = answer.json()
    return rotated


def served(target: Target, secret: str) -> list[int]:
    """What each surface answers to a key."""
    bodies: tuple[dict[str, object], ...] = ({"json": chat()}, {}, {})
    surfaces = zip(SURFACES.values(), bodies, strict=True)
    return [target.ask(method, path, secret, **body).status_code for (method, path), body in surfaces]


def test_after_a_rotation_both_secrets_are_one_key_for_a_while(target: Target) -> None:
    """Programs take up the new one while the old one goes on; then there is only the new one."""
    made = target.admin.key("rotating", "rosa", role="auditor")
    asked = target.ask("POST", CHAT, made["key"], json=chat()).headers["x-request-id"]
    rotated = rotate(target, made["id"], grace_s=2)
    assert (made["id"], "rotating", "rosa") == (rotated["id"], rotated["team"], rotated["user"])
    assert made["key"] != rotated["key"]
    for secret in (made["key"], rotated["key"]):
        assert 200 == target.ask("GET", f"/v1/requests/{asked}", secret).status_code
        assert made["id"] == target.ask("GET", "/v1/me", secret).json()["key"]["id"]
    assert [200, 200, 200] == served(target, made["key"])
    until(lambda: target.ask("POST", CHAT, made["key"], json=chat()).status_code == 401)
    assert [401, 401, 401] == served(target, made["key"])
    assert [200, 200, 200] == served(target, rotated["key"])


def test_a_rotation_is_one_for_all_gateways(target: Target, behind_proxy: Process) -> None:
    """Both know the old secret from a call before; what they remember is whose it was, not that it is good."""
    made = target.admin.key("rotating", "rosa")

    def answers(secret: str) -> list[int]:
        return [send(url, CHAT, chat(), secret).status for url in (target.gateway.url, behind_proxy.url)]

    assert [200, 200] == answers(made["key"])
    rotated = rotate(target, made["id"], grace_s=2)
    assert [200, 200] == answers(made["key"])
    assert [200, 200] == answers(rotated["key"])
    until(lambda: send(behind_proxy.url, CHAT, chat(), made["key"]).status == 401)
    with target.untouched():
        assert [401, 401] == answers(made["key"])
    assert [200, 200] == answers(rotated["key"])


def test_a_rotation_without_grace_ends_the_old_secret_at_once(target: Target) -> None:
    """For a key that has leaked: the gateway remembers whose it is, and the next call is refused all the same."""
    made = target.admin.key("rotating", "rosa", role="admin")
    assert [200, 200, 200] == served(target, made["key"])
    with httpx.Client(base_url=target.gateway.url, headers=target.from_elsewhere()) as browser:
        assert 303 == browser.post("/dashboard/login", data={"key": made["key"]}).status_code
        assert 200 == browser.get("/dashboard").status_code
        rotated = rotate(target, made["id"], grace_s=0)
        assert "/dashboard/login" == browser.get("/dashboard").headers["location"]
    with target.untouched():
        assert [401, 401, 401] == served(target, made["key"])
    assert [200, 200, 200] == served(target, rotated["key"])


def test_rotating_again_gives_the_first_secret_no_further_grace(target: Target) -> None:
    """What was to end stays to end; by default the one before has a day."""
    made = target.admin.key("rotating")
    second = rotate(target, made["id"], grace_s=2)
    third = rotate(target, made["id"])
    until(lambda: target.ask("POST", CHAT, made["key"], json=chat()).status_code == 401)
    assert [200, 200] == served(target, second["key"])[:2]
    assert [200, 200] == served(target, third["key"])[:2]
    rotate(target, made["id"], grace_s=0)
    assert [401, 401] == served(target, second["key"])[:2]
    assert [401, 401] == served(target, third["key"])[:2]


@pytest.mark.parametrize("action", ["block", "revoke"])
def test_what_ends_a_key_ends_all_its_secrets(target: Target, action: str) -> None:
    """A rotation is no way round."""
    made = target.admin.key("rotating")
    rotated = rotate(target, made["id"])
    target.admin.post(f"/keys/{made['id']}/{action}")
    expected = {"block": [403, 403], "revoke": [401, 401]}[action]
    assert [expected] * 2 == [served(target, secret)[:2] for secret in (made["key"], rotated["key"])]


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"grace_s": -1}, 400, "invalid_request", "grace_s"),
        ({"grace_s": 2_592_001}, 400, "invalid_request", "grace_s"),
        ({"grace_s": 1.5}, 400, "invalid_request", "grace_s"),
        ({"grace_s": True}, 400, "invalid_request", "grace_s"),
        ({"grace_s": "60"}, 400, "invalid_request", "grace_s"),
        ({"grace_s": None}, 400, "invalid_request", "grace_s"),
        ({"secret": "sk-mine"}, 400, "unknown_field", "secret"),
    ],
)
def test_a_rotation_that_breaks_the_contract_changes_nothing(
    target: Target, body: dict[str, object], status: int, code: str, param: str
) -> None:
    """Nobody chooses a secret, and none stays good for ever."""
    made = target.admin.key("rotating")
    answer = target.ask("POST", f"/admin/v1/keys/{made['id']}/rotate", ADMIN_KEY, json=body)
    error = answer.json()["error"]
    assert (status, code, param) == (answer.status_code, error["code"], error["param"])
    assert 200 == target.ask("GET", "/v1/me", made["key"]).status_code


def test_a_rotation_happens_once_under_an_idempotency_key(target: Target) -> None:
    """A repeat rotates nothing and tells no secret; of another key it is refused."""
    made, other = target.admin.key("rotating"), target.admin.key("rotating")
    headers = {"idempotency-key": "rotate-once"}
    first = target.ask("POST", f"/admin/v1/keys/{made['id']}/rotate", ADMIN_KEY, headers=headers)
    again = target.ask("POST", f"/admin/v1/keys/{made['id']}/rotate", ADMIN_KEY, headers=headers)
    elsewhere = target.ask("POST", f"/admin/v1/keys/{other['id']}/rotate", ADMIN_KEY, headers=headers)
    assert (200, 409, 409) == (first.status_code, again.status_code, elsewhere.status_code)
    assert ["idempotency_unreplayable", "idempotency_conflict"] == [
        answer.json()["error"]["code"] for answer in (again, elsewhere)
    ]
    assert first.json()["key"] not in again.text
    assert 200 == target.ask("GET", "/v1/me", first.json()["key"]).status_code


@pytest.mark.parametrize(("key_id", "status"), [("no-such-key", 404), ("No_Key", 400)])
def test_a_key_that_is_not_there_is_not_rotated(target: Target, key_id: str, status: int) -> None:
    """Nor one that is revoked: that was for good."""
    assert status == target.ask("POST", f"/admin/v1/keys/{key_id}/rotate", ADMIN_KEY).status_code
    revoked = target.admin.key("rotating")
    target.admin.post(f"/keys/{revoked['id']}/revoke")
    answer = target.ask("POST", f"/admin/v1/keys/{revoked['id']}/rotate", ADMIN_KEY)
    assert (400, "id") == (answer.status_code, answer.json()["error"]["param"])
