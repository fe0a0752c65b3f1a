"""What this plugin offers. Many commands import it, so it imports nothing heavy."""

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
def adapterhub_merge_spaces() -> Iterator[specs.MergeSpace]:
    """`adz merge --linear --space full-svd a b`"""
    yield specs.MergeSpace(
        name="full-svd",
        summary="The elements of the weight updates, compressed by a full SVD",
        impl="adz_plugin_template.full_svd:full_svd",
        ranks="up-to-full",
        rules=("linear",),
        requires=("torch",),
        install_hint="pip install 'adapterhub[merge]'",
    )


@hookimpl
def adapterhub_methods() -> Iterator[specs.Method]:
    """`adz train --method bitfit`"""
    yield specs.Method(
        name="bitfit",
        summary="Train only a bias for each linear layer (arXiv:2106.10199)",
        impl="adz_plugin_template.bitfit:Bitfit",
        config="adz_plugin_template.bitfit_options:BitfitOptions",
        storage="own",
        quantizers=(),
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
        methods=("lora",),
        requires=("torch", "transformers"),
        install_hint="pip install 'adapterhub[train]'",
    )


@hookimpl
def adapterhub_objectives() -> Iterator[specs.Objective]:
    """`adz train --objective smooth`"""
    yield specs.Objective(
        name="smooth",
        summary="Fine-tuning with smoothed labels: no answer is wholly certain",
        impl="adz_plugin_template.smooth:Smooth",
        config="adz_plugin_template.smooth_options:SmoothOptions",
        requires=("torch", "transformers"),
        install_hint="pip install 'adapterhub[train]'",
    )


@hookimpl
def adapterhub_engines() -> Iterator[specs.Engine]:
    """`adz serve --engine echo`"""
    yield specs.Engine(
        name="echo",
        summary="Answers with the prompt and who was asked: for trying clients",
        impl="adz_plugin_template.echo:Echo",
        # Below every engine that has a model: it is never the default.
        priority=-100,
        requires=("fastapi", "uvicorn"),
        install_hint="pip install 'adapterhub[serve]'",
    )


@hookimpl
def adapterhub_formats() -> Iterator[specs.Format]:
    """`adz train --format paper`"""
    yield specs.Format(
        name="paper",
        summary="title, abstract and keywords: an abstract is learnt from the others",
        impl="adz_plugin_template.paper:Paper",
    )


@hookimpl
def adapterhub_remotes() -> Iterator[specs.Remote]:
    """`adz push sql --to readable:///folder`"""
    yield specs.Remote(
        name="readable",
        summary="A folder that you can read: readable:///path/NAME/TAG/",
        impl="adz_plugin_template.readable:Readable",
        schemes=("readable",),
    )


@hookimpl
def adapterhub_metrics() -> Iterator[specs.Metric]:
    """`adz eval --metric word_f1`"""
    yield specs.Metric(
        name="word_f1",
        summary="Harmonic mean of precision and recall of the words",
        impl="adz_plugin_template.word_f1:word_f1",
    )


@hookimpl
def adapterhub_commands() -> Iterator[specs.Command]:
    """`adz census`"""
    yield specs.Command(
        name="census",
        summary="Count the adapters of each base",
        impl="adz_plugin_template.census:census",
    )
