"""What entries of the ledger add to the report cells, summed up for `lua/project.lua`.

Every call comes by here once more, while others run in the same process, so it is written to cost little: an ordinary
charge is counted without an `Entry` being made of it; what differs only in its amounts is one sum; and sums, not
entries, are spread over the axes. `cells.deltas_of` adds up the same in plain words: audits and tests go by that.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple
from itertools import chain
from operator import add, itemgetter

from gateway.billing.budget import Calendar
from gateway.billing.ledger import OTHER_TAGS
from gateway.store.cells import AXES, AXES_OF, SHEET_CHARS, TAG, TAG_GRAINS, measures_of, owner_of
from gateway.store.keys import Keys
from gateway.store.periods import Grain, Periods, Timetable, counts_at_ms
from gateway.store.records import Fields, entry_of, facts_of
from gateway.store.scripts import Argument

HOURS_KEPT_MS = 36 * 24 * 3600 * 1000
_SUMS_MAX = 200
"""One adds 8 to 30 amounts, each a microsecond of Redis, and all who call it wait until the last is added."""

_Amounts = list[int]
"""In the order of the fields of `Measures`; so is `MEASURES` in the script."""
_Place = tuple[str, str, str, str, str]
"""Organisation, team, user and key (in the order of AXES), and "|model|kind|", as it stands within a field's name."""
_Sums = dict[tuple[str, str], _Amounts]
"""By owner and "|model|kind|"."""

_OfTags = dict[str, dict[str, _Amounts]]
"""By tag and "<period>|<model>|<kind>|", as a field's name begins."""

_GRAINS_OF: dict[str, tuple[Grain, ...]] = {
    axis: tuple(grain for grain, axes in AXES_OF.items() if axis in axes) for axis in AXES
}


class Batch:
    """Entries of one organisation, in the order of the ledger, that its cells get in one step."""

    def __init__(self, keys: Keys, calendar: Calendar, timetable: Timetable) -> None:
        self._keys = keys
        self._calendar = calendar
        self._timetable = timetable
        self._places: dict[Periods, dict[_Place, _Amounts]] = defaultdict(dict)
        self._tags: dict[tuple[Grain, str], _OfTags] = defaultdict(lambda: defaultdict(dict))
        self._size = 0
        self.count = 0
        """How many entries it has."""
        self.last = b""
        """The id of the last of them."""

    @property
    def is_full(self) -> bool:
        """Whether more would keep Redis from the calls that wait for it."""
        return self._size >= _SUMS_MAX

    def add(self, entry_id: bytes, fields: Fields) -> None:
        """Count the next entry. Raises UnreadableEntry."""
        if not self._add_charge(fields):
            self._add_any(entry_id, fields)
        self.count += 1
        self.last = entry_id

    def _add_charge(self, fields: Fields) -> bool:
        """Count it if it is an ordinary charge, as nearly all are; what cannot be read is none.

        Says what `measures_of` says of a capture without flags.
        """
        try:
            if fields[b"type"] != b"capture" or b"replaces" in fields:
                return False
            facts = facts_of(fields[b"entry"])
            if facts.flags:
                return False
            at_ms = self._calendar.counts_at_ms(int(fields[b"admitted"]), int(fields[b"at"]))
            images = facts.units if facts.kind == "image" else 0
            amounts = [1, facts.prompt_tokens, facts.completion_tokens, images, int(fields[b"cost"]), 0, 0]
        except (KeyError, ValueError):
            return False
        model_and_kind = f"|{facts.model}|{facts.kind}|"
        if facts.tags:
            self._sum_tags(at_ms, facts.tags, model_and_kind, amounts)
        self._sum(at_ms, (facts.org, facts.team, facts.user or "", facts.key, model_and_kind), amounts)
        return True

    def _add_any(self, entry_id: bytes, fields: Fields) -> None:
        entry = entry_of(entry_id.decode(), fields)
        amounts = list(astuple(measures_of(entry)))
        if any(amounts):
            org, team, user, key = (owner_of(entry, axis) for axis in AXES)
            model_and_kind, at_ms = f"|{entry.model}|{entry.kind}|", counts_at_ms(self._calendar, entry)
            self._sum_tags(at_ms, entry.tags, model_and_kind, amounts)
            self._sum(at_ms, (org, team, user, key, model_and_kind), amounts)

    def _sum(self, at_ms: int, place: _Place, amounts: _Amounts) -> None:
        places = self._places[self._timetable.at(at_ms)]
        before = places.get(place)
        self._size += before is None
        places[place] = amounts if before is None else list(map(add, before, amounts))

    def _sum_tags(self, at_ms: int, tags: Sequence[str], model_and_kind: str, amounts: _Amounts) -> None:
        periods = self._timetable.at(at_ms)
        for grain in TAG_GRAINS if tags else ():
            period: str = getattr(periods, grain)
            of_tags = self._tags[grain, period[: SHEET_CHARS[grain]]]
            for tag in tags:
                sums, place = of_tags[tag], period + model_and_kind
                before = sums.get(place)
                self._size += before is None
                sums[place] = amounts if before is None else list(map(add, before, amounts))

    def command(self, checkpoint: bytes) -> tuple[list[str], list[Argument]]:
        """KEYS and ARGV of `lua/project.lua` that add all of it behind a checkpoint."""
        names = [self._keys.checkpoint]
        args: list[Argument] = [checkpoint, self.last, len(self._places) * len(AXES)]
        for periods, places in self._places.items():
            for number, axis in enumerate(AXES):
                self._add_block(names, args, periods, axis, _on_axis(number, places))
        args.append(len(self._tags))
        for (grain, sheet), of_tags in self._tags.items():
            self._add_tags(names, args, grain, sheet, of_tags)
        return names, args

    def _add_block(self, names: list[str], args: list[Argument], periods: Periods, axis: str, sums: _Sums) -> None:
        grains = _GRAINS_OF[axis]
        owners = {owner for owner, _ in sums}
        args += (len(grains), len(sums), len(owners))
        for grain in grains:
            args += (getattr(periods, grain), HOURS_KEPT_MS if grain == "hour" else 0)
        sheets = [(grain, getattr(periods, grain)[: SHEET_CHARS[grain]]) for grain in grains]
        for grain, sheet in sheets:
            prefix = self._keys.sheet(grain, sheet, axis, "")
            names += [prefix + owner for owner, _ in sums]
        names += [self._keys.owners(grain, sheet, axis) for grain, sheet in sheets]
        args += [model_and_kind for _, model_and_kind in sums]
        args += chain.from_iterable(sums.values())
        args += owners

    def _add_tags(self, names: list[str], args: list[Argument], grain: Grain, sheet: str, of_tags: _OfTags) -> None:
        names += (self._keys.owners(grain, sheet, TAG), self._keys.sheet(grain, sheet, TAG, OTHER_TAGS))
        args.append(len(of_tags))
        for tag, sums in of_tags.items():
            names.append(self._keys.sheet(grain, sheet, TAG, tag))
            args += (tag, len(sums))
            for place, amounts in sums.items():
                args.append(place)
                args += amounts


def _on_axis(number: int, places: dict[_Place, _Amounts]) -> _Sums:
    """What each owner on the axis of that number has by model and kind."""
    owner_and_model = itemgetter(number, len(AXES))
    sums: _Sums = {}
    for place, amounts in places.items():
        name = owner_and_model(place)
        before = sums.get(name)
        sums[name] = amounts if before is None else list(map(add, before, amounts))
    return sums
