"""`adz convert`: versions and directories, ranks, what is recorded, and one line for a mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file

from adapterhub.plugins import open_registry


def test_a_version_becomes_a_lora_that_knows_its_parent(adz: Any, commit_adapter: Any) -> None:
    source = commit_adapter("d", "dora")
    done = adz("convert", "d", "--rank", "12", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    version = open_registry().resolve("d-lora")
    manifest = version.manifest
    assert (manifest.method, manifest.made_by, manifest.base) == (
        "lora", "convert", source.manifest.base,
    )  # fmt: skip
    (parent,) = manifest.parents
    assert (parent.name, parent.digest, parent.role) == ("d", source.digest, "source")
    assert manifest.recipe == {"adapter": "d@1", "to": "lora", "rank": 12}
    assert manifest.metrics["relative_error"] == result["relative_error"] > 0
    assert manifest.metrics["logits"]["result"]["tokens"] > 100
    assert result["logits"]["result"]["kl"] < result["logits"]["base"]["kl"]
    assert (result["payload"], result["rank"]) == (manifest.payload, 12)


def test_rslora_is_exact_and_merges_with_what_it_was(adz: Any, commit_adapter: Any) -> None:
    commit_adapter("r", "rslora", seed=1)
    done = adz("convert", "r", "--name", "plain")
    assert done.code == 0, done.err
    assert "exact: relative error" in done.out
    config = json.loads((open_registry().path(open_registry().resolve("plain"))
                         / "adapter_config.json").read_text())  # fmt: skip
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (16, 16, False)
    merged = adz("merge", "plain", "r", "--weights", "1,-1", "--rank", "sum", "--out",
                 open_registry().root.parent / "zero")  # type: ignore[attr-defined]  # fmt: skip
    assert merged.code == 0, merged.err
    tensors = load_file(open_registry().root.parent / "zero" / "adapter_model.safetensors")  # type: ignore[attr-defined]
    for key, a in tensors.items():
        if key.endswith("lora_A.weight"):
            b = tensors[key.replace("lora_A", "lora_B")]
            assert float((b.double() @ a.double()).norm()) < 1e-5


@pytest.mark.usefixtures("tiny_base")
def test_an_adapter_that_began_in_the_base_needs_its_beginning(
    adz: Any, tiny_base_dir: Path, tmp_path: Path
) -> None:
    """PiSSA by a random SVD: the update is what it is minus what it was."""
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_base_dir, dtype=torch.float32)
    weight = base.get_submodule("model.layers.0.self_attn.q_proj").weight.detach().double()
    config = peft.LoraConfig(
        r=4, lora_alpha=8, init_lora_weights="pissa_niter_4", target_modules=["q_proj"]
    )
    torch.manual_seed(0)
    model = peft.get_peft_model(base, config)
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "before")
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    model.peft_config["default"].init_lora_weights = "pissa_niter_4"
    model.save_pretrained(tmp_path / "after")

    refused = adz("convert", tmp_path / "after", "--base", "tiny", "--out", tmp_path / "no")
    assert refused.code == 1
    assert "--initial DIR" in refused.err
    done = adz("convert", tmp_path / "after", "--base", "tiny", "--initial", tmp_path / "before",
               "--out", tmp_path / "out")  # fmt: skip
    assert done.code == 0, done.err
    assert "rank 8" in done.out
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    start = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    made = tensors[start + "B.weight"].double() @ tensors[start + "A.weight"].double()
    folded = model.merge_and_unload().get_submodule("model.layers.0.self_attn.q_proj")
    expected = folded.weight.detach().double() - weight
    assert float((made - expected).norm() / expected.norm()) < 1e-5


def test_embeddings_and_heads_that_were_replaced(
    adz: Any, tiny_base: Any, tiny_base_dir: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_base_dir, dtype=torch.float32)
    config = peft.LoraConfig(
        r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"],
        task_type="CAUSAL_LM",
    )  # fmt: skip
    torch.manual_seed(0)
    model = peft.get_peft_model(base, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    model.save_pretrained(tmp_path / "in")
    done = adz("convert", tmp_path / "in", "--base", "tiny", "--rank", "64", "--out",
               tmp_path / "out")  # fmt: skip
    assert done.code == 0, done.err
    assert "exact" in done.out
    fresh = AutoModelForCausalLM.from_pretrained(tiny_base_dir, dtype=torch.float32)
    plain = peft.PeftModel.from_pretrained(fresh, tmp_path / "out").eval()
    tokens = torch.arange(4, 36)[None]
    with torch.no_grad():
        assert torch.allclose(plain(tokens).logits, model.eval()(tokens).logits, atol=1e-4)


def test_energy_keeps_its_share_of_every_module(adz: Any, commit_adapter: Any) -> None:
    commit_adapter("d", "dora")
    ranks = []
    for energy in ("0.5", "0.9", "0.99"):
        done = adz("convert", "d", "--rank", f"energy={energy}", "--json")
        assert done.code == 0, done.err
        result = json.loads(done.out)
        assert all(m["relative_error"] ** 2 <= 1 - float(energy) + 1e-6 for m in result["largest"])
        ranks.append(result["rank"])
    assert ranks == sorted(set(ranks))


@pytest.mark.parametrize("method", ["prefix", "prompt"])
def test_virtual_tokens_are_refused(adz: Any, commit_adapter: Any, method: str) -> None:
    commit_adapter("p", method)
    done = adz("convert", "p")
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith(
        f"adz: p@1 ({method}) adds virtual tokens and changes no weight"
    )
    assert [v.name for v in open_registry().versions()] == ["p"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rank", "0"), "rank: the rank is a whole number above 0"),
        (("--rank", "energy=2"), "rank: the rank is a whole number above 0"),
        (("--rank", "65"), "rank 65 is above the possible 64"),
        (("--name", "tiny"), "'tiny' is the name of a base"),
        (("--name", "a", "--out", "x"), "both --name and --out"),
        (("--base", "tiny"), "--base is for a directory"),
        (("--initial", "d"), "leaves the base's weights as they are"),
        (("--to", "dora"), "'dora' is not 'lora'"),
    ],
)
def test_a_mistake_is_one_line(
    adz: Any, commit_adapter: Any, arguments: tuple[str, ...], words: str
) -> None:
    commit_adapter("d", "dora")
    done = adz("convert", "d", *arguments)
    assert done.code == 2
    assert words in done.err.splitlines()[-1]
    assert [v.name for v in open_registry().versions()] == ["d"]


@pytest.mark.usefixtures("tiny_base")
def test_a_directory_of_another_base_is_refused(
    adz: Any, commit_adapter: Any, tmp_path: Path
) -> None:
    commit_adapter("a")
    source = open_registry().path(open_registry().resolve("a"))
    config = json.loads((source / "adapter_config.json").read_text())
    tensors = load_file(source / "adapter_model.safetensors")
    folder = tmp_path / "wide"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    from safetensors.torch import save_file

    wide = {k: torch.cat([t, t], 1) if "lora_A" in k else t for k, t in tensors.items()}
    save_file(wide, folder / "adapter_model.safetensors")
    done = adz("convert", folder, "--base", "tiny", "--out", tmp_path / "out")
    assert done.code == 1
    assert "is it an adapter of this base?" in done.err
    assert not (tmp_path / "out").exists()
