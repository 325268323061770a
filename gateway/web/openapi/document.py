"""The document: operations, schemas and the tree of errors put together, and the two paths that show it."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from gateway.access import RuledRoute
from gateway.billing.errors import GatewayError
from gateway.web.http import ROLES
from gateway.web.openapi.answers import answers
from gateway.web.openapi.bodies import bodies
from gateway.web.openapi.operations import JSON, Access, Operation, operations
from gateway.web.openapi.page import PAGE_HEADERS, page_of
from gateway.web.openapi.schemas import Schema, ref
from gateway.wire.chat import ChatRules
from gateway.wire.images import ImageRules
from gateway.wire.strictjson import encode

_ABOUT = (
    "MiniToolAI's API behind sub-keys, budgets and exact books, and the control plane over them. Every path answers "
    "with and without its trailing slash. Amounts are decimal strings of dollars (…_usd) and integers (…_nano_usd), "
    "never floats. Every refusal has one shape, says what to do, and carries x-gateway-error-source."
)
_ALWAYS = (400, 408, 413, 415, 431, 500, 503)
"""Refusals of HTTP itself, and of a gateway that is overloaded, shuts down or has no Redis."""
_OF_KEYS = (401, 403, 429)
_CONTROL_PLANE: tuple[Access, ...] = ("viewer", "manager", "reader", "writer")
_SECURITY: Mapping[Access, list[Schema]] = {
    "anyone": [],
    "scraper": [{"metricsToken": []}, {"adminKey": []}],
    "holder": [{"subKey": []}, {"subKeyHeader": []}],
    "holder or job": [{"subKey": []}, {"subKeyHeader": []}, {}],
    **{who: [{"adminKey": []}, {"adminKeyHeader": []}] for who in _CONTROL_PLANE},
}
_ADMIN_KEY_OR = "Takes the administrator's key, or a sub-key of a role of: "
_WHO: Mapping[Access, str] = {
    "anyone": "Takes no key.",
    "scraper": "Takes the metrics token or the administrator's key.",
    "holder": "Takes a sub-key.",
    "holder or job": "Takes a sub-key, or none: who knows jobid and signature of a job of this gateway may ask.",
    "viewer": "Takes the administrator's key, or a sub-key: admin and auditor see the whole organisation, team_admin "
    "the own team, member the own key and user. What is out of reach is not there.",
    "manager": f"{_ADMIN_KEY_OR}{', '.join(sorted(ROLES['manager']))}. A team_admin changes members: keys of that "
    "role, and users without a key of another, of the own team.",
    "reader": f"{_ADMIN_KEY_OR}{', '.join(sorted(ROLES['reader']))}.",
    "writer": f"{_ADMIN_KEY_OR}{', '.join(sorted(ROLES['writer']))}.",
}
_TAGS: Mapping[Access, str] = {
    "anyone": "operations",
    "scraper": "operations",
    "holder": "data plane",
    "holder or job": "data plane",
    **dict.fromkeys(_CONTROL_PLANE, "control plane"),
}
_OURS = ref("Error")
_OURS_OR_THEIRS: Schema = {"anyOf": [_OURS, ref("Upstream")]}
_PASSED: Schema = {
    "description": "A failure of MiniToolAI's, passed on as it came: x-gateway-error-source: upstream",
    "content": {"*/*": {"schema": {}}},
}


class Reference:
    """Handlers of `GET /openapi.json` and `GET /docs`: for anyone, since they tell what is in the manual."""

    def __init__(self, chat: ChatRules, images: ImageRules) -> None:
        self._chat = chat
        self._images = images

    def routes(self) -> list[RuledRoute]:
        return [
            RuledRoute("GET", "/openapi.json", "anyone", self._json),
            RuledRoute("GET", "/docs", "anyone", self._page),
        ]

    async def _json(self, _request: Request) -> Response:
        return Response(self._encoded, media_type=JSON)

    async def _page(self, _request: Request) -> Response:
        return HTMLResponse(self._html, headers=PAGE_HEADERS)

    @cached_property
    def _document(self) -> Schema:
        return document(self._chat, self._images)

    @cached_property
    def _encoded(self) -> bytes:
        return encode(self._document)

    @cached_property
    def _html(self) -> str:
        return page_of(self._document)


def document(chat: ChatRules, images: ImageRules) -> Schema:
    """Both planes in OpenAPI 3.1. `chat` and `images` are what this installation's calls are checked by."""
    codes = _codes_by_status()
    paths: dict[str, Schema] = defaultdict(dict)
    for operation in operations():
        paths[operation.path][operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "MiniToolAI gateway", "version": "1", "description": _ABOUT},
        "tags": [{"name": name} for name in dict.fromkeys(_TAGS.values())],
        "paths": dict(paths),
        "components": {
            "schemas": bodies(chat, images) | answers(),
            "responses": {
                **{f"Refusal{status}": _refusal(status, names, _OURS) for status, names in codes.items()},
                **{f"Failure{status}": _refusal(status, names, _OURS_OR_THEIRS) for status, names in codes.items()},
            },
            "securitySchemes": {
                "subKey": {"type": "http", "scheme": "bearer", "description": "a sub-key: sk-mt-…"},
                "subKeyHeader": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "adminKey": {"type": "http", "scheme": "bearer", "description": "the administrator's, or a sub-key"},
                "adminKeyHeader": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "metricsToken": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _operation(operation: Operation) -> Schema:
    described: Schema = {
        "summary": operation.summary,
        "description": _WHO[operation.access],
        "tags": [_TAGS[operation.access]],
        "operationId": _id_of(operation),
        "security": _SECURITY[operation.access],
        "responses": _responses(operation),
    }
    if operation.parameters:
        described["parameters"] = list(operation.parameters)
    if operation.body:
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": ref(operation.body)}}}
    return described


def _responses(operation: Operation) -> Schema:
    responses: Schema = {
        str(status): {
            "description": HTTPStatus(status).phrase,
            "content": {media_type: {"schema": schema} for media_type, schema in content.items()},
        }
        for status, content in operation.answers.items()
    }
    of_keys = () if operation.access == "anyone" else _OF_KEYS
    name = "Failure" if operation.upstream else "Refusal"
    for status in sorted({*_ALWAYS, *of_keys, *operation.refusals} - operation.answers.keys()):
        responses[str(status)] = {"$ref": f"#/components/responses/{name}{status}"}
    if operation.upstream:
        responses |= {"4XX": _PASSED, "5XX": _PASSED}
    return responses


def _refusal(status: int, codes: list[str], schema: Schema) -> Schema:
    return {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(codes)}",
        "headers": {"x-gateway-error-source": {"required": True, "schema": {"enum": ["gateway", "upstream"]}}},
        "content": {JSON: {"schema": schema}},
    }


def _id_of(operation: Operation) -> str:
    words = operation.path.replace("{", "").replace("}", "").replace(".", "/").replace("-", "/").split("/")
    return operation.method.lower() + "".join(word.capitalize() for word in words)


def _codes_by_status() -> dict[int, list[str]]:
    codes: dict[int, set[str]] = defaultdict(set)
    for error in _error_classes():
        codes[error.status].add(error.code)
    return {status: sorted(codes[status]) for status in sorted(codes)}


def _error_classes() -> Iterator[type[GatewayError]]:
    pending: list[type[GatewayError]] = [GatewayError]
    while pending:
        error = pending.pop()
        pending.extend(error.__subclasses__())
        yield error
