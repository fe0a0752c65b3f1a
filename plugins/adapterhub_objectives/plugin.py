"""The objectives as descriptors."""

from __future__ import annotations

from collections.abc import Iterable

from adapterhub import hookimpl, specs


@hookimpl
def adapterhub_objectives() -> Iterable[specs.Objective]:
    """What TRL trains."""
    yield specs.Objective(
        name="sft",
        summary="Supervised fine-tuning: the likelihood of the completions",
        impl="adapterhub_objectives.sft:Sft",
        requires=("torch", "transformers", "trl"),
        install_hint="pip install 'adapterhub[train]'",
    )
