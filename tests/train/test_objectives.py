"""Objectives: each loss against a brute force in float64, and each from a command to a version."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from adapterhub.data import stop_token
from adapterhub.plugins import load_plugins, open_registry
from adapterhub.train.pipeline import attach, prepare
from adapterhub.train.rows import Row

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


def log_probability(model: Any, row: Row) -> float:
    """Of the tokens from `start` on, in float64, by the whole softmax at every position."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row.ids])).logits[0].double()
    chosen = torch.log_softmax(logits, dim=-1)
    return sum(float(chosen[at - 1, row.ids[at]]) for at in range(row.start, len(row.ids)))


def both(trainer: Any, row: Row) -> tuple[float, float]:
    """What is learnt of a row: its log-probability with the adapter and without."""
    with trainer.run.model.disable_adapter():
        before = log_probability(trainer.run.model, row)
    return log_probability(trainer.run.model, row), before


def worse(row: Row) -> Row:
    return Row((*row.ids[: row.start], *row.rejected), row.start)


def test_pairs_are_batched_as_the_page_for_authors_says(trainer_of: Callable[..., Any]) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "authors" / "objective.md"
    (recipe,) = re.findall(r"## Pairs\n.*?```python\n(.*?)```", page.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(recipe, names)
    trainer = trainer_of("preference", {"name": "orpo"})
    rows = trainer.run.train_rows.rows[:5]
    assert all(row.rejected[-1] == stop_token(trainer.run.tokenizer, "plain") for row in rows)
    ours = trainer.collate(trainer.train_dataset[:5])
    theirs = names["collate"](trainer, rows)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_pairs_are_measured_as_the_page_for_authors_says(trainer_of: Callable[..., Any]) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "authors" / "objective.md"
    (code,) = re.findall(
        r"```python\n((?:(?!```).)*def held_out.*?)```", page.read_text(), re.DOTALL
    )
    names: dict[str, Any] = {}
    exec(code, names)
    trainer = trainer_of("preference", {"name": "orpo"})
    rows = trainer.run.holdout_rows
    assert len(rows) % trainer.args.per_device_eval_batch_size
    trainer.collate, ours = partial(pairs, trainer.run), trainer.held_out()["holdout_objective"]
    assert names["held_out"](trainer)["holdout_objective"] == pytest.approx(ours, rel=1e-5)


def pairs(run: Any, rows: Sequence[Row]) -> Any:
    """A batch as that page makes it of rows."""
    return run.collate([*rows, *map(worse, rows)])


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def loss_of(trainer: Any, count: int) -> float:
    batch = trainer.collate(trainer.train_dataset[:count])
    with torch.no_grad():
        return float(trainer.compare(trainer.run.model.eval(), batch))


@pytest.mark.parametrize("loss", ["sigmoid", "hinge", "ipo"])
def test_dpo(loss: str, trainer_of: Callable[..., Any]) -> None:
    trainer = trainer_of("preference", {"name": "dpo", "beta": 0.3, "loss": loss})
    expected = []
    for row in trainer.run.train_rows.rows[:5]:
        gains = []
        for answer in (row, worse(row)):
            now, before = both(trainer, answer)
            length = len(answer.ids) - answer.start
            gains.append((now - before) / (length if loss == "ipo" else 1))
        margin = gains[0] - gains[1]
        expected.append(
            {
                "sigmoid": lambda m: -math.log(sigmoid(0.3 * m)),
                "hinge": lambda m: max(0.0, 1 - 0.3 * m),
                "ipo": lambda m: (m - 1 / 0.6) ** 2,
            }[loss](margin)
        )
    assert loss_of(trainer, 5) == pytest.approx(mean(expected), rel=1e-4)


def test_kto(trainer_of: Callable[..., Any]) -> None:
    options = {"name": "kto", "beta": 0.4, "desirable_weight": 2.0, "undesirable_weight": 0.5}
    trainer = trainer_of("unpaired_preference", options)
    rows = trainer.run.train_rows.rows[:4]
    drifts = []
    for row, other in zip(rows, [rows[3], *rows[:3]], strict=True):
        now, before = both(
            trainer, Row((*row.ids[: row.start], *other.ids[other.start :]), row.start)
        )
        drifts.append(now - before)
    kl = max(0.0, mean(drifts))
    expected = []
    for row in rows:
        now, before = both(trainer, row)
        if row.desirable:
            expected.append(2.0 * (1 - sigmoid(0.4 * (now - before - kl))))
        else:
            expected.append(0.5 * (1 - sigmoid(0.4 * (kl - now + before))))
    assert {row.desirable for row in rows} == {True, False}
    assert loss_of(trainer, 4) == pytest.approx(mean(expected), rel=1e-4)


def test_orpo(trainer_of: Callable[..., Any]) -> None:
    from trl.experimental.orpo import ORPOTrainer

    trainer = trainer_of("preference", {"name": "orpo", "beta": 0.2})
    rows = trainer.run.train_rows.rows[:5]

    def per_token(answers: Sequence[Row]) -> torch.Tensor:
        values = [log_probability(trainer.run.model, a) / (len(a.ids) - a.start) for a in answers]
        return torch.tensor(values, dtype=torch.float64)

    # TRL's own odds ratio; it needs nothing of a trainer but these two.
    stand_in = type("Settings", (), {"beta": 0.2, "accelerator": torch.zeros(1)})()
    theirs, *_ = ORPOTrainer.odds_ratio_loss(
        stand_in, per_token(rows), per_token([worse(r) for r in rows])
    )
    expected = -float((per_token(rows) + theirs).mean())
    assert loss_of(trainer, 5) == pytest.approx(expected, rel=1e-4)


def test_reward_is_that_of_a_sequence_classifier(
    trainer_of: Callable[..., Any], tiny_base_dir: Path
) -> None:
    """transformers' own classifier over the same weights, its head the stop token's row."""
    from transformers import LlamaForSequenceClassification

    trainer = trainer_of("preference", {"name": "reward", "center": 0.1})
    merged = trainer.run.model.merge_and_unload()
    judge = LlamaForSequenceClassification.from_pretrained(tiny_base_dir, num_labels=1)
    judge.model.load_state_dict(merged.model.state_dict())
    stop = stop_token(trainer.run.tokenizer, "plain")
    judge.score.weight.data = merged.lm_head.weight.data[stop : stop + 1]
    expected = []
    for row in trainer.run.train_rows.rows[:5]:
        with torch.no_grad():
            good, bad = (
                float(judge(input_ids=torch.tensor([answer.ids])).logits)
                for answer in (row, worse(row))
            )
        expected.append(-math.log(sigmoid(good - bad)) + 0.1 * (good + bad) ** 2)
    trainer.run.model = merged
    assert loss_of(trainer, 5) == pytest.approx(mean(expected), rel=1e-4)


FAST = ("-o", "training.max_steps=2", "-o", "training.batch_size=4", "-o", "training.lr=1e-2",
        "-o", "method.r=4")  # fmt: skip


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


def test_dpo_learns_to_tell_pairs_apart(
    adz: Any, tiny_base: Any, rows_file: Callable[[str], Path]
) -> None:
    done = adz("train", "--objective", "dpo", "--data", rows_file("preference"), "--json",
               *FAST, "-o", "training.max_steps=12", "-o", "data.holdout=0.2")  # fmt: skip
    assert done.code == 0, done.err
    metrics = json.loads(done.out)["metrics"]
    assert metrics["holdout_accuracy"] > 0.7
    assert metrics["holdout_objective"] < math.log(2)


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


@pytest.mark.parametrize("objective", ["grpo", "rloo"])
def test_own_answers_and_a_reward_function(
    objective: str,
    adz: Any,
    tiny_base: Any,
    rows_file: Callable[[str], Path],
    length_reward: None,
) -> None:
    done = adz("train", "--objective", objective, "--data", rows_file("prompt"), *FAST,
               "-o", "objective.rewards=[{function: spaces}]", "-o", "objective.max_answer=8",
               "--name", "own")  # fmt: skip
    assert done.code == 0, done.err
    assert "the model is asked: Word: " in done.err
    manifest = open_registry().resolve("own").manifest
    assert manifest.objective == objective
    assert manifest.metrics["steps"] == 2
    assert manifest.metrics["tokens"] > 0
    assert "holdout_loss" not in manifest.metrics


def test_own_answers_and_a_trained_reward(
    adz: Any, tiny_base: Any, rows_file: Callable[[str], Path]
) -> None:
    trained = adz("train", "--objective", "reward", "--data", rows_file("preference"), *FAST,
                  "--name", "judge")  # fmt: skip
    assert trained.code == 0, trained.err
    arguments = ("train", "--objective", "grpo", "--data", rows_file("prompt"), *FAST,
                 "-o", "objective.max_answer=8", "--name", "own")  # fmt: skip
    done = adz(*arguments, "-o", "objective.rewards=[{adapter: judge@1}]")
    assert done.code == 0, done.err
    refused = adz(*arguments, "-o", "objective.rewards=[{adapter: own@1}]")
    assert refused.code == 2
    assert "own@1 gives no rewards: its objective is grpo" in refused.err


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
