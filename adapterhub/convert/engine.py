"""Factoring the modules: threads with one BLAS thread each, so that the bytes never depend on
how many there are."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch

from adapterhub.convert.factors import ModuleFactors
from adapterhub.errors import AdzError
from adapterhub.protocols import Progress

Job = Callable[[], ModuleFactors]


def run_jobs(
    jobs: Mapping[str, Job], *, workers: int | None, progress: Progress
) -> dict[str, ModuleFactors]:
    """Run a job for each module; the results by module name."""

    def run(module: str) -> ModuleFactors:
        factors = jobs[module]()
        if not (torch.isfinite(factors.a).all() and torch.isfinite(factors.b).all()):
            raise AdzError(f"{module} holds NaN or infinity", "train it again")
        bar.advance()
        return factors

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(
        workers or os.cpu_count() or 1, initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        with progress.task(f"converting {len(jobs)} modules", len(jobs)) as bar:
            return dict(zip(sorted(jobs), pool.map(run, sorted(jobs)), strict=True))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
