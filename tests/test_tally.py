"""Our counters, gauges and histograms show what prometheus-client's own would."""

import threading
from collections.abc import Sequence

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest

from gateway.tally import Counter, Gauge, Histogram

BOUNDS = (0.001, 0.5, 1, 60)
LABELS = ("endpoint", "model")


@pytest.fixture(autouse=True)
def no_created_series() -> None:
    """prometheus-client's own metrics show when each series began; ours, as its collectors, do not."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # it comes without types


def test_a_counter_shows_as_prometheus_clients_does() -> None:
    """Labels with every character that has to be escaped, whole and broken amounts, a series at zero."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    own, other = (
        Counter("calls", "Calls.", LABELS),
        prometheus_client.Counter("calls", "Calls.", LABELS, registry=theirs),
    )
    ours.register(own)
    for labels, amount in (
        (("/b/", 'a"\n\\é'), 1.0),
        (("/a/", ""), 4.35e-06),
        (("/b/", 'a"\n\\é'), 2),
        (("/c/", "x"), 0),
    ):
        own.labels(*labels).inc(amount)
        other.labels(*labels).inc(amount)
    assert generate_latest(theirs) == generate_latest(ours)


def test_a_gauge_shows_as_prometheus_clients_does() -> None:
    """From zero on, up and down."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    own, other = Gauge("open", "Now open."), prometheus_client.Gauge("open", "Now open.", registry=theirs)
    ours.register(own)
    assert generate_latest(theirs) == generate_latest(ours)
    for gauge in (own.labels(), other):
        gauge.inc()
        gauge.inc(4)
        gauge.dec()
    assert generate_latest(theirs) == generate_latest(ours)


@pytest.mark.parametrize("seconds", [(), (0.0,), (0.001,), (0.0011, 0.5, 0.75), (1, 60, 60.5, 10_000), (-0.5,)])
def test_a_histogram_shows_as_prometheus_clients_does(seconds: Sequence[float]) -> None:
    """A value that is a bound belongs to the bucket that ends there."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    own = Histogram("took_seconds", "How long.", LABELS, None, BOUNDS)
    other = prometheus_client.Histogram("took_seconds", "How long.", LABELS, buckets=BOUNDS, registry=theirs)
    ours.register(own)
    for value in seconds:
        own.labels("/a/", "m").observe(value)
        other.labels("/a/", "m").observe(value)
    assert generate_latest(theirs) == generate_latest(ours)


def test_labels_that_are_not_the_metrics_are_refused() -> None:
    """Or a series would show with labels that are missing."""
    with pytest.raises(ValueError, match="calls has the labels"):
        Counter("calls", "Calls.", LABELS).labels("/a/")


def test_who_collects_in_another_thread_sees_every_series_once() -> None:
    """While new series begin: a scrape must neither fail nor show less than the one before."""
    counter, histogram = (
        Counter("calls", "Calls.", ("n",)),
        Histogram("took_seconds", "How long.", ("n",), None, BOUNDS),
    )
    ended = threading.Event()
    shown: list[int] = []

    def collect() -> None:
        while not ended.is_set():
            shown.append(sum(len(family.samples) for one in (counter, histogram) for family in one.collect()))

    collecting = threading.Thread(target=collect)
    collecting.start()
    try:
        for number in range(5000):
            counter.labels(str(number)).inc()
            histogram.labels(str(number)).observe(0.2)
    finally:
        ended.set()
        collecting.join()
    assert sorted(shown) == shown
    assert 5000 == sum(sample.value for family in counter.collect() for sample in family.samples)
