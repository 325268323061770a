"""What every answer of the dashboard has in common: headers that keep foreign code out, cookies, static files."""

from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from gateway.store.sessions import SESSION_S

SESSION_COOKIE = "gateway-session"
LANGUAGE_COOKIE = "gateway-language"
_LANGUAGE_S = 365 * 86_400
_FORM_BYTES_MAX = 16_384

_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "content-security-policy": _CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}
_MEDIA_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class StaticFile:
    content: bytes
    media_type: str
    url: str


def page(html: str, status: int = 200, *, retry_after_s: int | None = None) -> Response:
    headers = _HEADERS if retry_after_s is None else {**_HEADERS, "retry-after": str(retry_after_s)}
    return HTMLResponse(html, status, headers=headers)


def redirect(url: str) -> Response:
    return RedirectResponse(url, 303, headers=_HEADERS)


def load_static_files() -> dict[str, StaticFile]:
    """The files of `static/` by name; their URLs name their content, so a browser may keep them for ever."""
    files = {}
    for entry in (resources.files("gateway.dashboard") / "static").iterdir():
        content = entry.read_bytes()
        media_type = _MEDIA_TYPES[entry.name.rpartition(".")[2]]
        version = sha256(content).hexdigest()[:12]
        files[entry.name] = StaticFile(content, media_type, f"/dashboard/static/{entry.name}?v={version}")
    return files


def static_answer(file: StaticFile) -> Response:
    headers = {**_HEADERS, "cache-control": "public, max-age=31536000, immutable"}
    return Response(file.content, media_type=file.media_type, headers=headers)


def set_session(answer: Response, request: Request, token: str) -> None:
    """Scripts never see the cookie, other sites never make the browser send it."""
    answer.set_cookie(
        SESSION_COOKIE,
        token,
        max_age=SESSION_S,
        path="/dashboard",
        secure=_is_https(request),
        httponly=True,
        samesite="strict",
    )


def forget_session(answer: Response) -> None:
    answer.delete_cookie(SESSION_COOKIE, path="/dashboard", httponly=True, samesite="strict")


def set_language(answer: Response, request: Request, code: str) -> None:
    answer.set_cookie(
        LANGUAGE_COOKIE,
        code,
        max_age=_LANGUAGE_S,
        path="/dashboard",
        secure=_is_https(request),
        httponly=True,
        samesite="strict",
    )


def is_from_this_site(request: Request) -> bool:
    """Whether a form was sent from one of our own pages; browsers say so in headers that no page can forge."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


async def form_fields(request: Request) -> dict[str, str]:
    """What is filled in on a posted form; nothing where it is none, or is too large to be one of ours."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_BYTES_MAX:
            return {}
    try:
        return {name: texts[0] for name, texts in parse_qs(body.decode("ascii"), max_num_fields=20).items()}
    except ValueError:
        return {}


def _is_https(request: Request) -> bool:
    """Behind a proxy the proxy says so; a client that forges it only hides its own cookie from itself."""
    return "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
