"""Tags of a call, as its caller names them: `x-gateway-tags: project=alpha,env=prod`. For reports and nothing else."""

import re
from collections.abc import Sequence

from gateway.billing.errors import InvalidRequest

TAGS_HEADER = b"x-gateway-tags"
TAGS_MAX = 8

_PARAM = TAGS_HEADER.decode()
_WORD = "[a-z0-9][a-z0-9_.-]{0,39}"
_TAG = re.compile(f"({_WORD})=({_WORD})", re.ASCII)
_RIGHT = (
    "a tag is name=value, each of 1 to 40 of a-z, 0-9, '_', '.' and '-', beginning with a letter or a digit; "
    "several are separated by commas"
)


def tags_of(sent: Sequence[bytes]) -> tuple[str, ...]:
    """The tags, each like "project=alpha", by name; `sent` are the header's values, as a list in one or several parts.

    Raises InvalidRequest: one is of another form, a name comes twice, or there are too many.
    """
    texts = [text.strip(" \t") for value in sent for text in value.decode("latin-1").split(",")]
    if len(texts) > TAGS_MAX:
        raise InvalidRequest(f"{_PARAM} has {len(texts)} tags; a call takes at most {TAGS_MAX}.", param=_PARAM)
    tags: dict[str, str] = {}
    for text in texts:
        match = _TAG.fullmatch(text)
        if match is None:
            raise InvalidRequest(f"{_PARAM}: {text[:100]!r} is no tag; {_RIGHT}.", param=_PARAM)
        if match[1] in tags:
            raise InvalidRequest(f"{_PARAM} names {match[1]} twice; give it one value.", param=_PARAM)
        tags[match[1]] = text
    return tuple(tags[name] for name in sorted(tags))
