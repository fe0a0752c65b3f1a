"""Data whose right answers are what a given adapter writes, found with PEFT's own `generate`."""

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

PROMPTS = [f"question {i}:" + "?" * (i % 4) for i in range(12)]
ANSWER_TOKENS = 5

Oracle = Callable[..., Path]


@pytest.fixture
def answers_of(tiny_base_dir: Path, tmp_path: Path) -> Oracle:
    """Write a data file that `version` (None: the base) answers right in every row."""

    def write(name: str, version: Any | None, *, before: str = "", chat: bool = False) -> Path:
        model = AutoModelForCausalLM.from_pretrained(tiny_base_dir, dtype=torch.float32)
        if version is not None:
            model = peft.PeftModel.from_pretrained(model, open_registry().path(version))
        tokenizer = AutoTokenizer.from_pretrained(tiny_base_dir)
        rows = []
        for prompt in PROMPTS:
            shown = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
            ids = tokenizer(shown if chat else before + prompt, return_tensors="pt")
            out = model.eval().generate(**ids, max_new_tokens=ANSWER_TOKENS, do_sample=False)
            answer = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
            rows.append({"prompt": prompt, "completion": answer})
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write
