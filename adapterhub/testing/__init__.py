"""What the tests of a plugin need: a tiny base, fixtures, and conformance classes.

The fixtures (`adapterhub.testing.fixtures`) are a pytest plugin that comes with adapterhub.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterhub.testing.tiny import write_tiny_base

if TYPE_CHECKING:
    from adapterhub.testing.conformance.command import CommandConformance
    from adapterhub.testing.conformance.engine import EngineConformance
    from adapterhub.testing.conformance.format import FormatConformance
    from adapterhub.testing.conformance.merge_rule import MergeRuleConformance
    from adapterhub.testing.conformance.merge_space import MergeSpaceConformance
    from adapterhub.testing.conformance.method import MethodConformance
    from adapterhub.testing.conformance.metric import MetricConformance
    from adapterhub.testing.conformance.objective import ObjectiveConformance
    from adapterhub.testing.conformance.quantizer import QuantizerConformance
    from adapterhub.testing.conformance.remote import RemoteConformance

# Loaded on first use: the fixtures are in every run of pytest, torch is in few.
_HOMES = {
    "CommandConformance": "command",
    "EngineConformance": "engine",
    "FormatConformance": "format",
    "MergeRuleConformance": "merge_rule",
    "MergeSpaceConformance": "merge_space",
    "MethodConformance": "method",
    "MetricConformance": "metric",
    "ObjectiveConformance": "objective",
    "QuantizerConformance": "quantizer",
    "RemoteConformance": "remote",
}

__all__ = [
    "CommandConformance",
    "EngineConformance",
    "FormatConformance",
    "MergeRuleConformance",
    "MergeSpaceConformance",
    "MethodConformance",
    "MetricConformance",
    "ObjectiveConformance",
    "QuantizerConformance",
    "RemoteConformance",
    "write_tiny_base",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'adapterhub.testing' has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f"adapterhub.testing.conformance.{_HOMES[name]}")
    return getattr(module, name)
