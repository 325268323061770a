"""What the gateway and its counting process say to each other, over one connected socket.

The process says `READY` once it can count. Then it is asked one thing at a time: the question's length in
`LENGTH_BYTES`, the question in MessagePack. It answers with the number of tokens, in `ANSWER_BYTES`.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

READY: Final = b"\1"
LENGTH_BYTES: Final = 4
ANSWER_BYTES: Final = 8
BYTE_ORDER: Final = "big"


class Question(msgspec.Struct, array_like=True):
    """The arguments of `wire.tokens.count_prompt`. Texts are in UTF-8: a `str` may hold what UTF-8 cannot."""

    texts: Sequence[bytes]
    extra_tokens: int
    tokens_max: int
