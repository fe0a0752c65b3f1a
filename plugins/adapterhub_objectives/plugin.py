"""The objectives as descriptors."""

from __future__ import annotations

from collections.abc import Iterable

from adapterhub import hookimpl, specs

_NEEDS = ("torch", "transformers", "trl")
_HINT = "pip install 'adapterhub[train]'"


@hookimpl
def adapterhub_objectives() -> Iterable[specs.Objective]:
    """What is trained."""
    yield specs.Objective(
        name="sft",
        summary="Supervised fine-tuning: the likelihood of the completions",
        impl="adapterhub_objectives.sft:Sft",
        requires=_NEEDS,
        install_hint=_HINT,
    )
    yield specs.Objective(
        name="dpo",
        summary="Direct preference optimisation: better answers over worse ones",
        impl="adapterhub_objectives.dpo:Dpo",
        config="adapterhub_objectives.options:DpoOptions",
        requires=_NEEDS,
        install_hint=_HINT,
        kinds=("preference",),
    )
    yield specs.Objective(
        name="orpo",
        summary="Odds ratio preference optimisation: dpo and sft in one, without a reference",
        impl="adapterhub_objectives.orpo:Orpo",
        config="adapterhub_objectives.options:OrpoOptions",
        requires=_NEEDS,
        install_hint=_HINT,
        kinds=("preference",),
    )
    yield specs.Objective(
        name="kto",
        summary="Kahneman-Tversky optimisation: answers that were judged good or bad",
        impl="adapterhub_objectives.kto:Kto",
        config="adapterhub_objectives.options:KtoOptions",
        requires=_NEEDS,
        install_hint=_HINT,
        kinds=("unpaired_preference",),
        likelihood=False,
    )
    yield specs.Objective(
        name="reward",
        summary="A reward model from pairs, for grpo and rloo",
        impl="adapterhub_objectives.reward:Reward",
        config="adapterhub_objectives.options:RewardOptions",
        requires=_NEEDS,
        install_hint=_HINT,
        kinds=("preference",),
        likelihood=False,
    )
    yield from _online()


def _online() -> Iterable[specs.Objective]:
    yield specs.Objective(
        name="grpo",
        summary="Group relative policy optimisation: own answers by their rewards",
        impl="adapterhub_objectives.grpo:Grpo",
        config="adapterhub_objectives.options:GrpoOptions",
        requires=_NEEDS,
        install_hint=_HINT,
        kinds=("prompt", "supervised"),
        generates=True,
        likelihood=False,
    )
    yield specs.Objective(
        name="rloo",
        summary="REINFORCE leave-one-out: own answers by their rewards",
        impl="adapterhub_objectives.rloo:Rloo",
        config="adapterhub_objectives.options:RlooOptions",
        requires=_NEEDS,
        install_hint=_HINT,
        kinds=("prompt", "supervised"),
        generates=True,
        likelihood=False,
    )
    yield specs.Objective(
        name="ppo",
        summary="Not available: see rloo",
        impl="adapterhub_objectives.rloo:Rloo",
        kinds=(),
        unavailable="TRL no longer has PPO, which needs a second model for values; rloo reaches "
        "as much without one: --objective rloo",
    )
