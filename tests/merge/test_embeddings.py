"""Adapters of embeddings and heads: merged like any others, opened by PEFT, compared with it.

PEFT stores a copy of the base's own weight beside such factors. It says nothing where it is the
base's, and the adapter cannot be merged where it is not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from adapterhub.errors import AdzError
from adapterhub.plugins import open_registry

from .peft_models import add_weighted, factors_of, load_all, load_base, lora_modules, random_lora

TOKENS = torch.arange(4, 36).reshape(2, 16)
EMBEDDING, HEAD = "model.embed_tokens", "lm_head"
COPY = "base_model.model.model.embed_tokens.base_layer.weight"


@pytest.fixture(scope="module")
def loras(tiny_base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("embeddings")
    return [
        random_lora(tiny_base_dir, folder / "a", 1, r=4, lora_alpha=6,
                    target_modules=["embed_tokens", "q_proj"]),
        random_lora(tiny_base_dir, folder / "b", 2, r=4, lora_alpha=3,
                    target_modules=["embed_tokens", "lm_head", "v_proj"]),
        random_lora(tiny_base_dir, folder / "c", 3, torch.bfloat16, r=4, use_rslora=True,
                    target_modules="all-linear"),
    ]  # fmt: skip


def test_logits_are_those_of_the_sum(
    loras: list[Path], tiny_base_dir: Path, run_merge: Callable[..., Any]
) -> None:
    weights = [0.7, 0.5, -0.4]
    result = run_merge(*loras, weights=weights)
    plain = load_base(tiny_base_dir).double()
    summed = load_base(tiny_base_dir).double()
    for path, weight in zip(loras, weights, strict=True):
        adapted = PeftModel.from_pretrained(load_base(tiny_base_dir), path).double()
        for name, module in lora_modules(adapted).items():
            delta = module.get_delta_weight("default").detach()
            summed.get_submodule(name).weight.data += weight * delta
    merged = PeftModel.from_pretrained(load_base(tiny_base_dir), result.directory)
    with torch.no_grad():
        before, after, ours = (m(TOKENS).logits.double() for m in (plain, summed, merged))
    assert (after - before).abs().max() > 0.1
    assert (ours - after).abs().max() < 1e-4 * (after - before).abs().max()


def test_peft_reads_every_tensor_and_misses_none(
    loras: list[Path], tiny_base_dir: Path, run_merge: Callable[..., Any]
) -> None:
    result = run_merge(*loras)
    stored = load_file(result.directory / "adapter_model.safetensors")
    assert f"base_model.model.{EMBEDDING}.lora_embedding_A" in stored
    assert not [name for name in stored if "base_layer" in name]
    modules = lora_modules(PeftModel.from_pretrained(load_base(tiny_base_dir), result.directory))
    assert {EMBEDDING, HEAD} <= modules.keys()
    assert len(stored) == 2 * len(modules)
    for name, module in modules.items():
        words = ("lora_embedding_A", "lora_embedding_B")
        if name != EMBEDDING:
            words = ("lora_A.weight", "lora_B.weight")
        for word, factor in zip(words, factors_of(module, "default"), strict=True):
            assert torch.equal(stored[f"base_model.model.{name}.{word}"], factor)


@pytest.mark.parametrize(
    ("kind", "rule", "space"),
    [("linear", "linear", "factors"), ("ties", "ties", "factors"), ("ties_svd", "ties", "svd")],
)
def test_as_peft_merges_them(
    kind: str,
    rule: str,
    space: str,
    loras: list[Path],
    tiny_base_dir: Path,
    run_merge: Callable[..., Any],
) -> None:
    weights = [0.7, -0.3]
    density = {} if rule == "linear" else {"density": 0.4}
    result = run_merge(
        *loras[:2], rule=rule, space=space, compat="peft", weights=weights, **density
    )
    model = load_all(tiny_base_dir, loras[:2])
    add_weighted(model, kind, weights, **density)
    ours = lora_modules(PeftModel.from_pretrained(load_base(tiny_base_dir), result.directory))
    for name, module in lora_modules(model).items():
        a, b = factors_of(module, "merged")
        our_a, our_b = factors_of(ours[name], "default")
        torch.testing.assert_close(our_b @ our_a, b @ a, rtol=1e-4, atol=1e-5)


def changed(path: Path, folder: Path, **tensors: torch.Tensor | None) -> Path:
    """A copy of an adapter with other tensors; None takes one away."""
    folder.mkdir()
    stored = {**load_file(path / "adapter_model.safetensors"), **tensors}
    kept = {name: tensor for name, tensor in stored.items() if tensor is not None}
    save_file(kept, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_bytes((path / "adapter_config.json").read_bytes())
    return folder


def test_a_copy_of_the_bases_weight_says_nothing(
    loras: list[Path], tiny_base: Any, tmp_path: Path, run_merge: Callable[..., Any]
) -> None:
    copy = load_file(loras[0] / "adapter_model.safetensors")[COPY]
    without = changed(loras[0], tmp_path / "without", **{COPY: None})
    # Stored in fewer bits than the base, it is the base's still.
    half = changed(loras[0], tmp_path / "half", **{COPY: copy.to(torch.bfloat16)})
    whole = changed(
        loras[0], tmp_path / "whole",
        **{COPY: None, COPY.replace(".base_layer", ""): copy},
    )  # fmt: skip
    results = [
        (run_merge(path, loras[1], base="tiny").directory / "adapter_model.safetensors")
        for path in (loras[0], without, half, whole)
    ]
    assert len({path.read_bytes() for path in results}) == 1


def test_a_copy_that_is_not_the_bases_is_refused(
    loras: list[Path], tiny_base: Any, tmp_path: Path, run_merge: Callable[..., Any]
) -> None:
    copy = load_file(loras[0] / "adapter_model.safetensors")[COPY]
    trained, grown = copy.clone(), torch.cat([copy, copy[:1]])
    trained[-1, -1] += 1e-3
    for name, weight in (("trained", trained), ("grown", grown)):
        path = changed(loras[0], tmp_path / name, **{COPY: weight})
        with pytest.raises(
            AdzError, match=rf"{name}: its weight of {EMBEDDING} is not that of the base tiny"
        ):
            run_merge(path, loras[1], base="tiny")


def test_a_whole_weight_needs_the_base(
    loras: list[Path], tmp_path: Path, run_merge: Callable[..., Any]
) -> None:
    name = f"base_model.model.{HEAD}.weight"
    path = changed(loras[0], tmp_path / "whole", **{name: torch.zeros(320, 64)})
    with pytest.raises(AdzError, match=r"holds the weight of lm_head, .*give --base NAME"):
        run_merge(path, loras[1])


def test_an_embedding_of_another_shape_than_the_bases(
    loras: list[Path], tiny_base: Any, tmp_path: Path, run_merge: Callable[..., Any]
) -> None:
    name = f"base_model.model.{EMBEDDING}.lora_embedding_A"
    a = load_file(loras[0] / "adapter_model.safetensors")[name]
    path = changed(loras[0], tmp_path / "wide", **{name: torch.cat([a, a[:, :2]], dim=1)})
    with pytest.raises(AdzError, match=r"wide: model.embed_tokens is 64 x 322, in the base tiny"):
        run_merge(path, loras[1], base="tiny")


def test_an_embedding_in_one_and_a_linear_layer_in_the_other(
    loras: list[Path], tmp_path: Path, run_merge: Callable[..., Any]
) -> None:
    stored = load_file(loras[0] / "adapter_model.safetensors")
    start = f"base_model.model.{EMBEDDING}.lora"
    renamed = {
        f"{start}_embedding_A": None, f"{start}_embedding_B": None,
        f"{start}_A.weight": stored[f"{start}_embedding_A"],
        f"{start}_B.weight": stored[f"{start}_embedding_B"],
    }  # fmt: skip
    path = changed(loras[0], tmp_path / "linear", **renamed)
    with pytest.raises(
        AdzError, match=r"is an embedding in \S*/b and a linear layer in \S*/linear"
    ):
        run_merge(path, loras[1])


def test_versions_of_the_registry(loras: list[Path], tiny_base: Any, adz: Any) -> None:
    for path in loras[:2]:
        done = adz("import", path, "--base", "tiny", "--name", path.name)
        assert done.code == 0, done.err
    done = adz("merge", "a", "b", "--name", "both")
    assert done.code == 0, done.err
    version = open_registry().resolve("both")
    stored = load_file(open_registry().path(version) / "adapter_model.safetensors")
    assert f"base_model.model.{EMBEDDING}.lora_embedding_A" in stored
