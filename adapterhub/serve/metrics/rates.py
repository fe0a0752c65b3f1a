"""What happened between two readings of a server's figures."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from adapterhub.serve.metrics.reading import Reading, VersionFigures, quantile

_WINDOW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class VersionRates:
    """`figures` are the latest; rates are per second since the reading before. The times to the
    first token (seconds; None without a request) are those of the last minute."""

    version: str
    figures: VersionFigures
    requests_per_second: float
    tokens_per_second: float
    first_token_p50: float | None
    first_token_p95: float | None


class History:
    """The readings of the last minute."""

    def __init__(self) -> None:
        self._readings: deque[Reading] = deque()

    def add(self, reading: Reading) -> list[VersionRates]:
        """The rates with this reading as the latest, the busiest version first."""
        before = self._readings[-1] if self._readings else reading
        self._readings.append(reading)
        # While no reading is a minute old, all that the server ever counted is looked at.
        oldest = None
        while self._readings[0].time < reading.time - _WINDOW_SECONDS:
            oldest = self._readings.popleft()
        if oldest is not None:
            self._readings.appendleft(oldest)
        seconds = reading.time - before.time
        rates = [
            _rates(version, figures, before, oldest, seconds)
            for version, figures in reading.versions.items()
        ]
        return sorted(rates, key=lambda r: (-r.requests_per_second, -r.figures.requests, r.version))


def _rates(
    version: str, now: VersionFigures, before: Reading, oldest: Reading | None, seconds: float
) -> VersionRates:
    past = before.versions.get(version, VersionFigures())
    start = oldest.versions.get(version) if oldest else None
    buckets = {
        bound: count - (start.first_token.get(bound, 0.0) if start else 0.0)
        for bound, count in now.first_token.items()
    }
    return VersionRates(
        version,
        now,
        (now.requests - past.requests) / seconds if seconds else 0.0,
        (now.generated_tokens - past.generated_tokens) / seconds if seconds else 0.0,
        quantile(0.5, buckets),
        quantile(0.95, buckets),
    )
