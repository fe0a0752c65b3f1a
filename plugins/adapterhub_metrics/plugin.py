"""The metrics that come with adapterhub."""

from __future__ import annotations

from collections.abc import Iterator

from adapterhub import hookimpl, specs


@hookimpl
def adapterhub_metrics() -> Iterator[specs.Metric]:
    """Metrics of whole answers."""
    yield specs.Metric(
        name="exact_match",
        summary="1 when answer and reference are equal but for outer white space",
        impl="adapterhub_metrics.exact_match:exact_match",
    )
    yield specs.Metric(
        name="contains",
        summary="1 when the answer contains the reference",
        impl="adapterhub_metrics.contains:contains",
    )
    yield specs.Metric(
        name="chrf",
        summary="How many character n-grams the answer shares with the reference (chrF)",
        impl="adapterhub_metrics.chrf:chrf",
        requires=("sacrebleu",),
        install_hint="pip install 'adapterhub[eval]'",
    )
