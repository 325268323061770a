"""Words, numbers, dates and templates in each language the dashboard speaks.

Catalogues are gettext's `.po` files, read and compiled once at the start. English is what stands in the code, so it
has none. Numbers, amounts and dates are Babel's, with the conventions of the language; amounts are never floats.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal
from importlib import resources

from babel import Locale, negotiate_locale
from babel.dates import format_date, format_datetime, format_skeleton, format_time
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_currency, format_decimal, format_percent
from babel.support import NullTranslations, Translations
from jinja2 import Environment, PackageLoader, StrictUndefined

from gateway.billing.money import NANO_PER_USD

LANGUAGES: Mapping[str, str] = {"en": "English", "vi": "Tiếng Việt", "he": "עברית"}
"""Each in its own name."""
DEFAULT_LANGUAGE = "en"


@dataclass(frozen=True, slots=True)
class Language:
    """One language with its templates; times are shown in the organisation's zone."""

    code: str
    zone: tzinfo
    templates: Environment
    translations: NullTranslations

    @property
    def direction(self) -> str:
        return self._locale.text_direction

    @property
    def mirrored(self) -> bool:
        return self.direction == "rtl"

    def text(self, message: str) -> str:
        return self.translations.gettext(message)

    def money(self, nano_usd: int) -> str:
        """Exact: at least two decimals, no more than needed."""
        pattern = self._locale.currency_formats["standard"].pattern.replace("0.00", "0.00#######")
        amount = Decimal(nano_usd) / NANO_PER_USD
        return format_currency(amount, "USD", pattern, self._locale, currency_digits=False)

    def number(self, value: int) -> str:
        return format_decimal(value, locale=self._locale)

    def percent(self, part: int, whole: int) -> str:
        """Whole percent, rounded down: 100 % is said when all of it is gone, and of nothing all is gone."""
        return format_percent(Decimal(part * 100 // whole if whole else 100) / 100, locale=self._locale)

    def day(self, name: str) -> str:
        """A local day given as 2026-11-21."""
        return format_date(date.fromisoformat(name), "medium", self._locale)

    def short_day(self, name: str) -> str:
        """The same without its year."""
        return format_skeleton("MMMd", date.fromisoformat(name), locale=self._locale)

    def moment(self, at_ms: int) -> str:
        at = datetime.fromtimestamp(at_ms // 1000, UTC)
        return format_datetime(at, "medium", self.zone, self._locale)

    def short_moment(self, at_ms: int) -> str:
        """The same without its year."""
        at = datetime.fromtimestamp(at_ms // 1000, self.zone)
        return f"{self.short_day(at.date().isoformat())} {format_time(at, 'medium', locale=self._locale)}"

    @property
    def _locale(self) -> Locale:
        return Locale.parse(self.code)


def load_languages(zone: tzinfo) -> dict[str, Language]:
    """Every language, ready for use."""
    return {code: _load(code, zone) for code in LANGUAGES}


def preferred(chosen: str | None, accept_language: str) -> str:
    """The language a visitor chose, else the best of what their browser asks for, else English."""
    if chosen is not None and chosen in LANGUAGES:
        return chosen
    wanted = sorted((_weighed(part) for part in accept_language.split(",")[:20]), key=lambda item: -item[1])
    # Hebrew's old code is still sent by some.
    names = ["he" if name in ("iw", "iw-il") else name for name, weight in wanted if weight > 0]
    return negotiate_locale(names, list(LANGUAGES), sep="-") or DEFAULT_LANGUAGE


def catalogue(code: str) -> NullTranslations:
    """The messages of a language; of English, which has no file, those in the code."""
    if code == DEFAULT_LANGUAGE:
        return NullTranslations()
    path = resources.files("gateway.dashboard") / "locale" / code / "LC_MESSAGES" / "messages.po"
    compiled = io.BytesIO()
    write_mo(compiled, read_po(io.BytesIO(path.read_bytes()), locale=code))
    compiled.seek(0)
    return Translations(compiled)


def _load(code: str, zone: tzinfo) -> Language:
    translations = catalogue(code)
    environment = Environment(
        loader=PackageLoader("gateway.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.i18n"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.install_gettext_translations(translations, newstyle=True)  # type: ignore[attr-defined]
    return Language(code, zone, environment, translations)


def _weighed(part: str) -> tuple[str, float]:
    name, _, parameter = part.strip().partition(";")
    try:
        return name.strip().lower(), float(parameter.strip().removeprefix("q=") or 1)
    except ValueError:
        return name.strip().lower(), 0.0
