"""Hooks of the merge rules and spaces that we ship."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adapterhub import hookimpl, specs
from adapterhub_merge.compat.variants import VARIANTS

_TORCH: dict[str, Any] = {"requires": ("torch",), "install_hint": "pip install 'adapterhub[merge]'"}


@hookimpl
def adapterhub_merge_spaces() -> Iterator[specs.MergeSpace]:
    """The coordinates in which rules run."""
    yield specs.MergeSpace(
        name="concat",
        summary="The factors beside each other, as they are",
        impl="adapterhub_merge.concat:concat",
        ranks="sum",
        **_TORCH,
    )
    yield specs.MergeSpace(
        name="core",
        summary="Shared orthonormal bases of all factors: small, exact for sums",
        impl="adapterhub_merge.core:core",
        ranks="up-to-sum",
        **_TORCH,
    )
    yield specs.MergeSpace(
        name="ctm",
        summary="Subspaces of the result's rank, shared by all adapters (Compress then Merge)",
        impl="adapterhub_merge.ctm:ctm",
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
        name="factors",
        summary="The factors A and B, each by itself, as PEFT merges (--compat peft)",
        impl="adapterhub_merge.compat.factors:factors",
        ranks="equal",
        **_TORCH,
    )
    yield specs.MergeSpace(
        name="inputs",
        summary="Each update on its own inputs, which training has to measure",
        impl="adapterhub_merge.inputs:inputs",
        ranks="up-to-sum",
        moments=True,
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
        name="pico",
        summary="The core, with directions that many adapters share calibrated (Pico)",
        impl="adapterhub_merge.pico:pico",
        ranks="up-to-sum",
        **_TORCH,
    )
    yield specs.MergeSpace(
        name="svd",
        summary="The elements of the weight updates, and a full SVD (--compat peft)",
        impl="adapterhub_merge.compat.svd:svd",
        ranks="up-to-full",
        **_TORCH,
    )


@hookimpl
def adapterhub_merge_rules() -> Iterator[specs.MergeRule]:
    """Ways to combine adapters."""
    yield specs.MergeRule(
        name="breadcrumbs",
        summary="The weighted sum without the smallest elements and the outliers",
        impl="adapterhub_merge.breadcrumbs:breadcrumbs",
        config="adapterhub_merge.options:Breadcrumbs",
        spaces=("knots", "core", "dense"),
        default_rank="sum",
        parameters=("density",),
        compat=VARIANTS["breadcrumbs"],
        **_TORCH,
    )
    yield specs.MergeRule(
        name="cat",
        summary="The weighted sum as concatenated factors: exact, not compressed",
        impl="adapterhub_merge.linear:linear",
        spaces=("concat",),
        default_rank="sum",
        compat=VARIANTS["cat"],
        **_TORCH,
    )
    yield specs.MergeRule(
        name="dare",
        summary="The weighted sum after dropping elements at random (dare_linear)",
        impl="adapterhub_merge.dare:dare",
        spaces=("core", "knots", "dense"),
        default_rank="sum",
        parameters=("density", "seed"),
        default_density=0.5,
        compat=VARIANTS["dare"],
        **_TORCH,
    )
    yield specs.MergeRule(
        name="dare_ties",
        summary="Drop at random, elect a sign, average those that agree",
        impl="adapterhub_merge.dare_ties:dare_ties",
        spaces=("core", "knots", "ctm", "dense"),
        default_rank="sum",
        parameters=("density", "seed"),
        default_density=0.5,
        negative_weights=False,
        compat=VARIANTS["dare_ties"],
        **_TORCH,
    )
    yield specs.MergeRule(
        name="della",
        summary="Drop at random, the small ones rather, elect a sign, average",
        impl="adapterhub_merge.della:della",
        config="adapterhub_merge.options:Della",
        spaces=("core", "knots", "dense"),
        default_rank="sum",
        parameters=("density", "seed"),
        default_density=0.5,
        negative_weights=False,
        compat=VARIANTS["della"],
        **_TORCH,
    )
    yield specs.MergeRule(
        name="iso-c",
        summary="The weighted sum with a flat spectrum",
        impl="adapterhub_merge.iso_c:iso_c",
        kind="spectral",
        spaces=("core",),
        default_rank="sum",
        **_TORCH,
    )
    yield specs.MergeRule(
        name="iso-cts",
        summary="A flat spectrum in common and task-specific subspaces",
        impl="adapterhub_merge.iso_cts:iso_cts",
        config="adapterhub_merge.options:IsoCts",
        kind="spectral",
        spaces=("core",),
        default_rank="sum",
        **_TORCH,
    )
    yield specs.MergeRule(
        name="linear",
        summary="The weighted sum: exact, or the best of a smaller rank",
        impl="adapterhub_merge.linear:linear",
        spaces=("core", "dense"),
        default_rank="sum",
        compat=VARIANTS["linear"],
        **_TORCH,
    )
    yield specs.MergeRule(
        name="magnitude_prune",
        summary="The weighted sum of each adapter's largest elements",
        impl="adapterhub_merge.magnitude_prune:magnitude_prune",
        spaces=("core", "knots", "dense"),
        default_rank="sum",
        parameters=("density",),
        default_density=0.5,
        compat=VARIANTS["magnitude_prune"],
        **_TORCH,
    )
    yield specs.MergeRule(
        name="pico",
        summary="The weighted sum, directions that many adapters share counting less",
        impl="adapterhub_merge.linear:linear",
        spaces=("pico",),
        default_rank="sum",
        **_TORCH,
    )
    yield specs.MergeRule(
        name="regmean",
        summary="The least error of the outputs, each adapter on its own inputs (RegMean)",
        impl="adapterhub_merge.linear:linear",
        config="adapterhub_merge.options:Regmean",
        spaces=("inputs",),
        default_rank="sum",
        negative_weights=False,
        **_TORCH,
    )
    yield specs.MergeRule(
        name="slerp",
        summary="Two adapters, interpolated on the arc between them",
        impl="adapterhub_merge.slerp:slerp",
        kind="pairwise",
        spaces=("core",),
        default_rank="sum",
        negative_weights=False,
        **_TORCH,
    )
    yield specs.MergeRule(
        name="ties",
        summary="Trim, elect a sign, average those that agree",
        impl="adapterhub_merge.ties:ties",
        spaces=("core", "knots", "ctm", "dense"),
        default_rank="sum",
        parameters=("density",),
        negative_weights=False,
        compat=VARIANTS["ties"],
        **_TORCH,
    )
    yield specs.MergeRule(
        name="tsv",
        summary="The adapters' singular vectors, made orthogonal to each other (TSV-Merge)",
        impl="adapterhub_merge.tsv:tsv",
        kind="spectral",
        spaces=("pico", "core"),
        default_rank="sum",
        parameters=("density",),
        default_density=1.0,
        **_TORCH,
    )
