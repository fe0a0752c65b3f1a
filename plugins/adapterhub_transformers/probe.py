"""What a base allows, found by asking it once at start."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from adapterhub.generate import Row, Sampling
from adapterhub_transformers.job import Job
from adapterhub_transformers.lane import ContinuousLane, Seat

_PROMPTS = ((1, 2, 3, 4, 5), (6, 7, 8))
_TOKENS = 2
_TOLERANCE = 0.05
"""Of the size of the logits: half-width dtypes differ by less, a wrong position by far more."""


def why_not_continuous(model: Any, context: int) -> str | None:
    """Why rows cannot join and leave between two tokens over `model`; None where they can.

    It has another memory than keys and values, or calls the cache in a way of its own: two rows
    that run together would then not get what each gets alone.
    """
    try:
        window = _window(model.config)
        if window is not None and window < context:
            return f"it looks back {window} tokens only"
        rows = [_RecordedRow(prompt) for prompt in _PROMPTS]
        lane = ContinuousLane(model)
        jobs = [Job(None, row.prompt, row.sampling) for row in rows]
        for job, row in zip(jobs, rows, strict=True):
            job.done.set_running_or_notify_cancel()
            lane.add(Seat(job, row))
        while lane.seats:
            lane.step()
        for job, row in zip(jobs, rows, strict=True):
            job.done.result()
            if not _same(model, row):
                return "two rows at once do not get what each gets alone"
    # Whatever an architecture answers to arguments that it does not know.
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None


def linear_layers(model: Any) -> list[str]:
    """The linear layers of `model` that see each token of a batch exactly once (the head: each
    token that gets logits). Experts of a mixture see some tokens only, and are not among them."""
    seen: dict[str, list[int]] = {}
    hooks = []
    for name, layer in model.named_modules():
        if type(layer) is nn.Linear:

            def note(_: nn.Module, inputs: Any, __: Any, name: str = name) -> None:
                seen.setdefault(name, []).append(inputs[0].numel() // inputs[0].shape[-1])

            hooks.append(layer.register_forward_hook(note))
    ids = torch.tensor([_PROMPTS[0]], device=next(model.parameters()).device)
    with torch.inference_mode():
        model(input_ids=ids, logits_to_keep=1, use_cache=False)
    for hook in hooks:
        hook.remove()
    head = model.get_output_embeddings()
    wanted = {name: [1] if model.get_submodule(name) is head else [ids.numel()] for name in seen}
    return [name for name, counts in seen.items() if counts == wanted[name]]


class _RecordedRow(Row):
    """Keeps the logits that it is given."""

    def __init__(self, prompt: tuple[int, ...]) -> None:
        super().__init__(
            prompt, Sampling(_TOKENS), _NoText(), frozenset(), lambda text, scores: True
        )
        self.logits: list[torch.Tensor] = []

    def take(self, logits: torch.Tensor) -> int:
        self.logits.append(logits.float())
        return super().take(logits)


class _NoText:
    def decode(self, tokens: Any, **_: Any) -> str:
        return ""


def _same(model: Any, row: _RecordedRow) -> bool:
    ids = torch.tensor([[*row.prompt, *row.result.tokens]])
    with torch.inference_mode():
        alone = model(input_ids=ids.to(row.logits[0].device), use_cache=False).logits[0].float()
    wanted = alone[len(row.prompt) - 1 : -1]
    got = torch.stack(row.logits)
    error = (got - wanted).norm() / (wanted - wanted.mean()).norm()
    # A comparison with what is not a number is false.
    return bool(error <= _TOLERANCE)


def _window(config: Any) -> int | None:
    text = config.get_text_config(decoder=True)
    types = getattr(text, "layer_types", None)
    if types is not None and "sliding_attention" not in types:
        return None
    window = getattr(text, "sliding_window", None)
    used = getattr(text, "use_sliding_window", True)
    return int(window) if window and used else None
