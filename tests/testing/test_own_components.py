"""Every component that we ship passes the conformance class of its kind."""

from __future__ import annotations

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
        given = values.get(name.replace("-", "_"), {})
        return type(f"Test_{name}", (base,), {"name": name, **given})

    own = [p for p in load_plugins().provided(base.kind) if p.plugin.distribution == "adapterhub"]
    return {f"Test{base.kind.__name__}_{p.component.name}": build(p.component.name) for p in own}


# regmean's weights stand on both sides of a quotient.
globals().update(each(MergeRuleConformance, regmean={"homogeneous": False}))
# The spaces of peers (factors, svd) are reached by --compat alone.
PEERS = {"rule": None, "absent_seen": False}
globals().update(
    each(
        MergeSpaceConformance,
        concat={"rule": "cat"},
        ctm={"rule": "ties", "compresses_first": True},
        factors={**PEERS, "linear": False, "calls": 2},
        inputs={"rule": "regmean", "linear": False},
        knots={"rule": "ties"},
        pico={"rule": "pico", "linear": False},
        svd=PEERS,
    )
)
globals().update(each(MethodConformance))
globals().update(each(QuantizerConformance))
globals().update(each(MetricConformance))


class TestObjectiveSft(ObjectiveConformance):
    """The one that learns from any rows."""

    name = "sft"


TURNS = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi there"}]
FORMATS = {
    "messages": ([{"messages": TURNS}], [{"messages": TURNS[:1]}]),
    "alpaca": ([{"instruction": "Greet", "input": "", "output": "Hi"}], [{"instruction": "Greet"}]),
    "prompt_completion": ([{"prompt": "Greet", "completion": " Hi"}], [{"prompt": "Greet"}]),
    "text": ([{"text": "Once upon a time"}], [{"text": ""}]),
}


class TestRemoteFiles(RemoteConformance):
    """A directory; other file systems have tests of their own."""

    name = "files"

    def url(self, folder):
        return (folder / "share").as_uri()


class TestEngineTransformers(EngineConformance):
    """vLLM takes a minute to start, and has the tests of tests/serve."""

    name = "transformers"


def _format(name, rows, broken):
    return type(f"TestFormat_{name}", (FormatConformance,), {
        "name": name, "rows": rows, "broken": broken,
    })  # fmt: skip


globals().update({f"TestFormat_{n}": _format(n, *given) for n, given in FORMATS.items()})
