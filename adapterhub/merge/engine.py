"""Running the rule over the modules: threads with one BLAS thread each, one module at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch

from adapterhub.errors import AdzError
from adapterhub.merge.lora import LoraAdapter, is_finite
from adapterhub.merge.output import AdapterWriter
from adapterhub.merge.plan import Choice, Shapes
from adapterhub.plugins import load_plugins
from adapterhub.protocols import (
    Factors,
    MergedModule,
    MergeRule,
    MergeSpace,
    Progress,
    SurveyingRule,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ModuleError:
    """Frobenius norms of a module: of what compression lost, and of the uncompressed result."""

    module: str
    error: float
    norm: float

    @property
    def relative(self) -> float:
        """error / norm; 0 where the result itself is zero."""
        return self.error / self.norm if self.norm else 0.0


class ModuleMerger:
    """Runs the chosen rule in the chosen space on one module, from any thread."""

    def __init__(
        self, choice: Choice, shapes: Shapes, adapters: Sequence[LoraAdapter], seed: int
    ) -> None:
        plugins = load_plugins()
        self._rule = cast("MergeRule", plugins.load_implementation(choice.rule))
        self._space = cast("MergeSpace", plugins.load_implementation(choice.space))
        self._choice = choice
        self._shapes = shapes
        self._adapters = adapters
        self._seed = seed
        self._weights = torch.tensor(choice.weights, dtype=torch.float32)
        self._options = dict(choice.options)

    def survey(self) -> None:
        """Let a rule that must see all modules first do so; before the first merge."""
        if isinstance(self._rule, SurveyingRule):
            found = self._rule.survey(self._read_all, self._weights, self._options)
            self._options.update(found)

    def _read_all(self) -> Iterator[tuple[str, Sequence[Factors]]]:
        return ((module, self.read(module)) for module in self._shapes.modules)

    def read(self, module: str) -> list[Factors]:
        """The module's factors, by adapter."""
        return [adapter.factors(module, self._shapes.modules[module]) for adapter in self._adapters]

    def merge(self, module: str, rank: int) -> MergedModule:
        """Merge the module into at most `rank`; AdzError where the result is not finite."""
        try:
            merged = self._space(
                self.read(module),
                self._weights,
                self._rule,
                self._options,
                rank=rank,
                seed=self._seed,
                module=module,
                whole=self._choice.rule.kind != "elementwise",
            )
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            raise _not_finite(self._choice, module) from None
        merged = _scaled(merged, self._choice.scale)
        if not (is_finite(merged.a) and is_finite(merged.b)):
            raise _not_finite(self._choice, module)
        return merged


def merge_modules(
    choice: Choice,
    shapes: Shapes,
    adapters: Sequence[LoraAdapter],
    writer: AdapterWriter,
    *,
    seed: int,
    workers: int | None,
    progress: Progress,
) -> list[ModuleError]:
    """Merge every module into `writer`; the errors by module name.

    Memory is bounded by one module for each worker. A module's result does not depend on which
    worker made it or on how many there are.
    """
    merger = ModuleMerger(choice, shapes, adapters, seed)

    def merge_one(module: str) -> ModuleError:
        merged = merger.merge(module, shapes.rank)
        writer.write(module, merged)
        return ModuleError(module, merged.error, merged.norm)

    with one_thread_each():
        merger.survey()
        description = f"merging {len(shapes.modules)} modules"
        return over_modules(merge_one, shapes.modules, workers, progress, description)


def over_modules(
    work: Callable[[str], T],
    modules: Mapping[str, tuple[int, int]],
    workers: int | None,
    progress: Progress,
    description: str,
) -> list[T]:
    """What `work` makes of every module, in the order of their names; in threads."""
    # The largest first: no worker is left alone with a large one at the end.
    order = sorted(modules, key=lambda name: -_size(modules[name]))
    pool = ThreadPoolExecutor(
        workers or os.cpu_count() or 1, initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        with progress.task(description, len(modules)) as bar:
            futures = {pool.submit(work, module): module for module in order}
            made = {}
            for future in as_completed(futures):
                made[futures[future]] = future.result()
                bar.advance()
            return [made[module] for module in sorted(made)]
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """One BLAS thread a worker, as they fight with each other and with the workers. More cores
    are used by more workers, over modules."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _size(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]


def _scaled(merged: MergedModule, scale: float) -> MergedModule:
    if scale == 1:
        return merged
    size = abs(scale)
    return MergedModule(merged.a, merged.b * scale, merged.error * size, merged.norm * size)


def _not_finite(choice: Choice, module: str) -> AdzError:
    return AdzError(
        f"the rule {choice.rule.name!r} made NaN or infinity of {module}",
        "is an adapter or a weight far too large?",
    )


def relative_error(errors: Sequence[ModuleError]) -> float:
    """The relative Frobenius error of all modules together."""
    norm = sum(e.norm**2 for e in errors) ** 0.5
    lost = sum(e.error**2 for e in errors) ** 0.5
    return float(lost / norm) if norm else 0.0
