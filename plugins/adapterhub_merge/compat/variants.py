"""Which rules peers have, and how theirs differ. No torch here: descriptors are light."""

from __future__ import annotations

from typing import Any

from adapterhub.specs import Variant

_HERE = "adapterhub_merge.compat"
# PEFT's names without `_svd` work on the factors; the space `svd` is those with it.
_PEFT: dict[str, Any] = {"peer": "peft", "spaces": ("factors", "svd"), "kind": "spectral"}
# A full model has no rank.
_MERGEKIT: dict[str, Any] = {"peer": "mergekit", "spaces": ("dense",), "default_rank": "sum"}
_TRIM: dict[str, Any] = {"parameters": ("density",)}
_DRAW: dict[str, Any] = {"parameters": ("density", "seed"), "default_density": 0.5}

VARIANTS: dict[str, tuple[Variant, ...]] = {
    "linear": (
        Variant(**_PEFT, impl="adapterhub_merge.linear:linear"),
        Variant(
            **_MERGEKIT,
            impl=f"{_HERE}.mergekit:task_arithmetic",
            config=f"{_HERE}.options:Mergekit",
        ),
    ),
    "cat": (
        Variant(
            peer="peft",
            impl="adapterhub_merge.linear:linear",
            spaces=("concat",),
            default_rank="sum",
        ),
    ),
    "ties": (
        Variant(**_PEFT, **_TRIM, impl=f"{_HERE}.peft:ties", config=f"{_HERE}.options:PeftSign"),
        Variant(
            **_MERGEKIT,
            **_TRIM,
            kind="spectral",
            impl=f"{_HERE}.mergekit:ties",
            config=f"{_HERE}.options:MergekitTies",
        ),
        Variant(
            peer="paper",
            spaces=("dense",),
            default_rank="sum",
            **_TRIM,
            weighted=False,
            impl=f"{_HERE}.paper:global_ties",
        ),
    ),
    "dare": (
        Variant(**_PEFT, **_DRAW, impl=f"{_HERE}.peft:dare_linear"),
        Variant(
            **_MERGEKIT,
            **_DRAW,
            kind="spectral",
            impl=f"{_HERE}.mergekit:dare_linear",
            config=f"{_HERE}.options:MergekitDare",
        ),
    ),
    "dare_ties": (
        Variant(
            **_PEFT, **_DRAW, impl=f"{_HERE}.peft:dare_ties", config=f"{_HERE}.options:PeftSign"
        ),
        Variant(
            **_MERGEKIT,
            **_DRAW,
            kind="spectral",
            impl=f"{_HERE}.mergekit:dare_ties",
            config=f"{_HERE}.options:MergekitDare",
        ),
    ),
    "magnitude_prune": (Variant(**_PEFT, **_TRIM, impl=f"{_HERE}.peft:magnitude_prune"),),
    "breadcrumbs": (
        Variant(
            **_MERGEKIT,
            **_TRIM,
            kind="spectral",
            impl=f"{_HERE}.mergekit:breadcrumbs",
            config=f"{_HERE}.options:MergekitBreadcrumbs",
        ),
    ),
    "della": (
        Variant(
            **_MERGEKIT,
            **_DRAW,
            kind="spectral",
            impl=f"{_HERE}.mergekit:della",
            config=f"{_HERE}.options:MergekitDella",
        ),
    ),
}
"""Rule to its variants, one a peer."""
