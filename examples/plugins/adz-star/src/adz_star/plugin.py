"""What this plugin offers. Many commands import it, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from adapterhub import hookimpl, specs


@hookimpl
def adapterhub_merge_rules() -> Iterator[specs.MergeRule]:
    """`adz merge --star a b c`"""
    yield specs.MergeRule(
        name="star",
        summary="Spectra truncated and rescaled before they are added (STAR)",
        impl="adz_star.star:star",
        config="adz_star.star_options:StarOptions",
        kind="spectral",
        spaces=("core",),
        default_rank="sum",
        requires=("torch",),
        install_hint="pip install 'adapterhub[merge]'",
    )
