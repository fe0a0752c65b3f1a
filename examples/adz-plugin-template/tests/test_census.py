"""The command `adz census`."""

from __future__ import annotations

from adapterhub.testing import CommandConformance


class TestCensus(CommandConformance):
    """What every command promises."""

    name = "census"


def test_it_counts(adz, tiny_adapters):
    assert adz("census").out == "tiny  3\n"
    assert adz("census", "--json").out == '{"tiny": 3}\n'
