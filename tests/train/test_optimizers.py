"""`training.optimizer`: those of bitsandbytes, and what they refuse on a CPU."""

from __future__ import annotations

import bitsandbytes
import pytest
import torch

from adapterhub.errors import AdzError
from adapterhub.train.recipe import TrainingOptions
from adapterhub.train.trainer import OPTIMIZERS


def test_eight_bits_train_on_a_cpu_with_a_state_of_bytes(trained, monkeypatch):
    seen = []
    kept = bitsandbytes.optim.AdamW.step
    monkeypatch.setattr(
        bitsandbytes.optim.AdamW, "step", lambda self, *a: (kept(self, *a), seen.append(self))[0]
    )
    facts = trained(training={"optimizer": "adamw_8bit", "max_steps": 6}).manifest.metrics
    assert facts["holdout_loss"] < facts["holdout_loss_base"]
    states = [state["state1"].dtype for state in seen[0].state.values()]
    # Small ones, below 4096 numbers, stay in float32.
    assert set(states) <= {torch.uint8, torch.float32}


@pytest.mark.parametrize("name", ["paged_adamw", "paged_adamw_8bit"])
def test_a_paged_one_is_refused_without_a_gpu(name, plan_for):
    """bitsandbytes itself warns and takes one that is not paged."""
    with pytest.raises(AdzError, match=f"{name} moves its state .* there is no GPU") as caught:
        plan_for(training={"optimizer": name})
    assert "adamw_8bit" in caught.value.hint


def test_every_name_is_one_of_transformers():
    from transformers.training_args import OptimizerNames

    assert set(OPTIMIZERS.values()) <= {name.value for name in OptimizerNames}
    known = TrainingOptions.model_fields["optimizer"].annotation.__args__
    assert set(known) == set(OPTIMIZERS)
