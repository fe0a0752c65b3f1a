"""The hold-out is decided by the prompt alone."""

from __future__ import annotations

import pytest

from adapterhub.data import split_holdout
from adapterhub.protocols import Example


def numbered(count: int) -> list[Example]:
    return [Example(prompt=f"prompt {n}", completion=f"answer {n}") for n in range(count)]


def test_the_share_is_held_out_in_the_order_of_the_file() -> None:
    examples = numbered(4000)
    train, held = split_holdout(examples, 0.1)
    assert 320 < len(held) < 480
    assert sorted(train + held, key=examples.index) == examples
    assert [examples.index(e) for e in held] == sorted(examples.index(e) for e in held)


def test_adding_rows_and_another_order_move_no_prompt() -> None:
    few, many = numbered(200), list(reversed(numbered(400)))
    held_few = {e.prompt for e in split_holdout(few, 0.2)[1]}
    held_many = {e.prompt for e in split_holdout(many, 0.2)[1]}
    assert held_few == held_many & {e.prompt for e in few}


def test_equal_prompts_stay_together_whatever_the_answer() -> None:
    examples = [Example(prompt=f"p{n % 50}", completion=f"c{n}") for n in range(500)]
    train, held = split_holdout(examples, 0.3)
    assert held
    assert not {e.prompt for e in train} & {e.prompt for e in held}


def test_chats_are_split_by_all_but_the_answer() -> None:
    def chat(question: str, answer: str) -> Example:
        return Example(
            messages=(
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            )
        )

    examples = [chat(f"q{n % 40}", f"a{n}") for n in range(200)]
    train, held = split_holdout(examples, 0.3)
    assert held
    assert not {e.messages[0]["content"] for e in train} & {e.messages[0]["content"] for e in held}


def test_another_seed_is_another_split() -> None:
    examples = numbered(500)
    assert split_holdout(examples, 0.2, seed=0)[1] != split_holdout(examples, 0.2, seed=1)[1]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_few_prompts_still_give_one_to_each_side(count: int) -> None:
    train, held = split_holdout(numbered(count), 1e-9)
    assert len(held) == 1
    assert len(train) == count - 1


def test_one_prompt_and_no_share_hold_out_nothing() -> None:
    assert split_holdout(numbered(1) * 5, 0.5e-9)[1] == []
    assert split_holdout(numbered(50), 0.0) == (numbered(50), [])
