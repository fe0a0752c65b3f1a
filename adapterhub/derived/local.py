"""What `adz run`, `adz eval` and Python do with an expression where no server is asked."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.derived.build import make
from adapterhub.derived.wanted import LARGEST_RANK, wanted_merge
from adapterhub.expression import is_expression, parse_expression
from adapterhub.manifest import Version
from adapterhub.protocols import Derivations, Progress, Registry
from adapterhub.reference import is_directory_reference


def with_merges_made(
    registry: Registry, references: Sequence[str], progress: Progress
) -> tuple[str, ...]:
    """The references, each expression among them replaced by the version that it means."""
    return tuple(
        text
        if is_directory_reference(text) or not is_expression(text)
        else _merged(registry, text, progress).reference
        for text in references
    )


def _merged(registry: Registry, text: str, progress: Progress) -> Version:
    """Raises AdzError for a malformed expression, an unknown name, or a merge that fails."""
    expression = parse_expression(text)
    references = [term.reference for term in expression.terms]
    versions = {reference: registry.resolve(reference) for reference in references}
    wanted = wanted_merge(expression, versions, LARGEST_RANK)
    version = make(wanted, registry, Derivations(merge_error=float("inf")), progress)
    error = version.manifest.metrics.get("relative_error") or 0.0
    progress.note(f"{text} is {version.reference}, relative error {error:.2g}")
    return version
