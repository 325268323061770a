"""Counters, gauges and histograms that read as prometheus-client's do, where counting costs as little as an addition.

prometheus-client looks labels up under a lock, locks again to add, and with several workers packs each number into a
mapped file at once: a call that is counted a dozen times paid more for that than for its log line. Here a series is a
plain number. Whoever is scraped reads the numbers; with workers they are written to the shared files now and then
(ADR 0025).

Laws:
- One thread counts and shares out: the event loop's. Any thread may collect.
- A number is changed in one step, so who collects meanwhile reads what was true a moment ago.
- A series begins when its labels are first asked for, and shows in that order.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Generic, Protocol, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gateway.shared_metrics import FileKind, SharedNumber, SharedNumbers

LabelValues = tuple[str, ...]


class Count:
    """One series of a counter."""

    __slots__ = ("_shared", "value")

    def __init__(self, shared: SharedNumber | None) -> None:
        self._shared = shared
        self.value: float = shared.value if shared else 0

    def inc(self, amount: float = 1) -> None:
        self.value += amount

    def share_out(self) -> None:
        if self._shared is not None:
            self._shared.write(self.value)


class Level(Count):
    """One series of a gauge: how much of something there is now."""

    __slots__ = ()

    def dec(self, amount: float = 1) -> None:
        self.value -= amount


class Spread:
    """One series of a histogram: how often a value was at most each of the bounds, and above all of them."""

    __slots__ = ("_bounds", "_shared", "buckets", "sum")

    def __init__(self, bounds: Sequence[float], shared: Sequence[SharedNumber]) -> None:
        """`shared`: the sum, and then each bucket; empty where nobody shares them."""
        self._bounds = bounds
        self._shared = shared
        self.sum, *self.buckets = [one.value for one in shared] or [0.0] * (len(bounds) + 2)

    def observe(self, value: float) -> None:
        self.buckets[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def share_out(self) -> None:
        for shared, value in zip(self._shared, (self.sum, *self.buckets), strict=False):
            shared.write(value)


class _Series(Protocol):
    def share_out(self) -> None: ...


S = TypeVar("S", bound=_Series)


class Family(Collector, ABC, Generic[S]):
    """One metric, all its series. Without labels it has one, from the beginning.

    `shared` is for a process that is one of several workers: its numbers begin there, and are written there.
    """

    kind: FileKind

    def __init__(
        self, name: str, text: str, label_names: Sequence[str] = (), shared: SharedNumbers | None = None
    ) -> None:
        self.name = name
        self.text = text
        self.label_names = tuple(label_names)
        self._shared = shared
        self._series: dict[LabelValues, S] = {}
        if not label_names:
            self.labels()

    def labels(self, *values: str) -> S:
        """The series of these label values, in the order of the label names."""
        try:
            return self._series[values]
        except KeyError:
            return self._begin(values)

    def share_out(self) -> None:
        """Let the other workers see what has changed."""
        if self._shared is not None:
            for series in self._series.values():
                series.share_out()

    def describe(self) -> Iterable[Metric]:
        """So that the registry refuses a second metric of this name."""
        return [self._family()]

    def _begin(self, values: LabelValues) -> S:
        if len(values) != len(self.label_names):
            raise ValueError(f"{self.name} has the labels {self.label_names}, not {values}")
        series = self._series[values] = self._new(values)
        return series

    def _now(self) -> Iterable[tuple[LabelValues, S]]:
        """All series, copied in one step: the other thread may begin one meanwhile."""
        return self._series.copy().items()

    @abstractmethod
    def _new(self, values: LabelValues) -> S: ...

    @abstractmethod
    def _family(self) -> Metric: ...

    def _number(self, name: str, values: LabelValues, *more: tuple[str, str]) -> SharedNumber | None:
        if self._shared is None:
            return None
        labels = (*zip(self.label_names, values, strict=True), *more)
        return self._shared.number(self.kind, self.name, name, labels, self.text)


class Counter(Family[Count]):
    """What only grows. `name` is without its `_total`."""

    kind = "counter"

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        for values, count in self._now():
            family.add_metric(values, count.value)
        return [family]

    def _new(self, values: LabelValues) -> Count:
        return Count(self._number(f"{self.name}_total", values))

    def _family(self) -> CounterMetricFamily:
        return CounterMetricFamily(self.name, self.text, labels=self.label_names)


class Gauge(Family[Level]):
    """What goes up and down; with several workers the sum over those that live."""

    kind = "gauge_livesum"

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        for values, level in self._now():
            family.add_metric(values, level.value)
        return [family]

    def _new(self, values: LabelValues) -> Level:
        return Level(self._number(self.name, values))

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self.name, self.text, labels=self.label_names)


class Histogram(Family[Spread]):
    """How values spread over buckets, each of which ends at a bound; the last one has none."""

    kind = "histogram"

    def __init__(
        self, name: str, text: str, label_names: Sequence[str], shared: SharedNumbers | None, bounds: Sequence[float]
    ) -> None:
        self._bounds = tuple(map(float, bounds))
        self._bound_texts = [_bound_text(bound) for bound in (*self._bounds, float("inf"))]
        super().__init__(name, text, label_names, shared)

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        for values, spread in self._now():
            up_to = accumulate(list(spread.buckets))
            family.add_metric(values, list(zip(self._bound_texts, up_to, strict=True)), spread.sum)
        return [family]

    def _new(self, values: LabelValues) -> Spread:
        numbers = [self._number(f"{self.name}_sum", values)]
        numbers += [self._number(f"{self.name}_bucket", values, ("le", text)) for text in self._bound_texts]
        return Spread(self._bounds, [number for number in numbers if number is not None])

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self.name, self.text, labels=self.label_names)


def _bound_text(bound: float) -> str:
    """As every client of Prometheus spells it: `0.005`, `1.0`, `+Inf`."""
    text: str = floatToGoString(bound)  # type: ignore[no-untyped-call]  # prometheus-client leaves it without types
    return text
