"""What `adz merge` prints: the merge and its error, and with --dry-run what is known before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from adapterhub.cli.output import format_table

if TYPE_CHECKING:
    from adapterhub.merge.diagnostics import Diagnosis
    from adapterhub.merge.prediction import Prediction
    from adapterhub.merge.result import MergeResult

# Below this an error is rounding, and which modules have most of it says nothing.
_ROUNDING = 1e-6


def describe_merge(result: MergeResult) -> str:
    """A merge that was done, or with --dry-run one that would be."""
    return "\n".join(_lines(result))


def _lines(result: MergeResult) -> Iterator[str]:
    parts = [f"{a} * {w:.6g}" for a, w in zip(result.adapters, result.weights, strict=True)]
    facts = {**({"scale": f"{result.scale:.6g}"} if result.scale != 1 else {}), **result.options}
    options = "".join(f", {key} {value}" for key, value in facts.items())
    yield f"{result.rule} of {' + '.join(parts)} (space {result.space}{options})"
    yield (
        f"{result.modules} modules, rank {result.rank}, {result.parameters / 1e6:,.2f}M parameters"
    )
    measured = "Frobenius" if result.error_of == "weights" else "of the outputs"
    if result.relative_error is not None:
        yield f"relative error {result.relative_error:.3g} ({measured}, all modules)"
        yield from _largest(result.relative_error, result.largest)
    if result.diagnosis:
        yield from _diagnosis(result.diagnosis)
    if result.prediction:
        yield from _prediction(result.prediction, measured)
    if result.version:
        yield f"{result.version.reference}  {result.version.digest}"
    elif result.directory:
        yield str(result.directory)


def _largest(error: float, largest: Sequence[tuple[str, float]]) -> Iterator[str]:
    if error >= _ROUNDING:
        yield from (f"  {error:.3g}  {module}" for module, error in largest)


def _diagnosis(found: Diagnosis) -> Iterator[str]:
    total = max(found.norms)
    rows = [
        (adapter, f"{norm:.4g}", f"{norm / total:.1%}" if total else "-", f"{weight:.4g}", modules)
        for adapter, norm, weight, modules in zip(
            found.adapters, found.norms, found.weights, found.modules, strict=True
        )
    ]
    yield ""
    yield format_table(("adapter", "norm", "of the largest", "weight", "modules"), rows)
    yield ""
    yield format_table(
        ("pair", "cosine", "inputs shared", "outputs shared", "opposite signs"),
        list(_pairs(found)),
    )
    inputs, outputs = found.chance
    yield (
        f"by chance two share {inputs:.1%} of the inputs' space and {outputs:.1%} of the outputs', "
        f"and half the signs differ"
    )
    yield (
        f"opposite signs take {found.cancelled:.1%} of the weighted sum's magnitude away "
        f"(signs: a sample of {found.sampled:,} elements)"
    )
    yield ""
    energies = ", ".join(f"{share:.1%} in {rank}" for share, rank in found.ranks.items())
    yield f"the weighted sum's energy by rank, the most that a module needs: {energies}"
    tail = ", ".join(f"{error:.2g} at {rank}" for rank, error in found.tail.items())
    yield f"its relative error by rank, exact: {tail}"


def _pairs(found: Diagnosis) -> Iterator[tuple[str, ...]]:
    count = len(found.adapters)
    for i in range(count):
        for j in range(i + 1, count):
            yield (
                f"{found.adapters[i]}, {found.adapters[j]}",
                f"{found.cosine[i][j]:+.3f}",
                f"{found.inputs[i][j]:.1%}",
                f"{found.outputs[i][j]:.1%}",
                f"{found.conflict[i][j]:.1%}",
            )


def _prediction(found: Prediction, measured: str) -> Iterator[str]:
    yield ""
    yield f"this merge's relative error would be {found.error:.3g} ({measured}, {found.source})"
    yield from _largest(found.error, found.largest)
    if found.by_rank:
        ranks = ", ".join(f"{error:.2g} at {rank}" for rank, error in found.by_rank.items())
        yield f"  with another --rank: {ranks}"
