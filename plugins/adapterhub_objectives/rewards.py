"""Rewards of answers that a model gave: functions of plugins, and adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from adapterhub.entry_points import find_entry_points
from adapterhub.errors import AdzError, unknown_name
from adapterhub.protocols import Example
from adapterhub_objectives.options import RewardSource
from adapterhub_objectives.reward import AdapterReward

GROUP = "adapterhub.rewards"
"""Entry points of functions: `function(examples, answers) -> rewards`, a float for each.

`examples` are the rows that were asked, whose own answers may be compared with; `answers` are
the texts that the model gave.
"""


def make_reward(source: RewardSource, examples: Sequence[Example]) -> Callable[..., list[float]]:
    """The reward as TRL calls it: with `completions` and the column `index` into `examples`."""
    if source.adapter is not None:
        judge = AdapterReward(source.adapter)

        def score(asked: Sequence[Example], answers: Sequence[str]) -> list[float]:
            return judge([_answered(e, a) for e, a in zip(asked, answers, strict=True)])

    else:
        score = _function(source.function or "")

    def reward(completions: Sequence[Any], index: Sequence[int], **_: Any) -> list[float]:
        answers = [c if isinstance(c, str) else str(c[-1]["content"]) for c in completions]
        rewards = score([examples[i] for i in index], answers)
        if len(rewards) != len(answers):
            raise AdzError(
                f"the reward {source.function} gave {len(rewards)} rewards for "
                f"{len(answers)} answers"
            )
        return [float(value) for value in rewards]

    # TRL logs rewards under their function's name.
    reward.__name__ = source.function or str(source.adapter)
    return reward


def _function(name: str) -> Any:
    found = {entry.name: entry for entry in find_entry_points(GROUP)}
    if name not in found:
        raise unknown_name("reward function", name, found)
    return found[name].load()


def _answered(example: Example, answer: str) -> Example:
    if example.messages:
        last = {"role": "assistant", "content": answer}
        return replace(example, messages=(*example.messages[:-1], last))
    return replace(example, completion=answer)
