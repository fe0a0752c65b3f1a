"""The figures of a server for Prometheus, per reference and version.

Counting is adding to numbers on one event loop; what Prometheus reads is made when it asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

from adapterhub.serve.metrics.request import ServedRequest
from adapterhub.serve.metrics.residency import Residency

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

MOST_PAIRS = 400
"""Pairs of reference and version that have figures of their own; more are `other` together, so
that what clients ask for does not fill Prometheus."""

OTHER = "other"

FIRST_TOKEN_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
REQUEST_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)

_PAIR = ("reference", "version")


@dataclass(slots=True)
class _Histogram:
    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        names = [*map(str, self.bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self.counts)), strict=True))


@dataclass(slots=True)
class _Figures:
    """Those of one reference and version."""

    statuses: Counter[int] = field(default_factory=Counter)
    prompt_tokens: int = 0
    generated_tokens: int = 0
    first_token: _Histogram = field(default_factory=lambda: _Histogram(FIRST_TOKEN_BUCKETS))
    seconds: _Histogram = field(default_factory=lambda: _Histogram(REQUEST_BUCKETS))


async def _nothing() -> None:
    pass


class Metrics:
    """Used from one event loop, but for `residency`. It is a collector of `prometheus_client`.

    refresh: called before the figures are read, for an engine that has to ask where its adapters
    are.
    """

    def __init__(self, residency: Residency | None = None) -> None:
        self.residency = residency or Residency()
        self.refresh: Callable[[], Awaitable[None]] = _nothing
        self._pairs: dict[tuple[str, str], _Figures] = {}
        # What a reference meant when it was last answered, for those that still wait.
        self._meant: dict[str, str] = {}
        self._refusals: Counter[str] = Counter()
        self._inside: set[ServedRequest] = set()

    def begin(self, request: ServedRequest) -> None:
        """A request came in, and will `end`."""
        self._inside.add(request)

    def end(self, request: ServedRequest, seconds: float) -> None:
        """It was answered, refused, or its client went away, so many seconds after it came."""
        self._inside.discard(request)
        figures = self._figures(request)
        figures.statuses[request.status] += 1
        figures.prompt_tokens += request.prompt_tokens
        figures.generated_tokens += request.generated_tokens
        first = request.first_token_seconds
        if first is not None:
            figures.first_token.observe(first)
        if request.version:
            figures.seconds.observe(seconds)

    def refused(self, reason: str) -> None:
        """A request was refused."""
        self._refusals[reason] += 1

    def _figures(self, request: ServedRequest) -> _Figures:
        # Only what an engine found has a label: a client may ask for any name.
        pair = (request.reference, request.version) if request.version else ("", "")
        figures = self._pairs.get(pair)
        if figures is None:
            if len(self._pairs) >= MOST_PAIRS and pair[0]:
                pair = (OTHER, OTHER)
            figures = self._pairs.setdefault(pair, _Figures())
        self._meant[pair[0]] = pair[1]
        return figures

    def describe(self) -> list[Metric]:
        """No names beforehand: `prometheus_client` would collect, to find them."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every figure, as `prometheus_client` writes it."""
        from adapterhub.serve.metrics import families

        pairs = list(self._pairs.items())
        yield families.requests((pair, figures.statuses) for pair, figures in pairs)
        yield families.counter(
            "prompt_tokens", "Tokens read", _PAIR, ((p, f.prompt_tokens) for p, f in pairs)
        )
        yield families.counter(
            "generated_tokens", "Tokens written", _PAIR, ((p, f.generated_tokens) for p, f in pairs)
        )
        yield families.histogram(
            "first_token_seconds",
            "From a request's arrival to its first token",
            ((p, f.first_token.buckets(), f.first_token.total) for p, f in pairs),
        )
        yield families.histogram(
            "request_seconds",
            "From a request's arrival to the end of its answer",
            ((p, f.seconds.buckets(), f.seconds.total) for p, f in pairs),
        )
        for name, words, admitted in (
            ("requests_in_flight", "Requests that the engine answers", True),
            ("requests_waiting", "Requests that wait for their turn", False),
        ):
            yield families.gauge(name, words, _PAIR, self._now(admitted).items())
        yield families.counter(
            "refusals", "Refused requests", ("reason",), (((r,), n) for r, n in self._refused())
        )
        yield from families.residency(self.residency, MOST_PAIRS)

    def _refused(self) -> Iterable[tuple[str, int]]:
        return list(self._refusals.items())

    def _now(self, admitted: bool) -> Counter[tuple[str, str]]:
        found: Counter[tuple[str, str]] = Counter()
        for request in list(self._inside):
            if request.admitted == admitted:
                version = request.version or self._meant.get(request.reference)
                pair = (request.reference, version) if version else (OTHER, OTHER)
                found[pair if pair in self._pairs or len(self._pairs) < MOST_PAIRS else
                      (OTHER, OTHER)] += 1  # fmt: skip
        return found


def exposition(metrics: Metrics) -> bytes:
    """What `/metrics` answers where no other library has figures of its own."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(metrics)
    content: bytes = generate_latest(registry)
    return content
