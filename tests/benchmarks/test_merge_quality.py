"""The quality benchmark's own logic: rows apart, shares and intervals, the search, what is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import merge_quality
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from quality import search
from quality.adapters import BASE, EXAMPLES, TASKS, Adapters, family, split
from quality.merges import Merge, default_of, defaults
from quality.scores import Cells, Scorer
from quality.shares import kept

from adapterhub import Hub
from adapterhub.models import load_base

LINEAR = Merge("linear", "core", (0.5, 0.5), None, "sum", 1.0)
TIES = Merge("ties", "dense", (0.5, 0.5), 0.2, "sum", 1.0)


@pytest.mark.parametrize("task", [task.name for task in TASKS])
def test_rows_to_choose_on_share_no_family_with_those_trained_on(task):
    lines = (EXAMPLES / f"{task}.train.jsonl").read_text(encoding="utf-8").splitlines(True)
    train, validation = split(task, lines, 60)
    assert sorted(train + validation) == sorted(lines)
    assert 60 <= len(validation) < 90
    assert {family(task, x) for x in train}.isdisjoint(family(task, x) for x in validation)


def test_shares_are_means_over_seeds_of_ratios():
    own = {"a": [1.0, 1.0, 0.0, 0.0], "b": [1.0, 1.0, 1.0, 1.0]}
    first = {"a": [1.0, 0.0, 0.0, 0.0], "b": [1.0, 1.0, 1.0, 0.0]}
    second = {"a": [1.0, 1.0, 0.0, 0.0], "b": [1.0, 0.0, 1.0, 0.0]}
    found = kept([(first, own), (second, own)])
    assert found.tasks == {"a": 0.75, "b": 0.625}
    assert found.mean.value == pytest.approx(0.6875)
    assert found.worst.value == pytest.approx(0.625)
    assert found.seeds == 2
    assert found.mean.low < 0.6875 < found.mean.high


def test_a_merge_that_answers_as_the_own_adapters_do_has_no_interval():
    points = {"a": [1.0, 0.0, 1.0, 1.0], "b": [0.25, 0.5, 0.75, 1.0]}
    found = kept([(points, points)] * 3)
    for estimate in (found.mean, found.worst):
        assert (estimate.value, estimate.low, estimate.high) == (1.0, 1.0, 1.0)


def test_the_interval_is_that_of_the_normal_approximation_for_many_rows():
    random = np.random.default_rng(1)
    merged = (random.random(400) < 0.6).astype(float).tolist()
    found = kept([({"a": merged}, {"a": [1.0] * 400})])
    half = 1.96 * (0.6 * 0.4 / 400) ** 0.5
    assert found.mean.low == pytest.approx(found.mean.value - half, abs=0.01)
    assert found.mean.high == pytest.approx(found.mean.value + half, abs=0.01)


def test_seeds_that_differ_widen_the_interval():
    own = {"a": [1.0] * 50}
    runs = [({"a": [level] * 50}, own) for level in (0.2, 0.5, 0.8)]
    found = kept(runs)
    assert found.mean.value == pytest.approx(0.5)
    assert found.mean.low == pytest.approx(0.2, abs=0.11)
    assert found.mean.high == pytest.approx(0.8, abs=0.11)


def test_the_search_finds_scale_and_density_and_asks_nothing_twice():
    asked = []

    def objective(merge: Merge) -> float:
        asked.append(merge)
        return -abs(merge.scale - 2) - abs((merge.density or 0) - 0.5)

    value, best = search.search(TIES, objective)
    assert (best.scale, best.density) == (pytest.approx(2, abs=0.01), 0.5)
    assert value == pytest.approx(0, abs=0.01)
    assert len(set(asked)) >= len(asked) - 1


def test_the_search_goes_down_where_up_is_worse():
    _, best = search.search(LINEAR, lambda merge: -abs(merge.scale - 0.5))
    assert best.scale == pytest.approx(0.5, abs=0.01)


def test_a_refused_merge_is_not_searched():
    assert search.search(LINEAR, lambda merge: None) is None


def test_refining_moves_single_weights():
    target = (2.0, 0.25)

    def objective(merge: Merge) -> float:
        return -sum(abs(w - t) for w, t in zip(merge.weights, target, strict=True))

    _, best = search.refine(LINEAR, objective, rounds=3)
    assert best.weights == pytest.approx(target, abs=1e-3)


def test_the_goodness_counts_the_worst_task():
    own = {"a": [1.0, 1.0], "b": [1.0, 1.0]}
    even, uneven = {"a": [0.8, 0.8], "b": [0.8, 0.8]}, {"a": [1.0, 1.0], "b": [0.6, 0.6]}
    assert search.goodness(even, own) == pytest.approx(0.8)
    assert search.goodness(uneven, own) == pytest.approx(0.7)


def test_points_are_kept_and_a_torn_line_costs_only_itself(tmp_path):
    path = tmp_path / "cells.jsonl"
    cells = Cells(path)
    first, second = {"merge": 1, "weights": (0.5, 0.5), "rows": 2}, {"merge": 2, "rows": 1}
    cells.put(first, {"a": [1.0, 0.0]})
    with path.open("a", encoding="utf-8") as file:
        file.write('{"key": {"merge": 2}, "poi')
    again = Cells(path)
    assert again.get({"weights": [0.5, 0.5], "merge": 1, "rows": 2}) == {"a": [1.0, 0.0]}
    assert again.get(second) is None
    again.put(second, {"a": [0.5]})
    last = Cells(path)
    assert last.get(second) == {"a": [0.5]}
    assert last.get(first) == {"a": [1.0, 0.0]}


def test_points_of_more_rows_hold_those_of_fewer(tmp_path):
    cells = Cells(tmp_path / "cells.jsonl")
    cells.put({"merge": 1, "rows": 3}, {"a": [1.0, 0.0, 0.5]})
    cells.put({"merge": 1, "rows": 1}, {"a": [1.0]})
    for found in (cells, Cells(tmp_path / "cells.jsonl")):
        assert found.get({"merge": 1, "rows": 2}) == {"a": [1.0, 0.0]}
        assert found.get({"merge": 1, "rows": 3}) == {"a": [1.0, 0.0, 0.5]}
        assert found.get({"merge": 1, "rows": 4}) is None


def test_defaults_are_what_the_command_plans(home):
    names = ["a", "b", "c", "d"]
    found = {merge.label: merge for merge in defaults(names)}
    assert found["ties in dense"].density == 0.2
    assert not any(merge.rule == "slerp" for merge in found.values())
    assert found["linear in core"] == default_of(names, "linear", None)
    assert {"rule", "space", "weights"} <= found["linear in core"].options().keys()


def test_a_folded_adapter_answers_as_peft_does(home, tiny_base, tmp_path):
    torch.manual_seed(0)
    model = get_peft_model(
        load_base(tiny_base), LoraConfig(r=4, lora_alpha=12, target_modules="all-linear")
    )
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.2)
    folder = tmp_path / "adapter"
    model.save_pretrained(folder)
    scorer = Scorer(Adapters(Hub(home), TASKS), tiny_base)
    tokens = torch.arange(4, 36).reshape(2, 16)
    with torch.no_grad():
        plain = scorer.fold(None)(tokens).logits
        assert not torch.allclose(scorer.fold(folder)(tokens).logits, plain, atol=0.1)
        expected = model(tokens).logits
        torch.testing.assert_close(
            scorer.fold(folder)(tokens).logits, expected, atol=1e-4, rtol=1e-4
        )
        # Nothing of it stays.
        assert torch.equal(scorer.fold(None)(tokens).logits, plain)


def test_the_short_form_runs_and_goes_on(home: Path, adz, tiny_base_dir, monkeypatch):
    """Over the tiny base, whose nonsense shares nothing with an answer: its length is scored. The
    real model, chrF and trainings in processes of their own are in test_train_quality.py."""
    assert adz("base", "add", BASE, tiny_base_dir).code == 0
    monkeypatch.setattr("adapterhub_metrics.chrf.chrf", lambda answer, _: 1 / (1 + len(answer)))
    codes = []
    monkeypatch.setattr("quality.adapters.adz", lambda _, *words: codes.append(adz(*words).code))
    monkeypatch.setattr("sys.argv", ["merge_quality", "--short", "--home", str(home)])
    assert merge_quality.main() == 0
    page = (home / "merge-quality.md").read_text(encoding="utf-8")
    for words in ("linear in core", "**ties in", "joint training", "american", "spelling"):
        assert words in page
    assert (home / "merge-quality.svg").read_text(encoding="utf-8").startswith("<?xml")
    kept_cells = (home / "cells.jsonl").read_text(encoding="utf-8")
    assert merge_quality.main() == 0
    assert (home / "cells.jsonl").read_text(encoding="utf-8") == kept_cells
    assert (home / "merge-quality.md").read_text(encoding="utf-8") == page
    assert len(Hub(home).versions()) == 3
    chosen = json.loads((home / "tuned.json").read_text(encoding="utf-8"))
    assert codes == [0, 0, 0]
    assert replace(LINEAR, scale=0).label in chosen
