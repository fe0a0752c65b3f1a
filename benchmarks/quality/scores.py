"""What a model scores on each row, and the file that keeps it.

The base is loaded once. An adapter is folded into a copy of its weights (W + scale * B A), which
answers as the adapter over the base does and costs no more time than the base alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file

from adapterhub import protocols, specs
from adapterhub.data import encode_prompt
from adapterhub.evaluate.tasks import EvaluationTask, read_tasks
from adapterhub.generate import Sampling, generate, stop_tokens
from adapterhub.manifest import BaseRecord
from adapterhub.models import compute_device, load_base, load_tokenizer
from adapterhub.plugins import load_plugins
from quality.adapters import Adapters, Task

Points = dict[str, list[float]]
"""The score of each row, by task."""

_PREFIX = "base_model.model."
_BATCH = 64
_GPU_BATCH = 256


class Cells:
    """Points by key, one JSON line each; what was scored once is never scored again.

    A key's `rows` are the first so many of a fixed order: points of more rows hold those of fewer.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._points: dict[str, tuple[int, Points]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                # A line that was cut off by the end of a run is scored again.
                if line.endswith("}"):
                    cell = json.loads(line)
                    self._keep(cell["key"], cell["points"])

    def get(self, key: Mapping[str, Any]) -> Points | None:
        """The points of `key`, or None."""
        rows, points = self._points.get(self._text(key), (0, {}))
        if rows < key["rows"]:
            return None
        return {task: values[: key["rows"]] for task, values in points.items()}

    def put(self, key: Mapping[str, Any], points: Points) -> None:
        """Keep `points` now and for the next run."""
        self._keep(key, points)
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" if self._is_torn() else "")
            file.write(json.dumps({"key": dict(key), "points": points}) + "\n")

    def _keep(self, key: Mapping[str, Any], points: Points) -> None:
        if key["rows"] > self._points.get(self._text(key), (0, {}))[0]:
            self._points[self._text(key)] = (key["rows"], points)

    def _is_torn(self) -> bool:
        content = self._path.read_bytes()
        return bool(content) and not content.endswith(b"\n")

    @staticmethod
    def _text(key: Mapping[str, Any]) -> str:
        return json.dumps({**key, "rows": None}, sort_keys=True)


class Scorer:
    """Scores adapters on the tasks' rows, always the same ones."""

    def __init__(self, adapters: Adapters, base: BaseRecord) -> None:
        self._adapters = adapters
        self._model: Any = load_base(base).to(compute_device())
        self._tokenizer: Any = load_tokenizer(base)
        self._plain = {
            name: parameter.detach().clone() for name, parameter in self._model.named_parameters()
        }
        self._changed: set[str] = set()

    @property
    def tasks(self) -> Sequence[Task]:
        """The tasks, in the order of the adapters."""
        return self._adapters.tasks

    def points(
        self,
        directory: Path | None,
        part: str,
        rows: int,
        *,
        shots: int = 0,
        scale: float = 1.0,
        only: Sequence[str] | None = None,
    ) -> Points:
        """Points of the adapter in `directory` (None: the base alone) on `rows` rows of each task,
        or of the tasks named in `only`; `scale` multiplies the adapter."""
        self.fold(directory, scale)
        return {
            task.name: self._score(task, self._rows(task, part, rows, shots))
            for task in self.tasks
            if only is None or task.name in only
        }

    def _rows(self, task: Task, part: str, rows: int, shots: int) -> EvaluationTask:
        shots_from = [self._adapters.rows(task, "train")] if shots else []
        (read,) = read_tasks([self._adapters.rows(task, part)], shots_from, limit=rows, shots=shots)
        return read

    def _score(self, task: Task, asked: EvaluationTask) -> list[float]:
        plugins = load_plugins()
        metric = cast(
            "protocols.Metric", plugins.load_implementation(plugins.get(specs.Metric, task.metric))
        )
        shown = "".join(f"{shot.prompt}{shot.completion.rstrip()}\n\n" for shot in asked.shots)
        prompts = [
            encode_prompt(shown + row.prompt, self._tokenizer, "plain") for row in asked.rows
        ]
        longest = max(len(self._tokenizer(row.completion)["input_ids"]) for row in asked.rows)
        # One token more than the longest reference is enough to see that an answer runs on.
        sampling = Sampling(longest + (8 if task.metric == "chrf" else 1), stop=("\n",))
        answers = self._answers(prompts, sampling)
        return [
            round(metric(answer, row.completion), 6)
            for answer, row in zip(answers, asked.rows, strict=True)
        ]

    def _answers(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[str]:
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        answers = [""] * len(prompts)
        size = _BATCH if self._model.device.type == "cpu" else _GPU_BATCH
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            done = generate(
                self._model,
                self._tokenizer,
                [prompts[place] for place in batch],
                [sampling] * len(batch),
                stop_ids=stop_tokens(self._model, self._tokenizer),
            )
            for place, continuation in zip(batch, done, strict=True):
                answers[place] = continuation.text
        return answers

    @torch.no_grad()
    def fold(self, directory: Path | None, scale: float = 1.0) -> Any:
        """The model with the adapter in `directory` in its weights, or as it was for None."""
        parameters = dict(self._model.named_parameters())
        device = self._model.device
        deltas = dict(updates(directory, device)) if directory else {}
        for name in self._changed - deltas.keys():
            parameters[name].copy_(self._plain[name])
        for name, (b, a, own) in deltas.items():
            torch.addmm(self._plain[name], b, a, alpha=own * scale, out=parameters[name].data)
        self._changed = set(deltas)
        return self._model


def updates(
    directory: Path, device: torch.device
) -> Iterator[tuple[str, tuple[torch.Tensor, torch.Tensor, float]]]:
    """The weights that a LoRA directory changes: name, and (b, a, scale) in float32."""
    config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    scale = config["lora_alpha"] / config["r"]
    tensors = load_file(directory / "adapter_model.safetensors", device=str(device))
    for name, a in tensors.items():
        if name.endswith("lora_A.weight"):
            b = tensors[name.replace("lora_A", "lora_B")]
            weight = name.removeprefix(_PREFIX).replace("lora_A.weight", "weight")
            yield weight, (b.float(), a.float(), scale)
