"""Keys where they do not belong: in a URL, or in the name of a field or a model that a refusal repeats.

URLs are written down on the way, by proxies and browsers, and errors are shown to whoever is asked for help.
"""

import re
from urllib.parse import parse_qsl, unquote

_NAMES = frozenset({"apikey", "xapikey", "accesskey", "accesstoken", "token", "authorization", "bearer", "secret"})
_SPELLINGS = re.compile(r"[-_.]")
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_KEY = re.compile(r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{12,}")
"""Ours, MiniToolAI's and OpenAI's keys begin so."""
_KEY_IN_PATH = re.compile(r"sk-mt-[a-z0-9]{1,20}-[A-Za-z0-9]{48}")
"""A path may hold ids, some of which may look like keys, but none is as long."""


def holds_key(url: bytes) -> bool:
    """Whether the path or the query of a URL, as it was sent, has something that is a key or is named as one.

    `key=` is how some lists are asked for those of one key: an id there is none.
    """
    path, _, query = url.decode("latin-1").partition("?")
    if _KEY_IN_PATH.search(unquote(path, "latin-1")):
        return True
    return any(_is_key(*pair) for pair in parse_qsl(query, keep_blank_values=True, encoding="latin-1"))


def without_keys(text: str) -> str:
    """The same text, with whatever looks like a key cut to how all of them begin."""
    return _KEY.sub("sk-…", text)


def _is_key(name: str, value: str) -> bool:
    if _KEY.search(value) or _KEY.search(name):
        return True
    if not value:
        return False
    spelled = _SPELLINGS.sub("", name.lower())
    return spelled in _NAMES or (spelled == "key" and not _ID.fullmatch(value))
