"""PEFT's methods as descriptors."""

from __future__ import annotations

from collections.abc import Iterable

from adapterhub import hookimpl, specs
from adapterhub_peft.catalogue import entries


@hookimpl
def adapterhub_methods() -> Iterable[specs.Method]:
    """The facts are PEFT's and vLLM's, each of them tested."""
    for name, entry in entries().items():
        facts = dict(entry.facts)
        needs = facts.pop("requires", ())
        yield specs.Method(
            name=name,
            summary=entry.summary,
            impl=f"adapterhub_peft.{entry.impl}",
            config=f"adapterhub_peft.options:{name}",
            requires=("torch", "transformers", "peft", *needs),
            install_hint="pip install 'adapterhub[train]'",
            forecast=f"adapterhub_peft.forecast:{entry.forecast}" if entry.forecast else None,
            quantizers=entry.quantizers,
            quantizer_reason=entry.quantizer_reason,
            **facts,
        )
