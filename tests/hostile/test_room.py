"""More of large bodies than a process can hold: refused before they are read, and small calls do not feel it."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import redis

from gateway.store.embedded import EmbeddedRedis
from tests.e2e.client import CHAT, Answer, send, stream
from tests.e2e.waiting import until
from tests.hostile.wire import Reply, connected, read_to_end, replies, said
from tests.stack import ADMIN_KEY, Admin, Process, Stack, chat, running_stack

BODY_BYTES_MAX = 1024 * 1024
ROOM_BYTES = 2 * BODY_BYTES_MAX
LARGE = 600_000
"""One of them one caller may have in hand, and all together three."""
TEAMS = "/admin/v1/teams"
PLANES = (CHAT, TEAMS)
FULL = (503, "overloaded")


@dataclass(frozen=True)
class Siege:
    """A gateway that has little room, and the keys of four users."""

    stack: Stack
    gateway: Process
    admin: Admin
    keys: list[str]

    def calls_seen(self) -> int:
        return len(self.stack.emulator.get("/__requests").json()["requests"])

    def head(self, path: str, who: int, *lines: str) -> bytes:
        key = self.keys[who] if path == CHAT else ADMIN_KEY
        standing = (f"POST {path} HTTP/1.1", "host: gateway", f"authorization: Bearer {key}")
        return "\r\n".join([*standing, "content-type: application/json", *lines, "", ""]).encode()

    def asks(self, path: str, who: int, size_bytes: int = LARGE) -> Reply:
        """A whole body that is no JSON: 400, if there is room for it."""
        asked = self.head(path, who, f"content-length: {size_bytes}", "connection: close") + b"x" * size_bytes
        (reply,) = said(self.gateway.url, asked)
        return reply

    @contextlib.contextmanager
    def half_sent(self, path: str, who: int) -> Iterator[socket.socket]:
        """Somebody who has sent a large part of a body, and waits."""
        with connected(self.gateway.url) as client:
            taken_bytes = self.taken_bytes()
            client.sendall(self.head(path, who, f"content-length: {BODY_BYTES_MAX}") + b"x" * LARGE)
            until(lambda: taken_bytes + LARGE == self.taken_bytes())
            yield client

    def taken_bytes(self) -> int:
        """What the process says that it has in hand."""
        lines = self.admin.http.get("/metrics").text.splitlines()
        (value,) = (line.split(" ")[1] for line in lines if line.startswith("gateway_bodies_in_hand_bytes "))
        return int(float(value))


@pytest.fixture(scope="module")
def siege(valkey: EmbeddedRedis) -> Iterator[Siege]:
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    with running_stack(valkey.url) as stack:
        gateway = stack.gateway(body_bytes_max=str(BODY_BYTES_MAX), bodies_bytes_max=str(ROOM_BYTES))
        admin = Admin(gateway.url)
        keys = [admin.key("red", user)["key"] for user in ("an", "bo", "cu", "vu")]
        yield Siege(stack, gateway, admin, keys)
        admin.http.close()


@pytest.fixture
def unmoved(siege: Siege) -> Iterator[Siege]:
    """After the attack: no call reached the upstream, nothing is booked or held, and there is room again."""
    seen, booked = siege.calls_seen(), len(siege.admin.ledger())
    yield siege
    assert (seen, booked, []) == (siege.calls_seen(), len(siege.admin.ledger()), siege.admin.get("/holds")["data"])
    until(lambda: 0 == siege.taken_bytes())


@pytest.mark.parametrize("path", PLANES)
def test_one_caller_takes_no_more_than_a_share(unmoved: Siege, path: str) -> None:
    """503 and when to come again, read no further; others have their large calls served, and everybody small ones."""
    with unmoved.half_sent(path, 0):
        refused = unmoved.asks(path, 0)
        assert (FULL, "1", "close") == (refused.refusal, refused.headers["retry-after"], refused.headers["connection"])
        assert (400, "invalid_json") == unmoved.asks(CHAT, 1).refusal
        assert (400, "invalid_json") == unmoved.asks(path, 0, 1000).refusal


def test_a_key_is_not_the_user_of_its_name(unmoved: Siege) -> None:
    """Ids of keys and of users are given by different people."""
    unmoved.keys.append(unmoved.admin.key("blue", id="an")["key"])
    with unmoved.half_sent(CHAT, 4):
        assert (400, "invalid_json") == unmoved.asks(CHAT, 0).refusal
    unmoved.keys.pop()


@pytest.mark.parametrize("action", ["block", "revoke"])
@pytest.mark.parametrize("framing", [f"content-length: {BODY_BYTES_MAX}", "transfer-encoding: chunked"])
def test_a_key_that_is_good_for_nothing_takes_no_room(unmoved: Siege, action: str, framing: str) -> None:
    """Whoever fills the room can be thrown out: its next large body is refused before it is read."""
    key = unmoved.admin.key("green")
    unmoved.admin.post(f"/keys/{key['id']}/{action}")
    unmoved.keys.append(key["key"])
    with connected(unmoved.gateway.url) as client:
        client.sendall(unmoved.head(CHAT, 4, framing))
        assert [{"block": (403, "scope_blocked"), "revoke": (401, "invalid_api_key")}[action]] == [
            reply.refusal for reply in replies(read_to_end(client))
        ]
    unmoved.keys.pop()


@pytest.mark.parametrize("path", PLANES)
def test_all_callers_together_take_no_more_than_the_room(unmoved: Siege, path: str) -> None:
    """However many they are, and whatever they declare: what has come counts."""
    with unmoved.half_sent(CHAT, 1), unmoved.half_sent(CHAT, 2), unmoved.half_sent(CHAT, 3):
        assert FULL == unmoved.asks(path, 0).refusal
        assert (400, "invalid_json") == unmoved.asks(path, 0, 1000).refusal


@pytest.mark.parametrize("path", PLANES)
@pytest.mark.parametrize("framing", [f"content-length: {BODY_BYTES_MAX}", "transfer-encoding: chunked"])
def test_who_sends_on_can_read_that_there_is_no_room(unmoved: Siege, path: str, framing: str) -> None:
    """The rest is not waited for, and the connection is closed."""
    with unmoved.half_sent(path, 0), connected(unmoved.gateway.url) as client:
        size = b"" if "length" in framing else b"%x\r\n" % BODY_BYTES_MAX
        client.sendall(unmoved.head(path, 0, framing) + size + b"x" * LARGE)
        assert [FULL] == [reply.refusal for reply in replies(read_to_end(client))]


def _leaves(siege: Siege, path: str) -> None:
    with siege.half_sent(path, 0):
        pass


def _is_no_json(siege: Siege, path: str) -> None:
    assert FULL != siege.asks(path, 0).refusal


def _is_too_large(siege: Siege, path: str) -> None:
    asked = siege.head(path, 0, "transfer-encoding: chunked") + b"%x\r\n" % ROOM_BYTES + b"x" * BODY_BYTES_MAX + b"x"
    said(siege.gateway.url, asked)


def _breaks_off(siege: Siege, path: str) -> None:
    chunk = b"%x\r\n" % LARGE + b"x" * LARGE
    said(siege.gateway.url, siege.head(path, 0, "transfer-encoding: chunked") + chunk + b"no chunk\r\n")


ENDINGS = {each.__name__: each for each in (_leaves, _is_no_json, _is_too_large, _breaks_off)}


@pytest.mark.parametrize("path", PLANES)
@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_however_a_body_ends_its_room_is_free_again(
    unmoved: Siege, path: str, ending: Callable[[Siege, str], None]
) -> None:
    """`unmoved` waits until nothing is in hand."""
    ending(unmoved, path)


def test_a_call_that_is_answered_has_its_body_behind_it(siege: Siege) -> None:
    """While its answer comes, which may take an hour, its caller's next large call is served."""
    with stream(siege.gateway.url, CHAT, _picture("[[fault:withhold_after=1]] Hello"), siege.keys[0]) as running:
        running.read_event()
        answers = [_status(send(siege.gateway.url, CHAT, _picture("Hello"), siege.keys[0])) for _ in range(3)]
        siege.stack.emulator.post("/__release")
        running.read_rest()
    assert [200] * 3 == answers


def _status(answer: Answer) -> int:
    return answer.status


def _picture(text: str) -> dict[str, object]:
    url = "data:image/png;base64," + "A" * LARGE
    parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
    return {**chat(), "messages": [{"role": "user", "content": parts}]}
