"""Token counts: tiktoken's own, offline, and never a failure."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire import tokens
from gateway.wire.call import PromptText
from gateway.wire.tokens import PIECE_BYTES_MAX, count, count_prompt

SCRIPTS = st.text(
    st.characters(codec="utf-8")
    | st.sampled_from("aàạשلあ世界กकж😀\u200d\u0301 \t\n\r'")
    | st.characters(min_codepoint=0x1EA0, max_codepoint=0x1EF9),
    max_size=200,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 0), ("hello world", 2), ("tiktoken is great!", 6), ("お誕生日おめでとう", 8), ("2 + 2 = 4", 7)],
)
def test_known_texts_have_their_known_counts(text: str, expected: int) -> None:
    """Source of the counts: OpenAI cookbook, "How to count tokens with tiktoken", o200k_base."""
    assert expected == count(text)


def test_a_special_token_is_text() -> None:
    """The upstream reads it as text too; an error here would let a user stop the counting."""
    assert 7 == count("<|endoftext|>")


@settings(deadline=None)  # the first count loads the ranks
@given(SCRIPTS)
def test_a_text_never_has_more_tokens_than_bytes(text: str) -> None:
    """The whole hold stands on this."""
    assert count(text) <= len(text.encode())


@pytest.mark.parametrize("run", ["a b ", "word ", "שלום ", "tiếng Việt "])
def test_cutting_a_long_text_does_not_change_its_count(run: str) -> None:
    """Pieces are cut before a space, where the encoding cuts too."""
    text = run * (3 * PIECE_BYTES_MAX // len(run))
    assert len(tokens._encoding().encode_ordinary(text)) == count(text)


@pytest.mark.parametrize("run", ["\t", "a", "中", "😀"])
def test_a_megabyte_of_one_character_is_counted(run: str) -> None:
    """In one piece a megabyte of tabs overflows the stack of tiktoken's pattern engine."""
    text = run * (1_000_000 // len(run.encode()))
    assert 0 < count(text) <= len(text.encode())


def test_a_piece_that_tiktoken_fails_on_counts_as_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Rust panic arrives as a BaseException; the byte count is an upper bound."""

    class Panic(BaseException):
        pass

    class Panicking:
        def encode_ordinary(self, _text: str) -> list[int]:
            raise Panic

    monkeypatch.setattr(tokens, "_encoding", Panicking)
    assert 5 == count("chào")


def test_an_interrupt_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catching BaseException must not catch the operator."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tokens, "_encoding", interrupted)
    with pytest.raises(KeyboardInterrupt):
        count("text")


def test_wrong_ranks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting with other ranks would bill other amounts."""
    monkeypatch.setattr(tokens, "RANKS_SHA256", "0" * 64)
    with pytest.raises(tokens.RanksError):
        tokens._ranks()


def test_a_prompt_is_its_texts_and_what_is_not_text() -> None:
    """3 a message and 3 for the reply are in `extra_tokens`, put there by the inspection."""
    assert 2 + 1 + 6 == count_prompt(PromptText(("hello world", "user"), 6), 100)
