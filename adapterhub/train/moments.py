"""The second moments of what goes into each adapted module: E[x x^T], as a sketch.

A streaming Nystroem sketch (Tropp, Yurtsever, Udell and Cevher, arXiv:1706.05736): G Omega is
summed up batch by batch, so that memory is a few hundred numbers for each of a module's inputs
and never n x n. The sketch never exceeds G, and the diagonal makes up for what it leaves out, so
that the diagonal of G is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch

from adapterhub.bases.modules import PREFIX
from adapterhub.moments import MeasuredMoments
from adapterhub.protocols import InputMoments, Progress
from adapterhub.train.batches import Batch
from adapterhub.train.loss import completion_loss, evaluating
from adapterhub.train.run import Run

ROWS = 256
"""At most so many training rows are looked at."""

# The test matrix is so many times wider than the sketch: the error is then near the best one.
_OVERSAMPLING = 4


class MomentSketch:
    """Takes in vectors of `width` numbers and gives their second moment, of rank `rank`."""

    def __init__(self, width: int, rank: int) -> None:
        self._rank = min(rank, width)
        columns = min(width, _OVERSAMPLING * rank)
        generator = torch.Generator().manual_seed(width)
        noise = torch.randn(width, columns, generator=generator, dtype=torch.float64)
        self._test: torch.Tensor = torch.linalg.qr(noise).Q
        self._product = torch.zeros(width, columns, dtype=torch.float64)
        self._diagonal = torch.zeros(width, dtype=torch.float64)
        self._count = 0

    def add(self, vectors: torch.Tensor) -> None:
        """vectors: (tokens, width), of any float type, on any device."""
        x = vectors.float()
        test = self._test.to(x.device, x.dtype)
        self._product += (x.T @ (x @ test)).cpu()
        self._diagonal += x.square().sum(dim=0).cpu()
        self._count += x.shape[0]

    def moments(self) -> InputMoments:
        """The mean of x x^T. The sketch holds numbers that bfloat16 can."""
        product, diagonal = (s / max(self._count, 1) for s in (self._product, self._diagonal))
        # A shift by the noise of float32, taken off again below, keeps the Cholesky factor real.
        shift = torch.linalg.matrix_norm(product).item() * torch.finfo(torch.float32).eps
        shift = max(shift, torch.finfo(torch.float64).tiny)
        shifted = product + shift * self._test
        core = self._test.T @ shifted
        factor = torch.linalg.cholesky((core + core.T) / 2)
        half = torch.linalg.solve_triangular(factor.T, shifted, upper=True, left=False)
        u, s, _ = torch.linalg.svd(half, full_matrices=False)
        values = (s[: self._rank].square() - shift).clamp_min(0)
        sketch = (values.sqrt()[:, None] * u[:, : self._rank].T).bfloat16().float()
        remainder = diagonal - sketch.double().square().sum(dim=0)
        return InputMoments(sketch, remainder.clamp_min(0).float())


@torch.no_grad()
def measure_moments(run: Run, progress: Progress) -> None:
    """Fill in `run.moments` and the fact `input_moments`, with the trained adapter in the model.

    One pass over a sample of the training rows. Counted is each token that a next one is
    predicted from: no padding, and not a row's last.
    """
    rank = run.recipe.training.input_moments or 0
    watch = _Watch(rank)
    tokens = 0
    batches = _batches(run)
    with (
        evaluating(run.model),
        watch.over(run.model, run.layers),
        progress.task("measuring input moments", len(batches)) as bar,
    ):
        for batch in batches:
            watch.counted = _counted(batch)
            tokens += int(watch.counted.sum())
            completion_loss(run.model, batch)
            bar.advance()
    moments = {name: sketch.moments() for name, sketch in watch.sketches.items()}
    run.moments = MeasuredMoments(moments, watch.inputs)
    run.facts["input_moments"] = {
        "rank": rank,
        "rows": sum(len(batch["input_ids"]) for batch in batches),
        "tokens": tokens,
        "modules": len(watch.inputs),
        "bytes": run.moments.bytes,
    }


def _batches(run: Run) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    sample = torch.randperm(len(run.train_rows), generator=generator)[:ROWS].tolist()
    rows = sorted((run.train_rows[index] for index in sample), key=lambda row: len(row.ids))
    size = run.recipe.training.batch_size
    batches = [run.collate(rows[begin : begin + size]) for begin in range(0, len(rows), size)]
    return [{key: value.to(run.device) for key, value in batch.items()} for batch in batches]


def _counted(batch: Batch) -> torch.Tensor:
    """(rows, length) bool: the positions after which another token stands."""
    counted = torch.zeros_like(batch["attention_mask"], dtype=torch.bool)
    counted[:, :-1] = batch["attention_mask"][:, 1:].bool()
    return counted


class _Watch:
    """Puts what goes into each layer into a sketch. Layers that read the very same tensor one
    after the other share one."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.counted = torch.zeros(0, 0, dtype=torch.bool)
        self.sketches: dict[str, MomentSketch] = {}
        self.inputs: dict[str, str] = {}
        self._last: tuple[torch.Tensor | None, str] = (None, "")

    @contextmanager
    def over(self, model: torch.nn.Module, layers: Iterable[str]) -> Iterator[None]:
        """Within the block every forward pass counts."""
        handles = [
            model.get_submodule(layer).register_forward_pre_hook(
                partial(self._see, layer.removeprefix(PREFIX))
            )
            for layer in layers
        ]
        try:
            yield
        finally:
            self._last = (None, "")
            for handle in handles:
                handle.remove()

    def _see(self, name: str, layer: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        x = given[0]
        # Embeddings read ids, experts a choice of the tokens: neither has moments of its own.
        if x.shape[:-1] != self.counted.shape or not x.is_floating_point():
            return
        if x is not self._last[0]:
            self._last = (x, name)
            if name not in self.sketches:
                self.sketches[name] = MomentSketch(x.shape[-1], self.rank)
            self.sketches[name].add(x[self.counted])
        self.inputs[name] = self._last[1]
