"""The one rank of a merge: as it was asked for, within what is possible and what is served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from adapterhub.errors import AdzError, usage_error
from adapterhub.merge.engine import ModuleMerger, one_thread_each, over_modules
from adapterhub.merge.lora import LoraAdapter
from adapterhub.merge.plan import Choice, Shapes, shape
from adapterhub.merge.recipe import MergeRecipe
from adapterhub.merge.silent import Silent

# vLLM 0.32, LoRAConfig.max_lora_rank; the smaller ranks there (1, 2, 4) are no use to a merge.
SERVED_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
# What float32 factors lose of a squared norm.
_ROUNDING = 1e-6


def find_shapes(recipe: MergeRecipe, choice: Choice, adapters: Sequence[LoraAdapter]) -> Shapes:
    """The modules and the rank of the result, which is found by merging for `energy=`.

    Usage errors: a rank above the possible, or above all that vLLM serves.
    """
    share = recipe.energy
    shapes = shape(choice, adapters, recipe.rank if share is None else None)
    if share is not None:
        most = min(shapes.possible, SERVED_RANKS[-1])
        if choice.space.ranks in ("sum", "equal"):
            raise usage_error(
                f"the rank of space {choice.space.name!r} is {shapes.rank}, not energy={share:g}",
                "--linear compresses to any rank",
            )
        shapes = replace(shapes, rank=_energy_rank(recipe, choice, shapes, adapters, share, most))
    if shapes.rank > SERVED_RANKS[-1]:
        raise usage_error(
            f"rank {shapes.rank} is above {SERVED_RANKS[-1]}, the highest that vLLM serves",
            f"--linear --rank {SERVED_RANKS[-1]} compresses",
        )
    if recipe.round_rank:
        return replace(shapes, rank=next(r for r in SERVED_RANKS if r >= shapes.rank))
    return shapes


def _energy_rank(
    recipe: MergeRecipe,
    choice: Choice,
    shapes: Shapes,
    adapters: Sequence[LoraAdapter],
    share: float,
    most: int,
) -> int:
    """The smallest rank that keeps `share` of the squared norm of every module."""
    merger = ModuleMerger(choice, shapes, adapters, recipe.seed)

    def needed(module: str) -> int:
        merged = merger.merge(module, most)
        left = torch.linalg.qr(merged.b.double(), mode="r").R
        right = torch.linalg.qr(merged.a.double().T, mode="r").R
        kept = torch.linalg.svdvals(left @ right.T).square().cumsum(0)
        enough = kept >= share * (1 - _ROUNDING) * merged.norm**2
        if not enough.any():
            raise AdzError(
                f"{module}: rank {most} keeps {kept[-1].item() / merged.norm**2:.1%} of its "
                f"squared norm, not {share:.1%}",
                "ask for less, or give --rank as a number",
            )
        return int(enough.int().argmax()) + 1

    with one_thread_each():
        merger.survey()
        return max(over_modules(needed, shapes.modules, recipe.workers, Silent(), ""))
