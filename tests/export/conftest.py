"""Fixtures of the exports: a version of any PEFT configuration, and llama.cpp as a reader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapt(model: Any, config: Any, folder: Path, seed: int = 0) -> Any:
    """PEFT's model of this configuration with random weights, saved by PEFT in `folder`."""
    from peft import get_peft_model

    torch.manual_seed(seed)
    adapted = get_peft_model(model, config).eval()
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    adapted.save_pretrained(folder, save_embedding_layers=False)
    return adapted


class Commit:
    """Adds a base and commits an adapter of it, as `base` and `name`."""

    def __init__(self, adz: Any, folder: Path) -> None:
        self._adz = adz
        self._folder = folder

    def __call__(
        self,
        name: str,
        base_dir: Path,
        config: Any,
        *,
        base: str = "base",
        method: str = "lora",
        prompt_format: str = "plain",
        data: tuple[dict[str, Any], ...] = (),
    ) -> Any:
        from adapterhub.manifest import BaseLink, Manifest
        from adapterhub.models import load_base
        from adapterhub.plugins import open_registry

        added = self._adz("base", "add", base, base_dir)
        assert added.code == 0, added.err
        registry = open_registry()
        record = registry.base(base)
        model = load_base(record, dtype="float32")
        model.name_or_path = base
        payload = self._folder / f"payload-{name}"
        adapt(model, config, payload)
        manifest = Manifest(
            name=name,
            method=method,
            made_by="train",
            base=BaseLink(status="recorded", name=base, digests=record.digests),
            prompt_format=prompt_format,  # type: ignore[arg-type]
            data=data,
        )
        return registry.commit(manifest, payload)


@pytest.fixture
def commit(adz: Any, tmp_path: Path) -> Commit:
    return Commit(adz, tmp_path)


@torch.no_grad()
def unmerged_logits(name: str, ids: Sequence[int]) -> torch.Tensor:
    """(length, vocabulary) of the adapter over its base by transformers and PEFT, float32."""
    from adapterhub import Hub

    model, _ = Hub().load(name)
    return model.float()(input_ids=torch.tensor([list(ids)])).logits[0]


@torch.no_grad()
def loaded_logits(directory: Path, ids: Sequence[int]) -> torch.Tensor:
    """The same of a plain Hugging Face directory."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    return model(input_ids=torch.tensor([list(ids)])).logits[0]


_LETTER = 68  # "a" in the tiny base's vocabulary


class LlamaCpp:
    """llama.cpp with one model, and one adapter over it."""

    def __init__(self, model: Path, adapter: Path | None = None) -> None:
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(model)
        parameters.n_ctx = 256
        parameters.n_parallel = 1
        parameters.warmup = False
        parameters.verbosity = 0
        parameters.cpuparams.n_threads = 1
        parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if adapter:
            lora = xllamacpp.CommonAdapterLoraInfo()
            lora.path, lora.scale = str(adapter), 1.0
            parameters.lora_adapters = [lora]
        self._server = xllamacpp.Server(parameters)

    def next_token(self, prompt: str | Sequence[int], count: int) -> torch.Tensor:
        """Log-probabilities (count,) of what follows `prompt`, text or token ids; NaN for a token
        that ends an answer, where llama.cpp tells none."""
        answer = self._server.handle_completions(
            {
                "prompt": prompt if isinstance(prompt, str) else list(prompt),
                "n_predict": 1,
                "temperature": 0,
                "n_probs": count,
                "cache_prompt": False,
                # An answer without text has no probabilities: this token is chosen whatever they
                # are, and they are told as they were before.
                "logit_bias": [[_LETTER, 1000.0]],
            }
        )
        assert "choices" in answer, answer
        result = torch.full((count,), float("nan"))
        for entry in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
            if entry["logprob"] is not None and entry["logprob"] > -1e3:
                result[entry["id"]] = entry["logprob"]
        return result


def assert_same(given: torch.Tensor, logits: torch.Tensor, tolerance: float) -> None:
    """llama.cpp's log-probabilities are those of `logits` (count,)."""
    known = ~given.isnan()
    assert known.sum() >= len(logits) - 4
    expected = logits[known].log_softmax(-1)
    torch.testing.assert_close(given[known].log_softmax(-1), expected, rtol=0, atol=tolerance)
