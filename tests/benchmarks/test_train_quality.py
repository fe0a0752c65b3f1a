"""The quality of trained adapters: intervals, the page, and the short form on the real model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import train_quality
from quality.adapters import Adapters, Task
from quality.settings import Setting, Space, search
from train_quality import Plan, Result, interval, page

from adapterhub import Hub


def test_what_never_differs_has_no_interval() -> None:
    assert interval([np.full((3, 20), 0.25), np.full((3, 60), -0.25)]) == (0.0, 0.0, 0.0)


def test_the_interval_is_that_of_the_normal_approximation_for_many_seeds_and_rows() -> None:
    values = np.random.default_rng(1).normal(0.1, 1.0, (40, 400))
    mean, low, high = interval([values])
    assert mean == pytest.approx(values.mean())
    # Where both are drawn again, noise of single cells counts three times (Owen 2007, section 4).
    half = 1.96 * (3 / values.size) ** 0.5
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.004)


def test_the_page_says_who_is_better(home: Path) -> None:
    task = Task("spelling", "exact_match", steps=40, lr=2e-3)
    adapters = Adapters(Hub(home), [task])
    plan = Plan(adapters, (0, 1), Space((0.5, 1.0)), 4, home / "page.md")
    half, all_right = [[1.0, 0.0, 1.0, 0.0]] * 2, [[1.0] * 4] * 2
    text = page(plan, [Result(task, Setting(2e-3), half, all_right)])
    (row,) = [line for line in text.splitlines() if line.startswith("| spelling")]
    assert row.startswith("| spelling | exact_match | 0.002 | 40 | 50.0 | 100.0 | +50.0 [")
    assert "the one of 0.5, 1 times a first guess" in text


@pytest.mark.model
def test_the_short_form_runs_and_goes_on(
    home: Path, real_base: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["train_quality", "--short", "--home", str(home)])
    train_quality.main()
    text = (home / "train-quality.md").read_text(encoding="utf-8")
    assert "| spoken | chrf | 0.001 | 4 |" in text
    (adapter,) = (home / "trl").iterdir()
    assert (adapter / "adapter_model.safetensors").is_file()
    kept = (home / "cells" / "spoken.jsonl").read_text(encoding="utf-8")
    assert len(kept.splitlines()) == 2
    monkeypatch.setattr(train_quality, "train_trl", lambda *_: adapter)
    train_quality.main()
    assert (home / "cells" / "spoken.jsonl").read_text(encoding="utf-8") == kept
    assert len(Hub(home).versions()) == 1


def test_the_search_tries_one_part_after_the_other() -> None:
    tried = []

    def score(settings: Any) -> list[float]:
        tried.append([setting.label for setting in settings])
        liked = {2e-3: 1.0, "cosine": 0.5, "attention": 0.25}
        return [sum(liked.get(v, 0.0) for v in (s.lr, s.schedule, s.layers)) for s in settings]

    space = Space((1.0, 2.0, 4.0), ("linear", "cosine"), ("all-linear", "attention"))
    assert search(1e-3, space, score) == Setting(2e-3, "cosine", "attention")
    assert tried == [
        ["0.001", "0.002", "0.004"],
        ["0.002", "0.002-cosine-all-linear"],
        ["0.002-cosine-all-linear", "0.002-cosine-attention"],
    ]
    assert search(1e-3, Space((0.5,)), score) == Setting(5e-4)


def test_a_setting_means_the_same_to_both() -> None:
    both = Setting(1e-3, "constant", "attention")
    layers = ["q_proj", "k_proj", "v_proj", "o_proj"]
    wanted = {"lr": 1e-3, "schedule": "constant_with_warmup", "targets": layers}
    assert both.for_trl() == wanted
    assert both.for_adz() == (
        "training.schedule=constant",
        "method.targets=[q_proj,k_proj,v_proj,o_proj]",
    )
    assert Setting(1e-3).for_adz() == ()
