"""Which methods train over which quantizers."""

from __future__ import annotations

from adapterhub import specs
from adapterhub.errors import usage_error
from adapterhub.plugins import load_plugins


def check_pair(method: specs.Method, quantizer: specs.Quantizer | None) -> None:
    """Raise AdzError, with the reason, where the method does not train over the quantizer."""
    if quantizer is None and method.needs_quantizer:
        works = ", ".join(method.quantizers or ())
        raise usage_error(
            f"the method {method.name} needs a base that is held quantised",
            f"--quantizer with one of {works}",
        )
    if quantizer is None or method.quantizers is None or quantizer.name in method.quantizers:
        return
    if method.name in quantizer.methods:
        return
    if method.quantizers and is_strange(method, quantizer):
        raise usage_error(
            f"nobody has tried {method.name} over {quantizer.name}",
            "the plugin's author may name it in specs.Quantizer.methods",
        )
    reason = f": {method.quantizer_reason}" if method.quantizer_reason else ""
    works = ", ".join(method.quantizers) or "none"
    raise usage_error(
        f"the method {method.name} does not work over {quantizer.name}{reason}",
        f"quantizers that it works with: {works}",
    )


def is_strange(method: specs.Method, quantizer: specs.Quantizer) -> bool:
    """Whether the quantizer is of a plugin that the method's author knew nothing of."""
    plugins = load_plugins()
    known = {"adapterhub", *plugins.versions_of(method)}
    return not plugins.versions_of(quantizer).keys() <= known
