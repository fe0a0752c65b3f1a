"""Token rows: what is scored, what padding is, in which order batches come."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from adapterhub.data import stop_token
from adapterhub.errors import AdzError
from adapterhub.protocols import Example
from adapterhub.train.batches import Collator, LengthGroups, Shuffled
from adapterhub.train.row_gates import preview
from adapterhub.train.rows import IGNORED, Row, choose_pad, make_rows


@pytest.fixture
def tokenizer(tiny_base_dir: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_base_dir)


def scored_text(row: Row, tokenizer: Any) -> str:
    return str(tokenizer.decode([label for label in row.labels if label != IGNORED]))


def test_plain_scores_the_completion_and_the_stop_token(tokenizer: Any) -> None:
    (row,) = make_rows([Example(prompt="Q: a\nA:", completion=" b")], tokenizer, "plain", 64)
    assert tokenizer.decode(row.ids) == "Q: a\nA: b<|im_end|>"
    assert scored_text(row, tokenizer) == " b<|im_end|>"
    assert preview(row, tokenizer) == "[Q: a\nA:] b<|im_end|>"


def test_chat_scores_the_answer_and_what_ends_it_in_the_template(tokenizer: Any) -> None:
    chat = (
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "See you\n"},
    )
    (row,) = make_rows([Example(messages=chat)], tokenizer, "chat", 512)
    whole = tokenizer.apply_chat_template(
        [*chat[:-1], {"role": "assistant", "content": "See you"}], tokenize=False
    )
    assert tokenizer.decode(row.ids) == whole.rstrip("\n")
    assert scored_text(row, tokenizer) == "See you<|im_end|>"


def test_the_stop_of_a_chat_is_the_templates_and_not_the_end_of_text(tokenizer: Any) -> None:
    tokenizer.eos_token = "<|endoftext|>"
    assert tokenizer.decode([stop_token(tokenizer, "chat")]) == "<|im_end|>"
    assert tokenizer.decode([stop_token(tokenizer, "plain")]) == "<|endoftext|>"


def test_plain_text_is_scored_whole_but_for_its_first_token(tokenizer: Any) -> None:
    (row,) = make_rows([Example(completion="abc")], tokenizer, "plain", 64)
    assert row.labels[0] == IGNORED
    assert scored_text(row, tokenizer) == "bc<|im_end|>"


def test_long_rows_are_left_out_and_counted_never_cut(tokenizer: Any) -> None:
    examples = [Example(prompt="a" * n, completion="b") for n in (3, 8, 9)]
    rows = make_rows(examples, tokenizer, "plain", 10)
    assert [len(row.ids) for row in rows] == [5, 10]
    assert rows.skipped == 1
    with pytest.raises(AdzError, match="all 3 rows are longer than 2 tokens"):
        make_rows(examples, tokenizer, "plain", 2)


def test_padding_is_another_token_than_the_stop(tokenizer: Any) -> None:
    stop = stop_token(tokenizer, "plain")
    assert tokenizer.convert_ids_to_tokens(choose_pad(tokenizer, stop)) == "<|pad|>"
    # As SmolLM2 has it: the padding token is the end of a turn.
    tokenizer.pad_token = "<|im_end|>"
    size = len(tokenizer)
    pad = choose_pad(tokenizer, stop)
    assert pad != stop
    assert len(tokenizer) == size
    tokenizer.pad_token = None
    assert choose_pad(tokenizer, stop) != stop


def test_a_batch_is_padded_on_the_right_and_padding_is_neither_seen_nor_scored() -> None:
    batch = Collator(pad=9)([Row((1, 2, 3), 2), Row((4, 5), 1)])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 5, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 3], [-100, 5, -100]]


LENGTHS = torch.randint(5, 60, (1003,), generator=torch.Generator().manual_seed(1)).tolist()


@pytest.mark.parametrize(
    "make", [partial(Shuffled, 1003), partial(LengthGroups, LENGTHS, 8)], ids=["shuffled", "groups"]
)
def test_the_order_holds_every_row_once_and_depends_on_seed_and_epoch_alone(
    make: Callable[..., Shuffled],
) -> None:
    order = make(seed=0)
    first = list(order)
    assert len(order) == len(first)
    assert sorted(first) == list(range(1003)) != first
    assert first == list(make(seed=0))
    assert first != list(make(seed=1))
    order.set_epoch(1)
    assert first != list(order)


def test_rows_of_a_batch_are_about_equally_long() -> None:
    lengths = torch.randint(5, 60, (1000,), generator=torch.Generator().manual_seed(1)).tolist()

    def padded(order: list[int]) -> int:
        batches = [order[i : i + 8] for i in range(0, 1000, 8)]
        return sum(len(b) * max(lengths[i] for i in b) for b in batches)

    grouped = padded(list(LengthGroups(lengths, 8, seed=0)))
    assert grouped < 1.06 * sum(lengths) < padded(list(range(1000)))
