"""The method `full` as a descriptor."""

from __future__ import annotations

from collections.abc import Iterable

from adapterhub import hookimpl, specs


@hookimpl
def adapterhub_methods() -> Iterable[specs.Method]:
    """It makes a base, so none of an adapter's facts hold."""
    yield specs.Method(
        name="full",
        summary="Every weight of the base: the result is a new base",
        impl="adapterhub_full.full:Full",
        config="adapterhub_full.options:FullOptions",
        requires=("torch", "transformers"),
        install_hint="pip install 'adapterhub[train]'",
        storage="base",
        quantizers=(),
        quantizer_reason="it trains the weights themselves, which must be plain floats",
    )
