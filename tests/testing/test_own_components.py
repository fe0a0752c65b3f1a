"""Every component that we ship passes the conformance class of its kind."""

from __future__ import annotations

import pytest

from adapterhub.plugins import load_plugins
from adapterhub.testing import (
    EngineConformance,
    FormatConformance,
    MergeRuleConformance,
    MergeSpaceConformance,
    MethodConformance,
    MetricConformance,
    ObjectiveConformance,
    QuantizerConformance,
    RemoteConformance,
)


def each(base, **values):
    """A test class a component of the kind; `values` are class attributes, by name."""

    def build(name):
        return type(f"Test_{name}", (base,), {"name": name, **values.get(name.replace("-", "_"), {})})

    own = [p for p in load_plugins().provided(base.kind) if p.plugin.distribution == "adapterhub"]
    return {f"Test{base.kind.__name__}_{p.component.name}": build(p.component.name) for p in own}


# regmean's weights stand on both sides of a quotient.
globals().update(each(MergeRuleConformance, regmean={"homogeneous": False}))
globals().update(
    each(
        MergeSpaceConformance,
        concat={"rule": "linear"},
    )
)
globals().update(each(MethodConformance))
globals().update(each(QuantizerConformance))
globals().update(each(MetricConformance))
