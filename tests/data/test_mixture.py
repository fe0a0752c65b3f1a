"""Mixtures: the hold-out first, then shares, and always the same rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adapterhub.data import DataSet, mix, split_holdout, store
from adapterhub.errors import AdzError
from adapterhub.protocols import Example


def data_set(name: str, count: int) -> DataSet:
    examples = [Example(prompt=f"{name} {n}", completion="x") for n in range(count)]
    return DataSet(examples, "prompt_completion", "supervised", "sha256:0", count, name)


A, B = data_set("a", 900), data_set("b", 300)


def of(name: str, examples: object) -> list[str]:
    return [e.prompt for e in examples if e.prompt.startswith(name)]  # type: ignore[attr-defined]


def test_without_weights_every_row_is_used_and_the_split_is_that_of_each_file() -> None:
    mixture = mix([A, B], [None, None], 0.1)
    for part in (A, B):
        train, held = split_holdout(part.examples, 0.1)
        assert of(part.file, mixture.train) == [e.prompt for e in train]
        assert of(part.file, mixture.holdout) == [e.prompt for e in held]
    assert sum(mixture.used) == len(mixture.train)


@pytest.mark.parametrize(
    ("weights", "sizes"),
    # 0.7 : 0.3 of 900 and 300 rows: b's 300 are the 0.3, or a's 900 are all there is.
    [((0.7, 0.3), (700, 300)), ((7, 3), (700, 300)), ((0.9, 0.1), (900, 100))],
)
def test_weights_are_shares_of_the_largest_mixture_without_repeats(
    weights: tuple[float, float], sizes: tuple[int, int]
) -> None:
    mixture = mix([A, B], weights, 0.0)
    assert mixture.used == sizes
    assert (len(of("a", mixture.train)), len(of("b", mixture.train))) == sizes
    assert len(set(mixture.train)) == sum(sizes)


def test_nothing_held_out_is_trained_on_and_the_holdout_has_no_weights() -> None:
    whole, weighted = mix([A, B], [None, None], 0.2), mix([A, B], [0.5, 0.5], 0.2)
    assert weighted.holdout == whole.holdout
    assert not set(weighted.train) & set(weighted.holdout)
    assert set(weighted.train) < set(whole.train)


def test_a_question_in_two_files_falls_on_one_side() -> None:
    again = replace(B, examples=[replace(e, completion="y") for e in A.examples[:300]])
    mixture = mix([A, again], [None, None], 0.3)
    assert not {e.prompt for e in mixture.train} & {e.prompt for e in mixture.holdout}


def test_the_chosen_rows_are_the_same_in_another_order_and_with_a_row_more() -> None:
    chosen = set(of("a", mix([A, B], [0.5, 0.5], 0.0).train))
    turned = replace(A, examples=list(reversed(A.examples)))
    assert set(of("a", mix([turned, B], [0.5, 0.5], 0.0).train)) == chosen
    more = replace(A, examples=[*A.examples, Example(prompt="a new", completion="x")])
    assert len(chosen - set(of("a", mix([more, B], [0.5, 0.5], 0.0).train))) <= 1


def test_a_mixture_on_disk_is_that_in_memory(home: object, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = mix([A, B], [0.5, 0.5], 0.1)
    monkeypatch.setattr(store, "IN_MEMORY", 100)
    stored = mix([A, B], [0.5, 0.5], 0.1)
    assert isinstance(stored.train, store.StoredExamples)
    assert list(stored.train) == plain.train
    assert list(stored.holdout) == plain.holdout


def test_parts_that_do_not_fit_together_are_refused() -> None:
    pairs = replace(B, kind="preference", format="preference")
    with pytest.raises(AdzError, match=r"different kinds of rows: a \(supervised\), b \(pref"):
        mix([A, pairs], [None, None], 0.1)
    with pytest.raises(AdzError, match="some data sets have a weight and some have none"):
        mix([A, B], [None, 1.0], 0.1)
    with pytest.raises(AdzError, match="leaves no row to train on"):
        mix([A, data_set("one", 1)], [None, None], 0.999)
