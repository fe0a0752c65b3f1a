"""What this plugin offers. It is read at every call of `adz`, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from adapterhub import hookimpl, specs


@hookimpl
def adapterhub_merge_rules() -> Iterator[specs.MergeRule]:
    """`adz merge --median a b c`"""
    yield specs.MergeRule(
        name="median",
        summary="The median of each element: one odd adapter cannot pull it away",
        impl="adz_plugin_template.median:median",
        spaces=("dense",),
        default_rank="sum",
        requires=("torch",),
        install_hint="pip install 'adapterhub[merge]'",
    )


@hookimpl
def adapterhub_methods() -> Iterator[specs.Method]:
    """`adz train --method bitfit`"""
    yield specs.Method(
        name="bitfit",
        summary="Train only a bias for each linear layer (arXiv:2106.10199)",
        impl="adz_plugin_template.bitfit:BitFit",
        config="adz_plugin_template.options:BitFitOptions",
        storage="own",
        quantizers=("round8",),
        quantizer_reason="a bias is added in the weight's own dtype",
        requires=("torch", "transformers", "safetensors"),
        install_hint="pip install 'adapterhub[train]'",
    )


@hookimpl
def adapterhub_quantizers() -> Iterator[specs.Quantizer]:
    """`adz train --quantizer round8`"""
    yield specs.Quantizer(
        name="round8",
        summary="Weights rounded to 8 bits a row: shows what 8 bits cost, saves no memory",
        impl="adz_plugin_template.round8:Round8",
        bits=8,
        requires=("torch",),
        install_hint="pip install 'adapterhub[train]'",
    )


@hookimpl
def adapterhub_metrics() -> Iterator[specs.Metric]:
    """`adz eval --metric word_f1`"""
    yield specs.Metric(
        name="word_f1",
        summary="Harmonic mean of precision and recall of the words",
        impl="adz_plugin_template.word_f1:word_f1",
    )
