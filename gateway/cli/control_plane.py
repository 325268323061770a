"""A client of a running gateway's control plane (`/admin/v1`), and how it is found.

Every failure leaves as a CommandError whose text says what to do. The administrator's key goes into
one header and nowhere else: never into a message, never onto a command line where others see it.
"""

import argparse
import os
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from gateway.cli.errors import CommandError, OutOfReach, Unanswered

JSONObject = dict[str, Any]

DEFAULT_URL = "http://127.0.0.1:8080"
PAGE_SIZE_MAX = 1000
TIMEOUT_S = 30.0


class ControlPlane:
    """One gateway's `/admin/v1`. Use it as a context manager; paths are given below `/admin/v1/`."""

    def __init__(self, url: str, admin_key: str) -> None:
        self.url = url
        self._client = httpx.Client(
            base_url=url.rstrip("/") + "/admin/v1/",
            headers={"authorization": f"Bearer {admin_key}", "accept": "application/json"},
            timeout=TIMEOUT_S,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, path: str, **query: str | int | None) -> JSONObject:
        return self._call("GET", path, query=query)

    def post(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        **query: str | None,
    ) -> JSONObject:
        headers = {"idempotency-key": idempotency_key} if idempotency_key else {}
        return self._call("POST", path, body=body, query=query, headers=headers)

    def patch(self, path: str, body: Mapping[str, Any], **query: str | None) -> JSONObject:
        return self._call("PATCH", path, body=body, query=query)

    def delete(self, path: str, **query: str | None) -> JSONObject:
        return self._call("DELETE", path, query=query)

    def items(self, path: str, *, count_max: int | None = None, **query: str | None) -> Iterator[JSONObject]:
        """Yield a list's items over all its pages, `count_max` at most."""
        remaining = count_max
        cursor: str | None = None
        while remaining is None or remaining > 0:
            limit = PAGE_SIZE_MAX if remaining is None else min(remaining, PAGE_SIZE_MAX)
            page = self.get(path, limit=limit, cursor=cursor, **query)
            yield from page["data"][:limit]
            cursor = page.get("next_cursor")
            if cursor is None:
                return
            if remaining is not None:
                remaining -= len(page["data"])

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | None],
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> JSONObject:
        given = {name: value for name, value in query.items() if value is not None}
        try:
            response = self._client.request(method, path, params=given, json=body, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise CommandError(
                f"no gateway answers at {self.url}; start one with `gateway serve`,"
                " or name another with --url or GATEWAY_URL"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unanswered(f"the call to {self.url} failed: {str(error) or type(error).__name__}") from error
        return self._answer_of(response)

    def _answer_of(self, response: httpx.Response) -> JSONObject:
        if response.status_code == 204:
            return {}
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise CommandError(
                f"{self.url} answered {response.status_code} without a JSON object: is it a gateway's URL?"
            )
        if response.is_success:
            return answer
        raise _refusal_kind(response.status_code)(refusal_text(response.status_code, answer))


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that every command about a running gateway takes."""
    parser.add_argument(
        "--url", default=os.environ.get("GATEWAY_URL", DEFAULT_URL), help="the gateway (default: %(default)s)"
    )
    parser.add_argument("--org", metavar="ID", help="the organisation, where there is more than the default one")
    parser.add_argument("--json", action="store_true", help="print JSON as the gateway answered it")


def connect(arguments: argparse.Namespace) -> ControlPlane:
    return ControlPlane(arguments.url, find_admin_key())


def find_admin_key() -> str:
    """The administrator's key from GATEWAY_ADMIN_KEY, else from the file that GATEWAY_ADMIN_KEY_FILE names, else from
    the one that the first start made."""
    given = os.environ.get("GATEWAY_ADMIN_KEY", "").strip()
    if given:
        return given
    made = Path(os.environ.get("GATEWAY_DATA_DIR") or ".gateway") / "admin-key"
    path = Path(os.environ.get("GATEWAY_ADMIN_KEY_FILE") or made)
    try:
        key, reason = path.read_text(encoding="ascii").strip(), "it is empty"
    except (OSError, UnicodeDecodeError) as error:
        key, reason = "", getattr(error, "strerror", None) or "not plain text"
    if not key:
        raise CommandError(
            f"no administrator's key: set GATEWAY_ADMIN_KEY, or set GATEWAY_DATA_DIR to the gateway's data"
            f" directory ({path}: {reason})"
        )
    return key


def path_of(collection: str, identity: str, action: str | None = None) -> str:
    """`keys`, `key-1`, `block` → `keys/key-1/block`; the identity is quoted, so it cannot leave its place."""
    path = f"{collection}/{quote(identity, safe='')}"
    return f"{path}/{action}" if action else path


def _refusal_kind(status: int) -> type[CommandError]:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Unanswered
    return OutOfReach if status == HTTPStatus.FORBIDDEN else CommandError


def refusal_text(status: int, answer: Mapping[str, Any]) -> str:
    """The gateway's error object in one line: its message, with the code, and the field when it names one."""
    error = answer.get("error")
    if not isinstance(error, dict):
        return f"the gateway answered {status}"
    message = " ".join(str(error.get("message") or "no message").split())
    about = [str(error[name]) for name in ("code", "param") if error.get(name)]
    return f"{message} ({', '.join([str(status), *about])})"
