"""Batches of token rows, and the order in which rows come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from adapterhub.train.row_store import IGNORED, Row

Batch = dict[str, torch.Tensor]


class Collator:
    """Pads rows on the right: input_ids, attention_mask, labels, each (rows, longest) int64."""

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, rows: Sequence[Row]) -> Batch:
        longest = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), longest), self.pad)
        mask = torch.zeros((len(rows), longest), dtype=torch.int64)
        labels = torch.full((len(rows), longest), IGNORED)
        for index, row in enumerate(rows):
            length = len(row.ids)
            ids[index, :length] = torch.tensor(row.ids)
            mask[index, :length] = 1
            labels[index, :length] = torch.tensor(row.labels)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class Shuffled(torch.utils.data.Sampler[int]):
    """A random order of `rows` rows.

    Depends on the seed and the epoch alone: a resumed run sees the rows that an unbroken one
    would have seen.
    """

    def __init__(self, rows: int, seed: int) -> None:
        self.rows = rows
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer at the start of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        yield from self.order(generator)

    def order(self, generator: torch.Generator) -> Iterator[int]:
        """The rows of this epoch."""
        yield from torch.randperm(self.rows, generator=generator).tolist()


class LengthGroups(Shuffled):
    """An order in which rows of a batch are about equally long, so that little is padding.

    Such batches are no fair samples of the rows: an adapter may learn less from as many steps (see
    docs/training-speed.md).
    """

    # Within so many batches rows are sorted by length: padding falls, and the order stays random.
    WINDOW = 50

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        super().__init__(len(lengths), seed)
        self.lengths = lengths
        self.batch_size = batch_size

    def order(self, generator: torch.Generator) -> Iterator[int]:
        """The rows of this epoch, batch after batch."""
        order = list(super().order(generator))
        size = self.batch_size * self.WINDOW
        batches = []
        for begin in range(0, len(order), size):
            window = sorted(order[begin : begin + size], key=self.lengths.__getitem__)
            batches += [
                window[i : i + self.batch_size] for i in range(0, len(window), self.batch_size)
            ]
        # Only the last batch may be short: the Trainer cuts the order every `batch_size` rows.
        whole = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [batch for batch in batches if len(batch) < self.batch_size]
        for place in torch.randperm(len(whole), generator=generator).tolist():
            yield from whole[place]
        for batch in rest:
            yield from batch
