"""What the model sees: token rows, their labels, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from adapterhub.data import encode, encode_rejected, encode_turns, stop_token
from adapterhub.data.prompt import PromptFormat
from adapterhub.errors import AdzError, usage_error
from adapterhub.protocols import Example
from adapterhub.train.row_store import IGNORED, Row, StoredRows, keep_rows

__all__ = [
    "IGNORED", "Batch", "Collator", "LengthGroups", "Row", "Rows", "Shuffled", "choose_pad",
    "make_rows",
]  # fmt: skip

Batch = dict[str, torch.Tensor]


class Rows(torch.utils.data.Dataset[Row]):
    """Rows as torch and transformers want them; `skipped` were longer than `max_length`."""

    def __init__(self, rows: Sequence[Row], skipped: int = 0) -> None:
        self.rows = rows
        self.skipped = skipped

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @property
    def lengths(self) -> Sequence[int]:
        """The tokens of each row, prompts included."""
        if isinstance(self.rows, StoredRows):
            return self.rows.lengths
        return [len(row.ids) for row in self.rows]

    @property
    def tokens(self) -> int:
        """All tokens, prompts included."""
        return sum(self.lengths)


def make_rows(
    examples: Sequence[Example],
    tokenizer: Any,
    prompt_format: PromptFormat,
    max_length: int,
    *,
    every_answer: bool = False,
) -> Rows:
    """Tokenise; a row longer than `max_length` is left out, never cut in silence.

    every_answer: of a chat all of the assistant's turns are scored, not the last alone. Many
    rows are kept on disk.
    """
    stop = stop_token(tokenizer, prompt_format)
    skipped = 0

    def tokenised() -> Iterator[Row]:
        nonlocal skipped
        for example in examples:
            if every_answer:
                row = _row_of_turns(example, tokenizer, prompt_format, stop)
            else:
                row = _row(example, tokenizer, prompt_format, stop)
            if max(len(row.ids), row.start + len(row.rejected)) > max_length:
                skipped += 1
            else:
                yield row

    rows = keep_rows(tokenised())
    if examples and not rows:
        raise AdzError(
            f"all {skipped} rows are longer than {max_length} tokens", "raise training.max_length"
        )
    return Rows(rows, skipped)


def _row(example: Example, tokenizer: Any, prompt_format: PromptFormat, stop: int) -> Row:
    prompt, completion = encode(example, tokenizer, prompt_format, stop)
    rejected: list[int] = []
    if example.rejected is not None:
        rejected = encode_rejected(example, tokenizer, prompt_format, stop)
    return Row((*prompt, *completion), len(prompt), tuple(rejected), example.desirable)


def _row_of_turns(example: Example, tokenizer: Any, prompt_format: PromptFormat, stop: int) -> Row:
    if prompt_format != "chat" or example.rejected is not None or example.desirable is not None:
        raise usage_error(
            "data.answers=all learns every answer of a chat, and these are no chats to imitate",
            "use data.answers=last",
        )
    ids, answers = encode_turns(example, tokenizer, stop)
    return Row(tuple(ids), answers[-1][0], earlier=tuple(answers[:-1]))


def choose_pad(tokenizer: Any, stop: int) -> int:
    """An id for padding that is not the stop token; the vocabulary does not change.

    The tokenizer's own where it differs, else a special token that is no end of an answer.
    Labels and attention are explicit, so that padding is neither scored nor seen.
    """
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != stop:
        return int(tokenizer.pad_token_id)
    taken = {stop, tokenizer.eos_token_id, tokenizer.bos_token_id}
    # The names under which vocabularies keep a token that no text contains.
    for token in ("<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|endoftext|>"):
        found = tokenizer.convert_tokens_to_ids(token)
        if found is not None and found != tokenizer.unk_token_id and found not in taken:
            return int(found)
    spare = [i for i in sorted(tokenizer.all_special_ids) if i not in taken]
    return int(spare[0]) if spare else next(i for i in range(len(tokenizer)) if i != stop)


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
