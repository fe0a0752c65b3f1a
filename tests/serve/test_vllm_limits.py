"""What vLLM can serve, decided from manifests and files without vLLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapterhub.bases.headers import TensorInfo
from adapterhub.errors import AdzError
from adapterhub.manifest import BaseRecord
from adapterhub.plugins import open_registry
from adapterhub_vllm.limits import (
    LEGAL_RANKS,
    check_base,
    smallest_legal_rank,
    unserved,
    why_not_files,
    why_not_vllm,
)


@pytest.mark.parametrize(
    ("ranks", "legal"),
    [([], 16), ([1], 1), ([2], 8), ([8, 4], 8), ([9], 16), ([129], 256), ([300, 16], 320),
     ([512], 512), ([1024, 32], 32)],
)  # fmt: skip
def test_the_smallest_legal_rank_holds_what_vllm_can_serve(ranks: list[int], legal: int) -> None:
    assert smallest_legal_rank(ranks) == legal


def test_slots_are_for_the_largest_adapter_that_can_be_served(
    tiny_base: Any, commit_adapter: Any
) -> None:
    from adapterhub_vllm.engine import choose_rank, largest_rank

    registry = open_registry()
    assert choose_rank(largest_rank(registry, tiny_base), None, merges=False) == 16
    lora, ia3 = commit_adapter("lora"), commit_adapter("ia3", "ia3")

    def commit(version: Any, rank: int, **changes: Any) -> Any:
        changes = {"name": f"{version.name}-{rank}", "adapter": {"rank": rank}, **changes}
        manifest = version.manifest.model_copy(update=changes)
        return registry.commit(manifest, registry.path(version))

    commit(lora, 4), commit(lora, 30)
    # Too large, of a method that vLLM does not serve, and of nobody knows which base.
    commit(lora, LEGAL_RANKS[-1] + 1), commit(ia3, 100)
    commit(lora, 200, base=lora.manifest.base.model_copy(update={"status": "unknown"}))
    assert choose_rank(largest_rank(registry, tiny_base), None, merges=False) == 32
    assert choose_rank(largest_rank(registry, tiny_base), 100, merges=False) == 128


def test_the_legal_ranks_are_those_of_vllm() -> None:
    lora = pytest.importorskip("vllm.config.lora")
    from typing import get_args

    assert set(LEGAL_RANKS) == set(get_args(lora.MaxLoRARanks))


@pytest.mark.parametrize(
    ("method", "served"),
    [("lora", True), ("rslora", True), ("dora", False), ("ia3", False), ("prefix", False),
     ("prompt", True), ("p_tuning", True)],
)  # fmt: skip
def test_methods_that_vllm_lacks_are_refused(
    tiny_base: Any, commit_adapter: Any, method: str, served: bool
) -> None:
    version = commit_adapter("sql", method)
    reason = why_not_vllm(version, tiny_base, 512)
    assert reason is None if served else reason is not None
    if reason:
        assert f"its method is {method}" in reason
        assert "--engine transformers" in reason


@pytest.mark.parametrize("method", ["prompt", "p_tuning"])
def test_a_gpu_takes_no_soft_prompts(
    tiny_base: Any, commit_adapter: Any, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    version = commit_adapter("sql", method)
    config = json.loads((open_registry().path(version) / "adapter_config.json").read_text())
    assert why_not_files(version, open_registry().path(version), 16) is None
    assert list(unserved(config, {})) == []
    monkeypatch.setattr("adapterhub_vllm.limits.is_cpu_build", lambda: False)
    assert "on a GPU" in (why_not_vllm(version, tiny_base, 512) or "")
    assert "on a GPU" in next(unserved(config, {}))


@pytest.fixture
def directory(commit_adapter: Any, tmp_path: Path) -> tuple[Any, Path]:
    """A committed LoRA version and a copy of its files that a test may spoil."""
    import shutil

    version = commit_adapter("sql")
    copy = tmp_path / "copy"
    shutil.copytree(open_registry().path(version), copy)
    return version, copy


def change(directory: Path, **values: Any) -> None:
    file = directory / "adapter_config.json"
    config = {**json.loads(file.read_text()), **values}
    file.chmod(0o644)
    file.write_text(json.dumps(config))


def test_a_plain_adapter_passes(directory: tuple[Any, Path]) -> None:
    version, folder = directory
    assert why_not_files(version, folder, 512) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "bias in its factors"),
        ({"bias": "all"}, "trained biases"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"alora_invocation_tokens": [1]}, "aLoRA"),
        ({"layer_replication": [[0, 1]]}, "replicated"),
        ({"trainable_token_indices": [5]}, "token embeddings"),
        ({"init_lora_weights": "pissa"}, "changed base"),
        ({"init_lora_weights": "olora"}, "changed base"),
        ({"r": 64}, "--max-rank 64"),
        ({"rank_pattern": {"q_proj": 100}}, "--max-rank 128"),
        ({"r": 1000}, "at most 512"),
    ],
)
def test_what_vllm_refuses_or_leaves_out_is_refused(
    directory: tuple[Any, Path], values: dict[str, Any], words: str
) -> None:
    version, folder = directory
    change(folder, **values)
    assert words in (why_not_files(version, folder, 32) or "")


@pytest.mark.parametrize("init", [True, False, "gaussian", "eva", "orthogonal"])
def test_ways_to_begin_that_leave_the_base_alone_pass(
    directory: tuple[Any, Path], init: object
) -> None:
    version, folder = directory
    change(folder, init_lora_weights=init)
    assert why_not_files(version, folder, 32) is None


def test_a_tensor_that_is_no_factor_is_refused(directory: tuple[Any, Path]) -> None:
    from safetensors.torch import load_file, save_file

    version, folder = directory
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    first = next(iter(tensors.values()))
    file.unlink()
    save_file({**tensors, "base_model.model.lm_head.weight": first.clone()}, file)
    assert "lm_head.weight" in (why_not_files(version, folder, 32) or "")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, []),
        ({"use_dora": True, "lora_bias": True}, ["refuses DoRA", "refuses a bias in its factors"]),
        ({"r": 24}, ["has no rank 24: every slot is padded to 32"]),
        ({"rank_pattern": {"q_proj": 600}}, ["refuses rank 600, at most 512 are served"]),
        ({"peft_type": "IA3"}, ["refuses it: its method is IA3"]),
    ],
)
def test_all_that_vllm_would_not_serve(values: dict[str, Any], words: list[str]) -> None:
    config = {"peft_type": "LORA", "r": 8, "bias": "none", **values}
    factor = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    plain = {factor: TensorInfo("F32", (8, 64), 0, 0)}
    assert list(unserved(config, plain)) == words
    strange = {**plain, "base_model.model.lm_head.weight": TensorInfo("F32", (9, 64), 0, 0)}
    more = list(unserved({**config, "peft_type": "LORA"}, strange))[-1]
    assert more == (
        "leaves out 1 tensors that are no LoRA factors, such as base_model.model.lm_head.weight"
    )


STORED = {
    "nf4": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "int8": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "hqq": {"quant_method": "hqq"},
    "gptq": {"quant_method": "gptq"},
    "torchao": {"quant_method": "torchao"},
    "": None,
}


@pytest.mark.parametrize("stored", STORED)
def test_a_base_in_a_form_that_vllm_does_not_read_is_refused_before_it_starts(
    stored: str, tiny_base: BaseRecord, tiny_base_dir: Path, tmp_path: Path
) -> None:
    quantization = pytest.importorskip("vllm.model_executor.layers.quantization")
    settings = STORED[stored]
    config = json.loads((tiny_base_dir / "config.json").read_text())
    config |= {"quantization_config": settings} if settings else {}
    (tmp_path / "config.json").write_text(json.dumps(config))
    base = tiny_base.model_copy(update={"path": str(tmp_path)})
    if settings is None or settings["quant_method"] in quantization.QUANTIZATION_METHODS:
        check_base(base)
        return
    with pytest.raises(
        AdzError, match=f"does not read tiny, which is stored by {stored}"
    ) as caught:
        check_base(base)
    assert caught.value.hint == "adz serve tiny --engine transformers"


def test_adz_serve_says_so_at_once(adz: Any, tiny_base: Any) -> None:
    assert adz("base", "quantize", "tiny", "--with", "nf4").code == 0
    done = adz("serve", "tiny-nf4", "--engine", "vllm", "--port", "8017")
    assert done.code == 1
    assert "does not read tiny-nf4, which is stored by nf4 (adz serve tiny-nf4 --engine" in done.err
