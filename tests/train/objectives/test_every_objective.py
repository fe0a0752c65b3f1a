"""Every objective from a command to a version, its mistakes, short batches, and a run that dies."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterhub.plugins import open_registry

from .brute_force import FAST


@pytest.mark.parametrize(
    ("objective", "kind"),
    [
        ("dpo", "preference"),
        ("orpo", "preference"),
        ("reward", "preference"),
        ("kto", "unpaired_preference"),
    ],
)
def test_from_a_command_to_a_version(
    objective: str, kind: str, adz: Any, tiny_base: Any, rows_file: Callable[[str], Path]
) -> None:
    done = adz("train", "--objective", objective, "--data", rows_file(kind), *FAST,
               "-o", "data.holdout=0.2", "--name", "judge")  # fmt: skip
    assert done.code == 0, done.err
    manifest = open_registry().resolve("judge").manifest
    assert manifest.objective == objective
    assert manifest.recipe["objective"]["name"] == objective
    assert manifest.metrics["steps"] == 2
    assert math.isfinite(manifest.metrics["holdout_objective"])
    assert ("holdout_accuracy" in manifest.metrics) == (kind == "preference")
    likely = objective in ("dpo", "orpo")
    assert ("holdout_loss" in manifest.metrics) == likely
    found = f"held-out objective {manifest.metrics['holdout_objective']:.3f}, "
    assert (found in done.out) == (not likely)
    # The first row's worse answer, as ROWS has it.
    assert ("\nand less of:  a0<|im_end|>\n" in done.err) == (kind == "preference")


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("prompt", ("--objective", "ppo"), "--objective rloo"),
        ("prompt", ("--objective", "dpo"),
         "the objective dpo does not learn from prompt rows (prompt.jsonl) "
         "(formats that it learns from: preference)"),
        ("prompt", (), "the objective sft does not learn from prompt rows"),
        ("preference", ("--objective", "kto"), "formats that it learns from: unpaired_preference"),
        ("prompt", ("--objective", "grpo"), "objective.rewards is not given"),
        ("prompt", ("--objective", "grpo", "-o", "objective.rewards=[{}]"),
         "a reward is an adapter or a function"),
        ("prompt", ("--objective", "grpo", "-o", "objective.rewards=[{function: nope}]"),
         "unknown reward function 'nope'"),
        ("prompt", ("--objective", "grpo", "-o", "objective.rewards=[{function: nope}]",
                    "-o", "training.batch_size=6"),
         "training.batch_size 6 is no multiple of objective.generations 4"),
        ("text", ("--objective", "grpo", "-o", "objective.rewards=[{function: nope}]"),
         "some rows have no prompt"),
        ("preference", ("--objective", "dpo", "-o", "objective.bata=1"),
         "unknown option objective.bata (did you mean objective.beta?)"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(
    kind: str,
    arguments: tuple[str, ...],
    message: str,
    adz: Any,
    tiny_base: Any,
    rows_file: Callable[[str], Path],
) -> None:
    done = adz("train", "--data", rows_file(kind), *FAST, *arguments)
    assert done.code in (1, 2)
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("objective", ["sft", "dpo", "kto", "orpo", "reward"])
def test_short_batches_of_a_step_count_by_their_rows(
    objective: str, adz: Any, tiny_base: Any, rows_file: Callable[[str], Path], tmp_path: Path
) -> None:
    """20 rows at once, and as 8, 8 and 4: the same gradient."""
    kind = {"sft": "text", "kto": "unpaired_preference"}.get(objective, "preference")
    norms = []
    for batch, accumulation in ((20, 1), (8, 3)):
        done = adz("train", "--objective", objective, "--data", rows_file(kind), "--name", "own",
                   "-o", "training.max_steps=1", "-o", "data.holdout=0",
                   "-o", f"training.batch_size={batch}",
                   "-o", f"training.accumulation={accumulation}")  # fmt: skip
        assert done.code == 0, done.err
        folder = tmp_path / str(batch)
        assert adz("export", "own", folder, "--with-artifacts").code == 0
        lines = (folder / "artifacts" / "metrics.jsonl").read_text().splitlines()
        norms += [line["grad_norm"] for line in map(json.loads, lines) if "grad_norm" in line]
    assert len(norms) == 2
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


OWN_ANSWERS = ("-o", "objective.rewards=[{function: spaces}]", "-o", "objective.max_answer=8")


@pytest.mark.parametrize(
    ("objective", "kind", "more"),
    [("dpo", "preference", ()), ("grpo", "prompt", OWN_ANSWERS)],
)
def test_a_run_that_dies_resumes_to_the_same_weights(
    objective: str,
    kind: str,
    more: tuple[str, ...],
    adz: Any,
    tiny_base: Any,
    rows_file: Callable[[str], Path],
    length_reward: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers import Trainer

    arguments = ("train", "--objective", objective, "--data", rows_file(kind), *FAST, *more,
                 "-o", "training.max_steps=4", "-o", "training.save_every=2",
                 "--name", "own")  # fmt: skip
    whole = adz(*arguments)
    assert whole.code == 0, whole.err
    kept = Trainer.training_step

    def die(self: Any, *given: Any, **options: Any) -> Any:
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        return kept(self, *given, **options)

    with monkeypatch.context() as broken:
        broken.setattr(Trainer, "training_step", die)
        killed = adz(*arguments)
    assert killed.code == 130
    assert "--resume goes on from step 2" in killed.err
    resumed = adz(*arguments, "--resume")
    assert resumed.code == 0, resumed.err
    registry = open_registry()
    one, two = registry.resolve("own@1").manifest, registry.resolve("own@2").manifest
    assert two.metrics["resumed"]
    assert not one.metrics["resumed"]
    assert two.payload == one.payload
