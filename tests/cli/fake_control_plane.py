"""A control plane that answers what a test told it to, and remembers what it was asked."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit


class Request(NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    body: Any
    authorization: str
    idempotency_key: str | None = None


class FakeControlPlane:
    """Answers of one method and path are given in the order they were added; the last one repeats."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._answers: dict[tuple[str, str], list[tuple[int, bytes]]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def answers(self, method: str, path: str, body: object, *, status: int = 200) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._answers.setdefault((method, path), []).append((status, content))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, request: Request) -> tuple[int, bytes]:
        self.requests.append(request)
        answers = self._answers.get((request.method, request.path))
        if answers is None:
            return (
                404,
                b'{"error": {"message": "There is nothing here.", "code": "not_found", "param": null}}',
            )
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        control_plane = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                target = urlsplit(self.path)
                content = self.rfile.read(int(self.headers.get("content-length", 0)))
                status, body = control_plane._answer(
                    Request(
                        method=self.command,
                        path=target.path,
                        query=dict(parse_qsl(target.query)),
                        body=json.loads(content) if content else None,
                        authorization=self.headers.get("authorization", ""),
                        idempotency_key=self.headers.get("idempotency-key"),
                    )
                )
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 (http.server's names)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's name)
                """Say nothing: the test reads the command's own output."""

        return Handler
