"""Which secrets of the settings may be told right from wrong as often as anybody tries."""

import hmac
import secrets

import pytest

from gateway.billing.principal import digest_of
from gateway.fixed_secret import FixedSecret, is_beyond_guessing


@pytest.mark.parametrize("make", [lambda: secrets.token_hex(24), lambda: f"sk-admin-{secrets.token_urlsafe(32)}"])
def test_a_random_secret_is_beyond_guessing(make: object) -> None:
    """Those that the gateway and `deploy/make-secrets` make."""
    assert all(is_beyond_guessing(make()) for _ in range(1000))  # type: ignore[operator]


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "admin",
        "sk-admin-for-tests",
        "correct-horse-battery-staple",
        "0123456789abcdef0123456789abcde",
        "a" * 64,
        "admin" * 9,
    ],
)
def test_a_word_is_not(secret: str) -> None:
    """Nor what is long by repeating itself."""
    assert not is_beyond_guessing(secret)


def test_a_secret_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a whole digest: neither how much of a guess is right nor how long the secret is shows in how long it takes."""
    compared: list[tuple[str, str]] = []
    monkeypatch.setattr(hmac, "compare_digest", lambda *both: compared.append(both))
    FixedSecret("sk-admin").matches("sk-a")
    assert [(digest_of("sk-a"), digest_of("sk-admin"))] == compared


def test_a_secret_is_matched_by_itself_alone() -> None:
    """An unset one by nothing, the empty text and its digest neither."""
    secret = FixedSecret("sk-admin")
    assert [True, False, False] == [secret.matches(shown) for shown in ("sk-admin", "sk-admi", "")]
    assert [True, False] == [secret.has_digest(digest) for digest in (digest_of("sk-admin"), "")]
    assert not FixedSecret("").matches("")
    assert not FixedSecret("").has_digest(digest_of(""))
