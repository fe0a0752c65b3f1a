"""Two adapters of the tiny base, and rows that each of them answers right, found with PEFT."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapterhub.plugins import open_registry

ROWS = 24
ANSWER_TOKENS = 2


@pytest.fixture
def answered_by(tiny_base_dir: Path, tmp_path: Path) -> Callable[[str, Any], Path]:
    """Write a file of rows whose references are what PEFT's own generation writes."""

    def write(name: str, version: Any) -> Path:
        model = AutoModelForCausalLM.from_pretrained(tiny_base_dir, dtype=torch.float32)
        model = peft.PeftModel.from_pretrained(model, open_registry().path(version)).eval()
        tokenizer = AutoTokenizer.from_pretrained(tiny_base_dir)
        lines = []
        for number in range(ROWS):
            prompt = f"{name} {number}:" + "?" * (number % 5)
            ids = tokenizer(prompt, return_tensors="pt")
            out = model.generate(**ids, max_new_tokens=ANSWER_TOKENS, do_sample=False)
            answer = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
            if answer.strip():
                lines.append(json.dumps({"prompt": prompt, "completion": answer}))
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture
def pair(commit_adapter: Any, answered_by: Callable[[str, Any], Path]) -> list[Path]:
    """The versions `first` and `second`, and the file that each one answers."""
    return [
        answered_by(name, commit_adapter(name, seed=seed))
        for seed, name in enumerate(("first", "second"), 1)
    ]
