"""The figures of a running server, read from its `/metrics`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from adapterhub.serve.lifecycle.ask import ask
from adapterhub.serve.metrics.families import PREFIX

_SECONDS = 5.0


@dataclass(slots=True)
class VersionFigures:
    """Those of one version, over all references that mean it. `first_token` are cumulative
    counts by upper bound in seconds."""

    requests: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    in_flight: int = 0
    waiting: int = 0
    tier: str = ""
    first_token: dict[float, float] = field(default_factory=dict)


@dataclass(slots=True)
class Reading:
    """What a server said at one time (monotonic seconds); the version "" is what no version
    answered."""

    time: float
    versions: dict[str, VersionFigures]

    @property
    def requests(self) -> int:
        """Every request for a model that ended."""
        return sum(figures.requests for figures in self.versions.values())

    @property
    def resident(self) -> list[str]:
        """The versions that answer without being read from disk."""
        found = self.versions.items()
        return sorted(version for version, f in found if f.tier in ("slot", "cpu"))


_NUMBERS = {
    "prompt_tokens_total": "prompt_tokens",
    "generated_tokens_total": "generated_tokens",
    "requests_in_flight": "in_flight",
    "requests_waiting": "waiting",
}


def read_metrics(url: str, key: str) -> Reading | None:
    """Ask the server whose API is at `url`; None where it does not answer, or has no figures."""
    content = ask(url.removesuffix("/v1") + "/metrics", key, _SECONDS)
    return None if content is None else parse_metrics(content.decode())


def parse_metrics(text: str) -> Reading:
    """The text of `/metrics`, of which only our own figures are read."""
    from prometheus_client.parser import text_string_to_metric_families

    reading = Reading(time.monotonic(), {})
    own = "\n".join(line for line in text.splitlines() if line.startswith(PREFIX)) + "\n"
    for family in text_string_to_metric_families(own):
        for sample in family.samples:
            name = sample.name.removeprefix(PREFIX)
            version = sample.labels.get("version")
            if version is None:
                continue
            figures = reading.versions.setdefault(version, VersionFigures())
            if name in _NUMBERS:
                field_name = _NUMBERS[name]
                setattr(figures, field_name, getattr(figures, field_name) + int(sample.value))
            elif name == "requests_total":
                figures.requests += int(sample.value)
                figures.refused += int(sample.value) * (sample.labels["status"] >= "400")
            elif name == "first_token_seconds_bucket":
                bound = float(sample.labels["le"])
                figures.first_token[bound] = figures.first_token.get(bound, 0.0) + sample.value
            elif name == "resident":
                figures.tier = sample.labels["tier"]
    return reading


def quantile(share: float, buckets: dict[float, float]) -> float | None:
    """The value below which `share` of what was counted lies, by linear interpolation in its
    bucket, as Prometheus does; None where nothing was counted."""
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    wanted = share * buckets[bounds[-1]]
    below, start = 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= wanted and count > below:
            # What lies beyond the last bound is only known to do so.
            if bound == float("inf"):
                return start
            return start + (bound - start) * (wanted - below) / (count - below)
        below, start = count, bound
    return start
