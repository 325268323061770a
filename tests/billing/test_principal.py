"""Sub-keys: who they name, and that a mistyped one is refused without asking Redis."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.principal import Principal, Scope, digest_of, make_sub_key, organisation_of

SECRET = "Ab3" * 13 + "z"
KEY = make_sub_key("acme", SECRET)
letters_and_digits = string.ascii_letters + string.digits


@given(
    st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=20),
    st.text(letters_and_digits, min_size=40, max_size=40),
)
def test_a_key_names_its_organisation(org: str, secret: str) -> None:
    """So a gateway knows in which slot to look before it asks."""
    assert org == organisation_of(make_sub_key(org, secret))


@given(st.integers(0, len(KEY) - 1), st.sampled_from(letters_and_digits + "-"))
def test_one_wrong_character_is_noticed(place: int, character: str) -> None:
    """Wherever it is; a checksum of 32 bits never misses a single one."""
    typed = KEY[:place] + character + KEY[place + 1 :]
    assert (None if typed != KEY else "acme") == organisation_of(typed)


@pytest.mark.parametrize(
    "key",
    [
        *("", "sk-", "sk-admin", KEY[:-1], KEY + "0", KEY + "\n", " " + KEY, KEY.upper(), KEY.replace("acme", "Acme")),
        *(make_sub_key("a" * 21, SECRET), make_sub_key("", SECRET), make_sub_key("a-b", SECRET)),
        *(make_sub_key("acme", SECRET[:-1]), make_sub_key("acme", SECRET[:-1] + "é"), make_sub_key("a:b", SECRET)),
        make_sub_key("acme}", SECRET),
    ],
)
def test_what_is_no_key_names_nobody(key: str) -> None:
    """Also with a right checksum: an organisation's name becomes part of Redis keys, so its letters are few."""
    assert organisation_of(key) is None


def test_a_digest_tells_nothing_of_its_key() -> None:
    """SHA-256 in hex, as anyone can compute it."""
    assert "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" == digest_of("abc")


def test_scopes_are_named_outermost_first() -> None:
    """The order in which refusals are reported; a key without a user has three scopes."""
    organisation, team, user, key = (
        Scope("organisation", "o"),
        Scope("team", "t"),
        Scope("user", "u"),
        Scope("key", "k"),
    )
    assert (organisation, team, user, key) == Principal("o", "t", "u", "k").scopes()
    assert (organisation, team, key) == Principal("o", "t", None, "k").scopes()
