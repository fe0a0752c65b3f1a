"""Rows that objectives learn from, trainers over them, and a reward function."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adapterhub.plugins import load_plugins
from adapterhub.train.pipeline import attach, prepare

WORDS = [f"{chr(97 + n)}{n}" + "x" * (n % 4) for n in range(20)]
ROWS: dict[str, list[dict[str, Any]]] = {
    "preference": [
        {"prompt": f"Word: {w}\nTwice:", "chosen": f" {w}{w}", "rejected": f" {w}"} for w in WORDS
    ],
    "unpaired_preference": [
        {"prompt": f"Word: {w}\nTwice:", "completion": f" {w}{w if n % 3 else ''}",
         "label": bool(n % 3)}
        for n, w in enumerate(WORDS)
    ],
    "text": [{"text": w} for w in WORDS],
    "prompt": [{"prompt": f"Word: {w}\nTwice:"} for w in WORDS],
}  # fmt: skip


@pytest.fixture
def rows_file(tmp_path: Path) -> Callable[[str], Path]:
    def write(kind: str) -> Path:
        path = tmp_path / f"{kind.replace('_', '-')}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[kind]))
        return path

    return write


@pytest.fixture
def trainer_of(
    plan_for: Any, rows_file: Callable[[str], Path], progress: Any, tmp_path: Path
) -> Callable[..., Any]:
    """A trainer whose reference is the base, over a model that is no longer it."""

    def build(kind: str, objective: dict[str, Any]) -> Any:
        plan = plan_for(data={"train": rows_file(kind)}, objective=objective)
        run = attach(plan, prepare(plan, progress), tmp_path / "run")
        trainer = load_plugins().load_implementation(plan.objective)().trainer(run)
        torch.manual_seed(1)
        with torch.no_grad():
            for name, parameter in run.model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.05)
        return trainer

    return build


@pytest.fixture
def length_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with the reward `short`."""
    folder = tmp_path / "site"
    (folder / "adz_rewards-1.0.dist-info").mkdir(parents=True)
    (folder / "adz_rewards-1.0.dist-info" / "METADATA").write_text(
        "Name: adz-rewards\nVersion: 1.0\n"
    )
    (folder / "adz_rewards-1.0.dist-info" / "entry_points.txt").write_text(
        "[adapterhub.rewards]\nspaces = adz_rewards:spaces\n"
    )
    (folder / "adz_rewards.py").write_text(
        "def spaces(examples, answers):\n"
        "    assert all(e.prompt.startswith('Word: ') for e in examples)\n"
        "    return [sum(map(ord, a)) % 97 / 97 for a in answers]\n"
    )
    monkeypatch.syspath_prepend(str(folder))
