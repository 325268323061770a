"""Every text in every language, exact amounts by each language's conventions."""

import re
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from gateway.dashboard.language import LANGUAGES, load_languages, preferred

FOLDER = Path(__file__).resolve().parents[2] / "gateway" / "dashboard"
TRANSLATED = [code for code in LANGUAGES if code != "en"]


@pytest.mark.parametrize("code", TRANSLATED)
def test_a_catalogue_has_every_message_and_no_other(code: str) -> None:
    """A text without its translation is an English word in the middle of a Hebrew page."""
    with (FOLDER / "locale" / code / "LC_MESSAGES" / "messages.po").open("rb") as file:
        catalogue = read_po(file, locale=code, abort_invalid=True)
    assert set(messages()) == {str(message.id) for message in catalogue if message.id}
    for message in catalogue:
        assert message.string
        assert not message.fuzzy
        assert re.findall(r"%\(\w+\)s", str(message.id)) == re.findall(r"%\(\w+\)s", str(message.string))


@pytest.mark.parametrize(
    ("code", "nano_usd", "expected"),
    [
        ("en", 4_350, "$0.00000435"),
        ("en", 1_234_567_000_000_000, "$1,234,567.00"),
        ("en", 9_000_000_000_000_001 - 1_000_000_000, "$8,999,999.000000001"),
        ("vi", 4_350, "0,00000435\xa0US$"),
        ("vi", 1_234_500_000_000, "1.234,50\xa0US$"),
        ("he", 1_234_500_000_000, "\u200f1,234.50\xa0\u200f$"),
    ],
)
def test_amounts_are_exact_in_every_language(code: str, nano_usd: int, expected: str) -> None:
    """To the nano-dollar, at least two decimals, no more than needed."""
    assert expected == load_languages(UTC)[code].money(nano_usd)


def test_a_percentage_says_all_only_when_all_is_gone() -> None:
    """99.9 % is not the end of a budget."""
    english = load_languages(UTC)["en"]
    assert ["0%", "99%", "100%", "110%", "100%"] == [
        english.percent(part, whole) for part, whole in ((0, 5), (999, 1000), (5, 5), (11, 10), (0, 0))
    ]


@pytest.mark.parametrize(
    ("chosen", "accepted", "expected"),
    [
        (None, "", "en"),
        ("he", "vi", "he"),
        ("xx", "vi-VN,vi;q=0.9,en;q=0.5", "vi"),
        (None, "fr,he;q=0.8,vi;q=0.9", "vi"),
        (None, "iw", "he"),
        (None, "fr-FR,de", "en"),
        (None, "vi;q=0,en;q=0.1", "en"),
        (None, "vi;q=x", "en"),
    ],
)
def test_the_language_is_the_visitors(chosen: str | None, accepted: str, expected: str) -> None:
    """What was chosen comes first, then the browser's wishes in their order."""
    assert expected == preferred(chosen, accepted)


def test_hebrew_alone_is_mirrored() -> None:
    """By what Babel knows of its script."""
    assert {"en": False, "vi": False, "he": True} == {
        code: language.mirrored for code, language in load_languages(UTC).items()
    }


def messages() -> Iterator[str]:
    """Every text of the templates and of `words`."""
    methods = [("**.py", "python"), ("**.html", "jinja2.ext:babel_extract")]
    for _, _, message, _, _ in extract_from_dir(FOLDER, methods, keywords={"_": None, "marked": None}):
        yield str(message)
