"""The method `bottleneck` as a descriptor."""

from __future__ import annotations

from collections.abc import Iterable

from adapterhub import hookimpl, specs


@hookimpl
def adapterhub_methods() -> Iterable[specs.Method]:
    """A non-linear layer is no update of a weight: neither mergeable nor a LoRA."""
    yield specs.Method(
        name="bottleneck",
        summary="Adapter layers of Houlsby, Pfeiffer or in parallel: down, non-linearity, up",
        impl="adapterhub_bottleneck.method:Bottleneck",
        config="adapterhub_bottleneck.options:BottleneckOptions",
        requires=("torch", "transformers", "safetensors"),
        install_hint="pip install 'adapterhub[train]'",
        storage="own",
        quantizers=(),
        quantizer_reason="over a quantised base transformers trains only what PEFT attached",
    )
