"""What a form carries to be taken for ours: a number used once, signed for one session and one address.

The session's token is the key of the signature and stays in its cookie, out of reach of scripts and other sites; so
whoever has no page of this session cannot write a form for it, nor use the form of one change for another.
"""

import hmac
import secrets
from hashlib import sha256


def new_form_token(session: str, path: str) -> str:
    """For a form that is sent to `path` in the session of this token."""
    once = secrets.token_urlsafe(16)
    return f"{once}.{_signature(session, path, once)}"


def once_of(form_token: str, session: str, path: str) -> str | None:
    """The number of a form, the same however often it is sent; None: it is no form of this session for this path."""
    once, _, signature = form_token.partition(".")
    right = hmac.compare_digest(signature.encode(), _signature(session, path, once).encode())
    return once if right else None


def _signature(session: str, path: str, once: str) -> str:
    return hmac.new(session.encode(), f"{once} {path}".encode(), sha256).hexdigest()
