"""Running the rule over the modules: threads with one BLAS thread each, one module at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import cast

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
    plugins = load_plugins()
    rule = cast("MergeRule", plugins.load_implementation(choice.rule))
    space = cast("MergeSpace", plugins.load_implementation(choice.space))
    weights = torch.tensor(choice.weights, dtype=torch.float32)
    options = dict(choice.options)

    def read(module: str) -> list[Factors]:
        return [adapter.factors(module, shapes.modules[module]) for adapter in adapters]

    def merge_one(module: str) -> ModuleError:
        try:
            merged = space(
                read(module),
                weights,
                rule,
                options,
                rank=shapes.rank,
                seed=seed,
                module=module,
                whole=choice.rule.kind != "elementwise",
            )
        except torch.linalg.LinAlgError:
            raise _not_finite(choice, module) from None
        merged = _scaled(merged, choice.scale)
        if not (is_finite(merged.a) and is_finite(merged.b)):
            raise _not_finite(choice, module)
        writer.write(module, merged)
        return ModuleError(module, merged.error, merged.norm)

    # BLAS threads fight with each other and with the workers, so a worker has one. More cores
    # are used by more workers, over modules.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(
        workers or os.cpu_count() or 1, initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        if isinstance(rule, SurveyingRule):
            options.update(rule.survey(lambda: map(read, shapes.modules), options))
        with progress.task(f"merging {len(shapes.modules)} modules", len(shapes.modules)) as bar:
            # The largest first: no worker is left alone with a large one at the end.
            order = sorted(shapes.modules, key=lambda name: -_size(shapes.modules[name]))
            futures = [pool.submit(merge_one, module) for module in order]
            errors = []
            for future in as_completed(futures):
                errors.append(future.result())
                bar.advance()
            return sorted(errors, key=lambda error: error.module)
    finally:
        pool.shutdown(cancel_futures=True)
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
