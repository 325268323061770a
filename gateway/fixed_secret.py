"""Secrets that stand in the settings: the administrator's key and the metrics token.

A sub-key is made of 238 random bits. These may be as random, or a word that somebody chose, and that decides how
whoever guesses at them is answered (ADR 0042).
"""

import hmac

from gateway.billing.principal import digest_of

RANDOM_CHARS = 32
"""So many characters have 128 bits where each is a random hexadecimal digit, and more in any other alphabet."""
_DISTINCT_CHARS = 9
"""So many different ones are among 32 random digits but in one of 300,000 cases; whoever leans on a key writes
fewer."""


class FixedSecret:
    """Holds the digest alone. An empty secret is matched by nothing."""

    def __init__(self, secret: str) -> None:
        self._digest = digest_of(secret) if secret else ""
        self.is_beyond_guessing = is_beyond_guessing(secret)
        """Whether the right one may be told from wrong ones as often as anybody likes."""

    def matches(self, shown: str) -> bool:
        """In constant time: how long it takes says nothing of how much of it was right."""
        return self.has_digest(digest_of(shown))

    def has_digest(self, digest: str) -> bool:
        return hmac.compare_digest(digest, self._digest)


def is_beyond_guessing(secret: str) -> bool:
    """Whether a secret is long and mixed enough to be taken for a random one; who chose it knows whether it is."""
    return len(secret) >= RANDOM_CHARS and len(set(secret)) >= _DISTINCT_CHARS
