"""A reward model by pairs (Bradley and Terry 1952; Stiennon et al. 2020).

The reward of an answer is the logit of the stop token after the answer, its own stop token
included. That needs no head of its own: the adapter is one like any other over the same base.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from adapterhub.data import encode, stop_token
from adapterhub.data.prompt import PromptFormat
from adapterhub.errors import usage_error
from adapterhub.models import compute_device, load_adapter, load_base, load_tokenizer
from adapterhub.plugins import open_registry
from adapterhub.protocols import Example
from adapterhub.train.batches import Batch, Collator
from adapterhub.train.loss import last_logits
from adapterhub.train.rows import Row, choose_pad
from adapterhub.train.run import Run
from adapterhub_objectives.answers import AnswersTrainer


class Reward:
    """The objective `reward`."""

    def trainer(self, run: Run) -> RewardTrainer:
        """A trainer over pairs."""
        return RewardTrainer(run)


class RewardTrainer(AnswersTrainer):
    """Gives the better answers the higher reward."""

    def compare(self, model: Any, batch: Batch) -> torch.Tensor:
        """The mean loss of the pairs."""
        options: Any = self.run.plan.objective_options
        stop = stop_token(self.run.tokenizer, self.run.plan.prompt_format)
        rewards = last_logits(model, batch)[:, stop]
        better, worse = rewards.chunk(2)
        self.tell_apart(better, worse)
        loss: torch.Tensor = -logsigmoid(better - worse).mean()
        center: float = options.center
        return loss + center * ((better + worse) ** 2).mean()


class AdapterReward:
    """The rewards that an adapter of the registry gives; it was trained by `reward`."""

    def __init__(self, reference: str) -> None:
        registry = open_registry()
        version = registry.resolve(reference)
        manifest = version.manifest
        if manifest.objective != "reward" or manifest.base.name is None:
            raise usage_error(
                f"{version.reference} gives no rewards: its objective is {manifest.objective}",
                "adz train --objective reward makes one that does",
            )
        base = registry.base(manifest.base.name)
        self._format: PromptFormat = manifest.prompt_format or "plain"
        self._tokenizer = load_tokenizer(base)
        self._stop: int = stop_token(self._tokenizer, self._format)
        self._collate = Collator(choose_pad(self._tokenizer, self._stop))
        model = load_base(base)
        self._model = load_adapter(model, version, registry.path(version)).to(compute_device())

    @torch.no_grad()
    def __call__(self, examples: Sequence[Example]) -> list[float]:
        """One reward for each question with its answer."""
        rows = []
        for example in examples:
            prompt, answer = encode(example, self._tokenizer, self._format, self._stop)
            rows.append(Row((*prompt, *answer), len(prompt)))
        device = next(self._model.parameters()).device
        batch = {key: value.to(device) for key, value in self._collate(rows).items()}
        rewards: list[float] = last_logits(self._model, batch)[:, self._stop].tolist()
        return rewards
