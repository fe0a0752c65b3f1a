"""The loss over completions. Logits are computed where a completion is predicted, only there.

With a vocabulary of 49 thousand tokens the last layer of a small model costs a fifth of a
step, and most positions are prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from adapterhub.train.rows import IGNORED, Batch, Collator, Rows


def completion_loss(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The summed negative log-likelihood in nats (a scalar with a gradient) and the number of
    scored tokens.

    batch: input_ids, attention_mask, labels, each (rows, length) int64.
    """
    targets = batch["labels"][:, 1:]
    scored = targets != IGNORED
    with _only_scored(model, scored):
        output = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        )
    loss = cross_entropy(output.logits.float(), targets[scored], reduction="sum")
    return loss, scored.sum()


@torch.no_grad()
def mean_loss(model: torch.nn.Module, rows: Rows, collate: Collator, batch_size: int) -> float:
    """Nats a scored token over `rows`, in evaluation mode; the model's mode is restored."""
    device = next(model.parameters()).device
    ordered = sorted(rows, key=lambda row: len(row.ids))
    total, count = 0.0, 0
    with evaluating(model):
        for begin in range(0, len(ordered), batch_size):
            batch = collate(ordered[begin : begin + batch_size])
            loss, tokens = completion_loss(model, {k: v.to(device) for k, v in batch.items()})
            total += loss.item()
            count += int(tokens)
    return total / max(count, 1)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode within the block."""
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)


@contextmanager
def _only_scored(model: torch.nn.Module, scored: torch.Tensor) -> Iterator[None]:
    """Within the block the output layer gets only the hidden states that predict a scored
    token: (scored tokens, hidden) instead of (rows, length, hidden).

    A hook, because it holds for every architecture and for methods that put virtual tokens in
    front; those are counted off from the end.
    """
    head: Any = model.get_output_embeddings()  # type: ignore[operator]

    def select(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        (hidden,) = inputs
        return (hidden[:, -scored.shape[1] - 1 : -1][scored],)

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()
