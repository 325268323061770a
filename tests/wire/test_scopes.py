"""A scope's settings as callers write them."""

import pytest

from gateway.billing.errors import InvalidRequest
from gateway.wire.scopes import instant_ms, new_settings


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("1971-01-01T00:00:00Z", 31_536_000_000),
        ("2026-12-01T07:00:00.5+07:00", 1_796_083_200_500),
        ("2026-12-01t00:00:00.000999z", 1_796_083_200_000),
        ("8999-12-31T23:59:59.999Z", 221_845_391_999_999),
        ("9000-01-01T00:00:00Z", 221_845_392_000_000),
    ],
)
def test_an_instant_is_read_to_the_millisecond(text: str, at_ms: int) -> None:
    """In whatever zone it is written; what is finer than Redis's windows is cut off, never rounded up."""
    assert at_ms == instant_ms(text, "from")


@pytest.mark.parametrize(
    "text",
    [
        *("1970-01-01T00:00:00Z", "1970-12-31T23:59:59.999Z", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00"),
        *("9000-01-01T00:00:00.001Z", "9999-12-31T23:59:59-05:00", "9999-12-31T23:59:59.9999Z"),
        *("2026-W47-6T00:00:00Z", "20261121T000000Z", "2026-11-21T00:00:00", "2026-11-21T00Z", "2026-02-30T00:00:00Z"),
        *("2026-11-21", "tomorrow", "", "2026-11-2\u0661T00:00:00Z", 1_795_219_200_000, None),
    ],
)
def test_an_instant_that_cannot_be_kept_is_refused(text: object) -> None:
    """1970 would be stored as "never", a time before it breaks the script, the calendar's end cannot be answered."""
    with pytest.raises(InvalidRequest) as refused:
        instant_ms(text, "expires_at")
    assert "expires_at" == refused.value.param


def test_a_key_may_be_given_without_an_end() -> None:
    """Null is never, as if it were left out."""
    assert 0 == new_settings("key", {"team": "red", "expires_at": None}, default_id="key-1").expires_at_ms


@pytest.mark.parametrize("name", ["sk-mt-default-" + "a" * 48, "key of an: sk-proj-0123456789abcdef"])
def test_a_key_is_no_name(name: str) -> None:
    """It was pasted into the wrong field, where the whole team would read it; the refusal does not repeat it."""
    with pytest.raises(InvalidRequest, match="looks like an API key") as refused:
        new_settings("team", {"id": "red", "name": name})
    assert name[-12:] not in str(refused.value)
    assert "sk-mate" == new_settings("team", {"id": "red", "name": "sk-mate"}).name
