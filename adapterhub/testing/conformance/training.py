"""A small run: a data file, a few steps, and what a model answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from adapterhub import specs
from adapterhub.config import merge_into, parse_overrides
from adapterhub.models import load_base
from adapterhub.testing.conformance.base import check_success
from adapterhub.testing.fixtures import Adz

TOKENS = torch.tensor([[3, 70, 80, 90, 100], [3, 71, 81, 91, 101]])
_WORDS = [chr(97 + n) for n in range(16)]
_ASKED = [{"prompt": f"Word: {word}\nTwice:"} for word in _WORDS]
ROWS: tuple[Mapping[str, Any], ...] = tuple(
    {**asked, "completion": f" {word}" * 2} for asked, word in zip(_ASKED, _WORDS, strict=True)
)
ROWS_OF: Mapping[specs.RowKind, Sequence[Mapping[str, Any]]] = {
    "supervised": ROWS,
    "preference": [
        {**asked, "chosen": f" {word}" * 2, "rejected": f" {word}"}
        for asked, word in zip(_ASKED, _WORDS, strict=True)
    ],
    "unpaired_preference": [{**row, "label": number % 3 > 0} for number, row in enumerate(ROWS)],
    "prompt": _ASKED,
}
"""Rows of each kind."""
_STEPS = ("training.max_steps=3", "training.batch_size=4", "training.lr=0.01", "data.holdout=0.25")


def write_rows(folder: Path, rows: Sequence[Mapping[str, Any]] = ROWS) -> Path:
    """The rows as a data file in `folder`."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def train_a_little(adz: Adz, data: Path, name: str, *flags: str) -> Any:
    """`adz train` for three steps over `tiny`; returns the committed version."""
    from adapterhub.plugins import open_registry

    run_a_little(adz, data, name, *flags)
    return open_registry().resolve(name)


def run_a_little(adz: Adz, data: Path, name: str, *flags: str) -> None:
    """`adz train` for three steps over `tiny`."""
    steps = [word for step in _STEPS for word in ("-o", step)]
    command = ("train", "--base", "tiny", "--data", data, "--name", name)
    check_success(adz(*command, *steps, *flags))


def option_flags(section: str, options: Mapping[str, Any]) -> list[str]:
    """`-o section.name=value` for each option."""
    pairs = [f"{section}.{name}={json.dumps(value)}" for name, value in options.items()]
    merge_into({}, parse_overrides(pairs))
    return [word for pair in pairs for word in ("-o", pair)]


def load_held(record: Any, quantizer: Any, options: Any) -> Any:
    """The base, frozen, as a `protocols.Quantizer` holds it in training."""
    arguments = quantizer.load_arguments(options)
    assert isinstance(arguments, dict), "load_arguments returns no dict"
    return quantizer.prepare(load_base(record, arguments=arguments).requires_grad_(False))


def take_steps(model: Any, count: int = 3) -> None:
    """Steps of Adam on fixed tokens, over what is trainable."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.0)
    model.train()
    for _ in range(count):
        optimizer.zero_grad()
        torch.autograd.backward(model(input_ids=TOKENS, labels=TOKENS).loss)
        optimizer.step()
    model.eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """(2, 5, vocabulary) float32, of fixed tokens in evaluation mode."""
    found: torch.Tensor = model.eval()(input_ids=TOKENS).logits.float().cpu()
    return found[:, -TOKENS.shape[1] :]


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    """The largest, relative to the largest value."""
    return float((first - second).abs().max() / second.abs().max().clamp(min=1e-12))
