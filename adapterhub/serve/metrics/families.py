"""Figures in the shapes of `prometheus_client`; each is called `adapterhub_...`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from adapterhub.serve.metrics.residency import Residency

Labels = Sequence[str]
Pair = tuple[str, str]

PREFIX = "adapterhub_"
_PAIR = ("reference", "version")


def requests(values: Iterable[tuple[Pair, Mapping[int, int]]]) -> Metric:
    """Ended requests by status; 499 where the client went away."""
    family = CounterMetricFamily(
        PREFIX + "requests", "Requests that ended", labels=(*_PAIR, "status")
    )
    for pair, statuses in values:
        for status, count in list(statuses.items()):
            family.add_metric((*pair, str(status)), count)
    return family


def counter(
    name: str, words: str, labels: Labels, values: Iterable[tuple[Labels, float]]
) -> Metric:
    """What only grows."""
    family = CounterMetricFamily(PREFIX + name, words, labels=labels)
    for label, value in values:
        family.add_metric(label, value)
    return family


def gauge(name: str, words: str, labels: Labels, values: Iterable[tuple[Labels, float]]) -> Metric:
    """What is so now."""
    family = GaugeMetricFamily(PREFIX + name, words, labels=labels)
    for label, value in values:
        family.add_metric(label, value)
    return family


def histogram(
    name: str, words: str, values: Iterable[tuple[Pair, list[tuple[str, float]], float]]
) -> Metric:
    """A distribution; a pair of which nothing was observed is left out."""
    family = HistogramMetricFamily(PREFIX + name, words, labels=_PAIR)
    for pair, buckets, total in values:
        if buckets[-1][1]:
            family.add_metric(pair, buckets, total)
    return family


def residency(found: Residency, most: int) -> Iterator[Metric]:
    """Where the adapters are, and what loading cost, for the `most` that were loaded most."""
    tiers = sorted(found.tiers().items(), key=lambda item: item[1] == "disk")[:most]
    yield gauge(
        "resident",
        "Where an adapter lies: slot, cpu (cache) or disk",
        ("version", "tier"),
        (((version, tier), 1) for version, tier in tiers),
    )
    loads = sorted(found.loads().items(), key=lambda item: -item[1][0])[:most]
    yield counter("loads", "Loads from disk", ("version",), (((v,), n) for v, (n, _) in loads))
    yield counter(
        "load_seconds", "Seconds of loading", ("version",), (((v,), s) for v, (_, s) in loads)
    )
    evictions = sorted(found.evictions().items(), key=lambda item: -item[1])[:most]
    yield counter(
        "evictions", "Adapters that made room", ("version",), (((v,), n) for v, n in evictions)
    )
