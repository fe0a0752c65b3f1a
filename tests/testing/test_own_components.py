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


def each(base, *, without=(), **values):
    """A test class a component of the kind, `without` some; `values` are class attributes, by
    name."""

    def build(name):
        given = values.get(name.replace("-", "_"), {})
        return type(f"Test_{name}", (base,), {"name": name, **given})

    own = [p for p in load_plugins().provided(base.kind) if p.plugin.distribution == "adapterhub"]
    names = [p.component.name for p in own]
    assert set(without) <= set(names)
    return {
        f"Test{base.kind.__name__}_{name}": build(name) for name in names if name not in without
    }


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
# Options that the tiny base is wide enough for.
globals().update(
    each(
        MethodConformance,
        without={
            # Each has tests of its own in tests/peft.
            "loftq": "it needs a base that is held quantised",
            "trainable_tokens": "its tokens must be those of the rows",
            "pissa": "it takes its beginning out of the base while it trains",
            **dict.fromkeys(("adamss", "boft", "shira", "unilora"), "it refuses a dry run"),
        },
        c3a={"options": {"block_size": 16}},
        road={"options": {"group_size": 16}},
        vblora={"options": {"num_vectors": 8, "vector_length": 16}},
        waveft={"options": {"n_frequency": 50}},
    )
)
LIBRARIES = ("torchao", "hqq", "gptq", "awq")
globals().update(
    each(QuantizerConformance, without=dict.fromkeys(LIBRARIES, "its library is not installed"))
)
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
