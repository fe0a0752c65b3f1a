"""Hooks of the merge rules and spaces that we ship."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adapterhub import hookimpl, specs

_TORCH: dict[str, Any] = {"requires": ("torch",), "install_hint": "pip install 'adapterhub[merge]'"}


@hookimpl
def adapterhub_merge_spaces() -> Iterator[specs.MergeSpace]:
    """The coordinates in which rules run."""
    yield specs.MergeSpace(
        name="core",
        summary="Shared orthonormal bases of all factors: small, exact for sums",
        impl="adapterhub_merge.core:core",
        ranks="up-to-sum",
        **_TORCH,
    )
    yield specs.MergeSpace(
        name="dense",
        summary="The elements of the weight updates, module by module",
        impl="adapterhub_merge.dense:dense",
        ranks="up-to-full",
        **_TORCH,
    )
    yield specs.MergeSpace(
        name="knots",
        summary="The right singular vectors of the updates side by side (KnOTS)",
        impl="adapterhub_merge.knots:knots",
        ranks="up-to-sum",
        **_TORCH,
    )
    yield specs.MergeSpace(
        name="concat",
        summary="The factors beside each other, as they are",
        impl="adapterhub_merge.concat:concat",
        ranks="sum",
        **_TORCH,
    )


@hookimpl
def adapterhub_merge_rules() -> Iterator[specs.MergeRule]:
    """Ways to combine adapters."""
    yield specs.MergeRule(
        name="linear",
        summary="The weighted sum: exact, or the best of a smaller rank",
        impl="adapterhub_merge.linear:linear",
        spaces=("core", "dense"),
        default_rank="sum",
        **_TORCH,
    )
    yield specs.MergeRule(
        name="cat",
        summary="The weighted sum as concatenated factors: exact, not compressed",
        impl="adapterhub_merge.linear:linear",
        spaces=("concat",),
        default_rank="sum",
        **_TORCH,
    )
    yield specs.MergeRule(
        name="ties",
        summary="Trim, elect a sign, average those that agree",
        impl="adapterhub_merge.ties:ties",
        spaces=("dense", "knots", "core"),
        default_rank="sum",
        parameters=("density",),
        negative_weights=False,
        **_TORCH,
    )
    yield specs.MergeRule(
        name="dare",
        summary="The weighted sum after dropping elements at random (dare_linear)",
        impl="adapterhub_merge.dare:dare",
        spaces=("dense", "knots", "core"),
        default_rank="sum",
        parameters=("density", "seed"),
        default_density=0.5,
        **_TORCH,
    )
