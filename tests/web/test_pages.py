"""What every answer that is no call's carries, and what someone hears whose path or method is wrong."""

import re

import httpx
import pytest

from tests.stack import Process


@pytest.mark.parametrize(
    "path",
    [
        *("/chat/completions", "/models", "/v1", "/v1/v1/chat/completions", "/v1/responses", "/v1/embeddings"),
        *("/api", "/api/chatgpt/", "/admin/v1/none"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_that_does_not_exist_says_which_do(gateway: Process, method: str, path: str) -> None:
    """A wrong base URL is the first mistake of a client's set-up, and its message all that its user sees."""
    answer = httpx.request(method, f"{gateway.url}{path}")
    error = answer.json()["error"]
    assert (404, "not_found") == (answer.status_code, error["code"])
    assert "base URL of OpenAI's clients is the gateway's own with /v1" in error["message"]
    assert answer.headers["x-request-id"].startswith("req-")


def test_each_path_that_is_named_is_there(gateway: Process) -> None:
    """Whatever else they answer to who has no key."""
    message = httpx.get(f"{gateway.url}/v1/none").json()["error"]["message"]
    named = [path.rstrip(".,;") for path in re.findall(r"/(?:v1|api)/\S+", message)]
    assert 9 == len(named)
    assert [] == [path for path in named if httpx.get(f"{gateway.url}{path}").status_code == 404]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/models", 405),
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/api/texttoimage/", 405),
        ("GET", "/v1/models", 401),
        ("GET", "/v1/requests/req-1", 401),
        ("GET", "/admin/v1/teams", 401),
        ("GET", "/livez", 200),
    ],
)
def test_every_answer_has_one_id_of_its_own(gateway: Process, method: str, path: str, status: int) -> None:
    """So that whoever asks about it can say which."""
    answers = [httpx.request(method, f"{gateway.url}{path}") for _ in range(2)]
    ids = [answer.headers.get_list("x-request-id") for answer in answers]
    assert [status] * 2 == [answer.status_code for answer in answers]
    assert ([1, 1], True) == ([len(own) for own in ids], ids[0] != ids[1])
