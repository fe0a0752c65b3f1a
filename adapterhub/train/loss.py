"""The loss over completions. Logits are computed where a completion is predicted, only there.

With a vocabulary of 49 thousand tokens the last layer of a small model costs a fifth of a
step, and most positions are prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from adapterhub.train.batches import Batch, Collator
from adapterhub.train.rows import IGNORED, Rows
from adapterhub.train.tree import ATTENTION, TokenTree, plant


def completion_loss(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The summed negative log-likelihood in nats (a scalar with a gradient) and the number of
    scored tokens.

    batch: input_ids, attention_mask, labels, each (rows, length) int64.
    """
    if getattr(_unwrapped(model).config, "_attn_implementation", None) == ATTENTION:
        tree = plant(batch, share=not (model.training and has_dropout(model)))
        (loss,) = tree_losses(model, (tree,))
        return loss, torch.tensor(len(tree.targets), device=loss.device)
    losses, scored = _token_losses(model, batch)
    return losses.sum(), scored.sum()


def answer_log_probs(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """How likely each row's scored tokens are together: (rows,) float32 nats, with a gradient."""
    losses, scored = _token_losses(model, batch)
    sums = torch.zeros(len(scored), device=losses.device)
    return sums.index_add(0, scored.nonzero()[:, 0], -losses)


def last_logits(model: torch.nn.Module, batch: Batch, tokens: int = 1) -> torch.Tensor:
    """The logits after each of a row's last tokens, of all where it has fewer than `tokens`:
    (sum of these over the rows, vocabulary) float32, with a gradient."""
    mask = batch["attention_mask"]
    width, left = mask.shape[1], mask.flip(1).cumsum(1).flip(1)
    last = (mask > 0) & (left <= tokens)
    with _only_scored(model, lambda hidden: hidden[:, -width:][last]):
        output = model(input_ids=batch["input_ids"], attention_mask=mask, use_cache=False)
    logits: torch.Tensor = output.logits.float()
    return logits


def _token_losses(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Nats of each scored token, row by row, and where they are: (rows, length - 1) bool."""
    targets = batch["labels"][:, 1:]
    scored = targets != IGNORED

    def select(hidden: torch.Tensor) -> torch.Tensor:
        # Virtual tokens may stand in front; those are counted off from the end.
        return hidden[:, -scored.shape[1] - 1 : -1][scored]

    with _only_scored(model, select):
        output = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        )
    return cross_entropy(output.logits.float(), targets[scored], reduction="none"), scored


def tree_losses(model: torch.nn.Module, trees: Sequence[TokenTree]) -> list[torch.Tensor]:
    """The summed negative log-likelihood of each tree in nats, from one forward pass.

    The model's attention is that of trees (`speed.quickened`).
    """
    ids = torch.cat([tree.ids for tree in trees])[None]
    positions = torch.cat([tree.positions for tree in trees])[None]
    begins = [0]
    for tree in trees:
        begins.append(begins[-1] + len(tree.ids))
    predictors = torch.cat([b + t.predictors for b, t in zip(begins, trees, strict=False)])
    with _only_scored(model, lambda hidden: hidden[0].index_select(0, predictors)):
        output = model(
            input_ids=ids, position_ids=positions, use_cache=False, token_trees=tuple(trees)
        )
    parts = output.logits.split([len(t.predictors) for t in trees])
    return [
        cross_entropy(logits.float(), tree.targets, reduction="sum")
        for logits, tree in zip(parts, trees, strict=True)
    ]


def has_dropout(model: torch.nn.Module) -> bool:
    """Whether some layer drops numbers at random while training."""
    return any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules())


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
def _only_scored(model: torch.nn.Module, select: Any) -> Iterator[None]:
    """Within the block the output layer gets only the hidden states that predict a scored
    token: (scored tokens, hidden) instead of (rows, length, hidden).

    A hook, because it holds for every architecture and for methods that put virtual tokens in
    front.
    """
    head: Any = _unwrapped(model).get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda module, inputs: (select(inputs[0]),))
    try:
        yield
    finally:
        handle.remove()


def _unwrapped(model: torch.nn.Module) -> Any:
    """The model itself where several processes train it (DistributedDataParallel)."""
    parallel = torch.nn.parallel.DistributedDataParallel
    return model.module if isinstance(model, parallel) else model
