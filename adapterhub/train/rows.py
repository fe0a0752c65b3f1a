"""What the model sees: token rows and their labels. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from adapterhub.data import encode, encode_rejected, encode_turns, stop_token
from adapterhub.data.prompt import PromptFormat
from adapterhub.errors import AdzError, usage_error
from adapterhub.protocols import Example
from adapterhub.train.row_store import IGNORED, Row, StoredRows, keep_rows

if TYPE_CHECKING:
    from adapterhub.train.plan import Plan

__all__ = ["IGNORED", "Row", "Rows", "choose_pad", "make_rows", "rows_of"]


class Rows:
    """A data set as torch and transformers want it; `skipped` were longer than `max_length`."""

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


def rows_of(plan: Plan) -> tuple[Rows, Rows]:
    """Training and held-out rows as tokens; of the latter at most `training.eval_rows`."""
    training = plan.recipe.training
    longest = training.max_length
    every = plan.recipe.data.answers == "all"
    arguments = (plan.tokenizer, plan.prompt_format, longest)
    train_rows = make_rows(plan.train, *arguments, every_answer=every)
    held = plan.holdout[: training.eval_rows]
    return train_rows, make_rows(held, *arguments, every_answer=every)


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
