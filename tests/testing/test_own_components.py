"""Every component that we ship passes the conformance class of its kind, or stands in one table
with the reason why not."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from adapterhub import specs
from adapterhub.plugins import is_installed, load_plugins
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
from adapterhub.testing.conformance.base import Conformance

ROOT = Path(__file__).resolve().parents[2]

REASONS: Mapping[tuple[type[specs.Component], str], str] = {
    (specs.Engine, "ray"): "it starts a cluster: tests/serve/ray",
    (specs.Engine, "vllm"): "it takes a minute to start, once for all of tests/serve/live",
    (
        specs.Objective,
        "ppo",
    ): "it is a name that says what to use: tests/train/objectives",
    (specs.Quantizer, "awq"): "it quantises no base",
    (specs.Quantizer, "gptq"): "it quantises no base",
    **{
        (specs.Quantizer, name): "its library is not installed"
        for name in ("hqq", "torchao")
        if not is_installed(name)
    },
    (specs.Registry, "local"): "the kit has no class for registries: tests/registry",
}
"""What no conformance class is run on, and where its tests are."""

ELSEWHERE = {
    (specs.Remote, "hub"): "tests/remotes/hub/test_conformance.py",
    (specs.Remote, "oci"): "tests/remotes/oci/test_conformance.py",
}
"""Classes that stand beside the servers that they need."""


def shipped(kind):
    """The names of our components of a kind."""
    found = load_plugins().provided(kind)
    return [p.component.name for p in found if p.plugin.distribution == "adapterhub"]


def each(base, **values):
    """A test class for each component of the kind that has none yet and no reason; `values` are
    class attributes, by name."""
    known = {*REASONS, *ELSEWHERE, *components(globals().values())}
    names = [name for name in shipped(base.kind) if (base.kind, name) not in known]
    assert values.keys() <= {name.replace("-", "_") for name in names}
    for name in names:
        title = f"Test{base.kind.__name__}_{name}"
        given = {"name": name, **values.get(name.replace("-", "_"), {})}
        globals()[title] = type(title, (base,), given)


def components(found: Iterable[object]):
    """The components of the conformance classes among some objects."""
    return {
        (one.kind, one.name)
        for one in found
        if isinstance(one, type) and issubclass(one, Conformance) and hasattr(one, "name")
    }


# regmean's weights stand on both sides of a quotient.
each(MergeRuleConformance, regmean={"homogeneous": False})
# The spaces of peers (factors, svd) are reached by --compat alone.
PEERS = {"rule": None, "absent_seen": False}
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
FROM_WEIGHTS = {"can_dry_run": False}
# Options that the tiny base is wide enough for.
each(
    MethodConformance,
    adamss={**FROM_WEIGHTS, "options": {"r": 8, "num_subspaces": 2}},
    boft=FROM_WEIGHTS,
    c3a={"options": {"block_size": 16}},
    # Its beginning, of a few rows, settles slowly at a high rank.
    eva={"options": {"r": 4}},
    loftq={"quantizer": "nf4"},
    pissa={"takes_from_base": True},
    road={"options": {"group_size": 16}},
    shira={**FROM_WEIGHTS, "options": {"r": 4}},
    # Letters of the kit's rows, `d` and `w`.
    trainable_tokens={"options": {"token_indices": [71, 90]}},
    unilora={**FROM_WEIGHTS, "options": {"theta_d_length": 64}},
    vblora={"options": {"num_vectors": 8, "vector_length": 16}},
    waveft={"options": {"n_frequency": 50}},
)
each(QuantizerConformance)
each(MetricConformance)


class OwnAnswers(ObjectiveConformance):
    """Of an objective that learns from its own answers, by a reward of another distribution."""

    options = {"rewards": [{"function": "sum-of-bytes"}], "max_answer": 8}

    @pytest.fixture(autouse=True)
    def reward(self, tmp_path, monkeypatch):
        info = tmp_path / "site" / "adz_rewards-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Name: adz-rewards\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            "[adapterhub.rewards]\nsum-of-bytes = adz_sum_of_bytes:reward\n"
        )
        (info.parent / "adz_sum_of_bytes.py").write_text(
            "def reward(examples, answers):\n"
            "    return [sum(answer.encode()) % 97 / 97 for answer in answers]\n"
        )
        monkeypatch.syspath_prepend(str(info.parent))


class TestObjectiveGrpo(OwnAnswers):
    name = "grpo"


class TestObjectiveRloo(OwnAnswers):
    name = "rloo"


each(ObjectiveConformance)

USER, ASSISTANT = {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi there"}
RUDE = {"role": "assistant", "content": "What?"}
# The tiny base's chat template shows no tools.
each(
    FormatConformance,
    messages={
        "rows": [{"messages": [USER, ASSISTANT]}, {"messages": [USER, RUDE, USER, ASSISTANT]}],
        "broken": [{"messages": [USER]}],
    },
    sharegpt={
        "rows": [
            {
                "conversations": [
                    {"from": "human", "value": "Hello"},
                    {"from": "gpt", "value": "Hi there"},
                ],
                "system": "Be kind.",
            }
        ],
        "broken": [
            {"conversations": [{"from": "human", "value": "Hello"}]},
            {"conversations": [{"from": "nobody", "value": "Hello"}]},
        ],
    },
    alpaca={
        "rows": [{"instruction": "Greet", "input": "", "output": "Hi"}],
        "broken": [{"instruction": "Greet"}],
    },
    prompt_completion={
        "rows": [{"prompt": "Greet", "completion": " Hi"}],
        "broken": [{"prompt": "Greet"}],
    },
    text={"rows": [{"text": "Once upon a time"}], "broken": [{"text": ""}]},
    preference={
        "rows": [
            {"prompt": "Greet", "chosen": " Hi there", "rejected": " What?"},
            {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [RUDE]},
            {"chosen": [USER, ASSISTANT], "rejected": [USER, RUDE]},
        ],
        "broken": [
            {"prompt": "Greet", "chosen": " Hi", "rejected": " Hi"},
            {"chosen": "Hi", "rejected": "What?"},
            {"chosen": [USER, ASSISTANT], "rejected": [USER]},
        ],
        "arguments": ("--objective", "dpo"),
    },
    unpaired_preference={
        "rows": [
            {"prompt": "Greet", "completion": " Hi", "label": True},
            {"prompt": [USER], "completion": [RUDE], "label": False},
        ],
        "broken": [{"prompt": "Greet", "completion": " Hi", "label": "perhaps"}],
        "arguments": ("--objective", "kto"),
    },
    prompt={
        "rows": [{"prompt": "Greet"}, {"prompt": [USER]}],
        "broken": [{"prompt": ""}, {"prompt": [USER, ASSISTANT]}],
        "arguments": ("--objective", "grpo", "-o", "objective.rewards=[{function: any}]"),
    },
)


class TestRemoteFiles(RemoteConformance):
    """A directory; a bucket is one too in tests/remotes/test_s3.py."""

    name = "files"

    def url(self, folder):
        return (folder / "share").as_uri()


class TestEngineTransformers(EngineConformance):
    name = "transformers"


def test_every_component_is_tested_or_has_a_reason():
    kinds = [kind for kind in vars(specs).values() if _is_kind(kind)]
    ours = {(kind, name) for kind in kinds for name in shipped(kind)}
    tested = components(globals().values())
    for listed, file in ELSEWHERE.items():
        assert listed in components(vars(_load(ROOT / file)).values()), file
    assert not tested & {*REASONS, *ELSEWHERE}
    assert not ours - tested - {*REASONS, *ELSEWHERE}, "neither tested nor listed with a reason"
    assert not {*REASONS, *ELSEWHERE} - ours, "listed, and no longer there"


def _is_kind(found):
    return isinstance(found, type) and specs.Component in found.__bases__


def _load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
