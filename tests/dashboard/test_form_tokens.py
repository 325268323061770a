"""What a form carries: good in its own session, for its own address, and not to be made elsewhere."""

import pytest

from gateway.dashboard.form_tokens import new_form_token, once_of

SESSION, PATH = "default." + "a" * 43, "/dashboard/keys/notebook/revoke"


def test_a_form_is_known_again_by_one_number() -> None:
    """However often it is sent; the next form has another."""
    first, second = new_form_token(SESSION, PATH), new_form_token(SESSION, PATH)
    assert once_of(first, SESSION, PATH) == once_of(first, SESSION, PATH) != once_of(second, SESSION, PATH)
    assert SESSION not in first


@pytest.mark.parametrize(
    ("session", "path"),
    [("default." + "b" * 43, PATH), ("", PATH), (SESSION, "/dashboard/keys/other/revoke"), (SESSION, PATH + "/")],
)
def test_it_is_good_nowhere_else(session: str, path: str) -> None:
    """In another session, or for another change."""
    assert once_of(new_form_token(SESSION, PATH), session, path) is None


@pytest.mark.parametrize("token", ["", ".", "x", "x.", "x.y", "é.ü", "x." + "0" * 64])
def test_what_was_made_up_is_none(token: str) -> None:
    """Whatever it looks like."""
    assert once_of(token, SESSION, PATH) is None


def test_a_number_of_ones_own_has_no_signature() -> None:
    """Else a form could be sent a second time under another one."""
    once, _, signature = new_form_token(SESSION, PATH).partition(".")
    assert once_of(f"{once}0.{signature}", SESSION, PATH) is None
