"""What merges one module of several adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class InputMoments:
    """The second moment of a module's inputs, E[x x^T] = sketch^T sketch + diag(diagonal).

    sketch: (k, n), diagonal: (n,), float32; measured over the adapter's training rows.
    """

    sketch: torch.Tensor
    diagonal: torch.Tensor


@dataclass(frozen=True, slots=True)
class Factors:
    """One module of one adapter: delta W = scale * B @ A.

    a: (r, n) and b: (m, r), float32 on the CPU; scale is alpha / r, or alpha / sqrt(r) for
    rsLoRA. A module that an adapter lacks has r = 0. moments: of the module's inputs, where they
    were recorded in training.
    """

    a: torch.Tensor
    b: torch.Tensor
    scale: float
    moments: InputMoments | None = None


class Coordinates(Protocol):
    """The block that an elementwise rule works on, and what it may ask about the whole.

    module: the module's name, as `survey` was told it.
    elements: the number of elements of the WHOLE module, for each adapter.
    """

    module: str
    elements: int

    def threshold(self, density: float) -> torch.Tensor:
        """`kth_largest` of max(1, int(density * elements)). Keep what is at least as large: equal
        magnitudes stay together."""

    def kth_largest(self, count: int) -> torch.Tensor:
        """(n,) float32: for each adapter the magnitude of the count-th largest element of the
        WHOLE module, not of this block; 1 is the largest, and count is at most `elements`."""

    def uniform(self, adapter: int) -> torch.Tensor:
        """Numbers in [0, 1) of the block's shape, from a counter-based generator keyed by
        seed, module, adapter and position: the same whatever the blocks or workers."""


class MergeRule(Protocol):
    """Combines the adapters of one module, in whatever coordinates the space gives."""

    def __call__(
        self,
        deltas: torch.Tensor,
        weights: torch.Tensor,
        coordinates: Coordinates,
        options: Mapping[str, Any],
    ) -> torch.Tensor:
        """deltas: (n, rows, cols) float32, unweighted; weights: (n,). Returns (rows, cols).

        An elementwise rule gets blocks of rows; a spectral or pairwise one the whole module at
        once. options: the parameters that the descriptor names, and the fields of its `config`.
        """


@runtime_checkable
class SurveyingRule(MergeRule, Protocol):
    """A rule that looks at all modules before the first is merged; `impl` names an instance."""

    def survey(
        self,
        modules: Callable[[], Iterable[tuple[str, Sequence[Factors]]]],
        weights: torch.Tensor,
        options: Mapping[str, Any],
    ) -> Mapping[str, Any]:
        """What it found, which is added to the options of every call; `--dry-run` asks too.

        modules: reads all modules again at each call, one at a time, always in the same order:
            name and factors, by adapter, as the adapters have them, whatever the space. An
            adapter without the module has rank 0 there.
        weights: (n,) float32, as every call gets them.
        """


@dataclass(frozen=True, slots=True)
class MergedModule:
    """A merged module: delta W = b @ a.

    a: (k, n) and b: (m, k), float32, k at most the rank that was asked for. `error` and `norm`
    are Frobenius norms: of what the compression lost, and of the rule's uncompressed result. In a
    space that measures by input moments they are the roots of the mean squared outputs instead.
    """

    a: torch.Tensor
    b: torch.Tensor
    error: float
    norm: float


class MergeSpace(Protocol):
    """Runs a rule on one module."""

    def __call__(
        self,
        operands: Sequence[Factors],
        weights: torch.Tensor,
        rule: MergeRule,
        options: Mapping[str, Any],
        *,
        rank: int,
        seed: int,
        module: str,
        whole: bool = False,
    ) -> MergedModule:
        """Merge the operands of `module` into at most `rank`.

        whole: the rule is spectral or pairwise, and is called once with all the coordinates; an
        elementwise one is called with blocks of rows.

        Every operand has the same (m, n), and at least one has r > 0. Memory is bounded by this
        one module. It is called from several threads at once, and the same arguments give the
        same bits.
        """
