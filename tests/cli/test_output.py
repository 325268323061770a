"""What a terminal is given."""

import pytest

from gateway.cli.output import cell_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "yes"),
        (["a", "b"], "a, b"),
        (1_500_000, "1500000"),
        ("Nghiên cứu", "Nghiên cứu"),
        ("a\x1b[2Jb\nc", "a�[2Jb�c"),
    ],
)
def test_a_value_is_one_line_that_cannot_steer_the_terminal(value: object, text: str) -> None:
    """Names come from other people: an escape sequence in one must not clear an administrator's screen."""
    assert text == cell_text(value)
