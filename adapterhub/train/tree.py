"""Rows without padding, and without computing a shared beginning twice.

The rows of a batch are laid out as one tree of tokens: rows that begin alike share the nodes of
what they share, so that every layer but attention sees each distinct prefix once and no padding.
A row's last token predicts nothing and is no node. Causal attention makes this exact: a state
depends on the tokens before it alone. Attention itself runs over the nodes under a mask where
they are few, else over the rows, gathered from the nodes. (Prefix trees in training: Wang et al.,
Tree Training, arXiv:2511.00413.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from adapterhub.train.batches import Batch
from adapterhub.train.rows import IGNORED

ATTENTION = "adapterhub_tree"
"""The name under which transformers finds the attention of a tree."""

FEW_NODES = 1024
"""Up to so many nodes attention runs over all pairs of them: a few large products in the place of
many small ones, and nothing is kept twice for the backward pass."""


@dataclass(frozen=True, slots=True)
class TokenTree:
    """A batch of rows as nodes.

    ids, positions: (nodes,) int64. rows: (rows, longest) int64, the node at each position of a
    row; padding holds node 0. places: (nodes,) where in the flattened `rows` a node first
    stands. again, again_nodes: the other places of shared nodes, and whose they are. predictors,
    targets: (scored,) the nodes that predict a scored token, and the token. seen: (nodes, nodes)
    bool, the nodes on each node's way from the root, itself included; None of many nodes.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    rows: torch.Tensor
    places: torch.Tensor
    again: torch.Tensor
    again_nodes: torch.Tensor
    predictors: torch.Tensor
    targets: torch.Tensor
    seen: torch.Tensor | None = None


def plant(batch: Batch, *, share: bool = True) -> TokenTree:
    """The tree of a batch that is padded on the right. Without `share` every row is a branch of
    its own from the root on: dropout has to differ from row to row."""
    device = batch["input_ids"].device
    lengths = (batch["attention_mask"].sum(dim=1) - 1).clamp_min(1).tolist()
    ids, labels = batch["input_ids"].tolist(), batch["labels"].tolist()
    longest = max(lengths)
    known: dict[tuple[int, int], int] = {}
    tokens: list[int] = []
    parents: list[int] = []
    positions: list[int] = []
    places: list[int] = []
    again: list[tuple[int, int]] = []
    scored: list[tuple[int, int]] = []
    rows = [[0] * longest for _ in lengths]
    for number, length in enumerate(lengths):
        node = -1 if share else -1 - number
        for position in range(length):
            key = (node, ids[number][position])
            place = number * longest + position
            node = known.setdefault(key, len(tokens))
            if node == len(tokens):
                tokens.append(key[1])
                parents.append(max(key[0], -1))
                positions.append(position)
                places.append(place)
            else:
                again.append((place, node))
            rows[number][position] = node
            if labels[number][position + 1] != IGNORED:
                scored.append((node, labels[number][position + 1]))
    whole = [tokens, positions, rows, places]
    whole += [[pair[side] for pair in pairs] for pairs in (again, scored) for side in (0, 1)]
    tree = TokenTree(*(torch.tensor(x, dtype=torch.int64, device=device) for x in whole))
    return replace(tree, seen=_ways(parents).to(device)) if len(tokens) <= FEW_NODES else tree


def _ways(parents: Sequence[int]) -> torch.Tensor:
    """The nodes on each node's way from the root: (nodes, nodes) bool. A parent stands before
    its children; that of a first token is -1."""
    seen = np.zeros((len(parents), len(parents)), dtype=bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            seen[node] = seen[parent]
        seen[node, node] = True
    return torch.from_numpy(seen)


class _Gather(torch.autograd.Function):
    """(nodes, width) -> (places, width), a node wherever it stands."""

    @staticmethod
    def forward(ctx: Any, nodes: torch.Tensor, tree: TokenTree) -> torch.Tensor:
        ctx.tree = tree
        return nodes.index_select(0, tree.rows.flatten())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        # Padding attends to rows and is attended by nothing: it has no gradient.
        tree: TokenTree = ctx.tree
        result = gradients[0].index_select(0, tree.places)
        if len(tree.again):
            result.index_add_(0, tree.again_nodes, gradients[0].index_select(0, tree.again))
        return result, None


class _Pick(torch.autograd.Function):
    """(places, width) -> (nodes, width), from where a node first stands."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, tree: TokenTree) -> torch.Tensor:
        ctx.tree, ctx.places = tree, rows.shape[0]
        return rows.index_select(0, tree.places)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        result = gradients[0].new_zeros((ctx.places, gradients[0].shape[1]))
        return result.index_copy_(0, ctx.tree.places, gradients[0]), None


# `apply` has no types.
_gather: Any = _Gather.apply
_pick: Any = _Pick.apply


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    token_trees: tuple[TokenTree, ...],
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: query, key, value (1, heads, nodes, width of a head).

    Several trees stand one after the other. Raises NotImplementedError for what only a model's
    own attention knows (capped scores, sinks).
    """
    if options.pop("softcap", None) is not None or options.get("s_aux") is not None:
        raise NotImplementedError("capped scores and attention sinks")
    begin, parts = 0, []
    for tree in token_trees:
        end = begin + len(tree.ids)
        states = [part[:, :, begin:end] for part in (query, key, value)]
        if tree.seen is None:
            laid = [_lay_out(part[0], tree) for part in states]
            mask = _window(tree.rows.shape[1], sliding_window, query.device)
            output, _ = sdpa_attention_forward(module, *laid, mask, **options)
            parts.append(_pick(output.flatten(2).flatten(0, 1), tree))
        else:
            mask = _mask(tree.seen, tree.positions, sliding_window)
            output, _ = sdpa_attention_forward(module, *states, mask, **options)
            parts.append(output[0].flatten(1))
        begin = end
    joined = parts[0] if len(parts) == 1 else torch.cat(parts)
    return joined.view(1, begin, query.shape[1], -1), None


def _lay_out(states: torch.Tensor, tree: TokenTree) -> torch.Tensor:
    """(heads, nodes, width) -> (rows, heads, longest, width)."""
    heads, _, width = states.shape
    flat = _gather(states.transpose(0, 1).reshape(-1, heads * width), tree)
    laid: torch.Tensor = flat.view(*tree.rows.shape, heads, width).transpose(1, 2)
    return laid


def _mask(seen: torch.Tensor, positions: torch.Tensor, window: int | None) -> torch.Tensor:
    """(1, 1, nodes, nodes) bool: which nodes a node attends to."""
    if window is not None:
        seen = seen & (positions[:, None] - positions < window)
    return seen[None, None]


def _window(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """(1, 1, length, length) bool where a sliding window hides a part; else None: causal."""
    if window is None or window >= length:
        return None
    whole = torch.ones(length, length, dtype=torch.bool, device=device)
    return whole.tril().triu(1 - window)[None, None]


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, tree_attention)
# Rows are causal by themselves; there is no mask over nodes.
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, lambda *_, **__: None)
