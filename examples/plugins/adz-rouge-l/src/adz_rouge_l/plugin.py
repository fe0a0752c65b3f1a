"""What this plugin offers. Many commands import it, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from adapterhub import hookimpl, specs


@hookimpl
def adapterhub_metrics() -> Iterator[specs.Metric]:
    """`adz eval --metric rouge_l`"""
    yield specs.Metric(
        name="rouge_l",
        summary="The longest common subsequence of words (ROUGE-L)",
        impl="adz_rouge_l.rouge_l:rouge_l",
    )
