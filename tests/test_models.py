"""Loading bases and adapters: every method, over shared weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from adapterhub.errors import AdzError
from adapterhub.models import load_adapter, load_base, load_tokenizer, share_weights
from adapterhub.plugins import open_registry

METHODS = ("lora", "rslora", "dora", "ia3", "prefix", "prompt")
TOKENS = torch.tensor([[20, 30, 40, 50, 60, 70]])


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits = model(input_ids=TOKENS, attention_mask=torch.ones_like(TOKENS)).logits
    # Soft prompts have logits of their own before the prompt's.
    return logits[:, -TOKENS.shape[1] :]


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_computes_what_peft_computes_from_its_directory(
    tiny_base: Any, commit_adapter: Any, method: str
) -> None:
    version = commit_adapter("a", method)
    directory = open_registry().path(version)
    base = load_base(tiny_base)
    before = logits_of(base)
    ours = logits_of(load_adapter(base, version, directory))
    theirs = logits_of(peft.PeftModel.from_pretrained(load_base(tiny_base), directory).eval())
    assert torch.equal(ours, theirs)
    assert not torch.allclose(ours, before, atol=1e-3)
    assert torch.equal(logits_of(base), before)


def test_adapters_over_one_base_share_its_weights_and_not_each_other(
    tiny_base: Any, commit_adapter: Any
) -> None:
    registry, base = open_registry(), load_base(tiny_base)
    versions = [commit_adapter("a"), commit_adapter("b", seed=1), commit_adapter("c", "ia3")]
    loaded = [load_adapter(base, version, registry.path(version)) for version in versions]
    fresh = [
        peft.PeftModel.from_pretrained(load_base(tiny_base), registry.path(version)).eval()
        for version in versions
    ]
    for ours, theirs in zip(loaded, fresh, strict=True):
        assert torch.equal(logits_of(ours), logits_of(theirs))
    # Only the adapters' own weights are new memory.
    held = {p.data_ptr(): p.nbytes for model in loaded for p in model.parameters()}
    own = sum(
        p.nbytes for m in loaded for n, p in m.named_parameters() if "lora" in n or "ia3" in n
    )
    assert sum(held.values()) == own + sum(p.nbytes for p in base.parameters())


def test_other_data_bound_in_a_copy_leaves_the_model_alone(tiny_base: Any) -> None:
    base = load_base(tiny_base)
    before = logits_of(base)
    copy = share_weights(base)
    for parameter in copy.parameters():
        parameter.data = parameter.data + 1
    assert torch.equal(logits_of(base), before)
    assert not torch.equal(logits_of(copy), before)


def test_what_a_copy_has_for_itself_may_be_written_into(tiny_base: Any) -> None:
    base = load_base(tiny_base)
    before = logits_of(base)
    layer = base.get_submodule("model.layers.0.mlp.up_proj")
    copy = share_weights(base, layer.parameters())
    copy.get_submodule("model.layers.0.mlp.up_proj").weight.data.add_(1)
    assert torch.equal(logits_of(base), before)
    assert not torch.equal(logits_of(copy), before)
    held = {p.data_ptr() for model in (base, copy) for p in model.parameters()}
    assert len(held) == len({p.data_ptr() for p in base.parameters()}) + 1


def test_tied_weights_stay_tied_in_a_copy() -> None:
    tied = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    tied["b"].weight = tied["a"].weight
    copy = share_weights(tied)
    assert copy["a"].weight is copy["b"].weight is not tied["a"].weight


def test_a_base_whose_directory_is_gone_is_one_clear_error(tiny_base: Any, tmp_path: Path) -> None:
    gone = tiny_base.model_copy(update={"path": str(tmp_path / "gone")})
    for load in (load_base, load_tokenizer):
        with pytest.raises(AdzError, match="the files of base 'tiny' are gone") as caught:
            load(gone)
        assert "adz base add tiny" in caught.value.hint


def test_pickled_weights_are_never_loaded(tiny_base: Any, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    model = load_base(tiny_base)
    folder.mkdir()
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(AdzError, match="the model of base 'tiny' cannot be loaded"):
        load_base(tiny_base.model_copy(update={"path": str(folder)}))


def test_code_that_ships_with_a_base_is_never_run(tiny_base: Any, tmp_path: Path) -> None:
    import json

    folder = tmp_path / "remote"
    load_base(tiny_base).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "strange",
        "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(AdzError, match="cannot be loaded"):
        load_base(tiny_base.model_copy(update={"path": str(folder)}))
    assert not (tmp_path / "ran").exists()


def test_a_stored_dtype_is_not_computed_in_where_the_cpu_cannot(
    tiny_base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bf16"
    load_base(tiny_base, dtype=torch.bfloat16).save_pretrained(folder)
    stored = tiny_base.model_copy(update={"path": str(folder)})
    monkeypatch.setattr("adapterhub.models.compute_device", lambda: torch.device("cpu"))
    monkeypatch.setattr("adapterhub.models.cpu_has_bf16", lambda: False)
    assert load_base(stored).dtype == torch.float32
    assert load_base(stored, dtype="bfloat16").dtype == torch.bfloat16
    monkeypatch.setattr("adapterhub.models.cpu_has_bf16", lambda: True)
    assert load_base(stored).dtype == torch.bfloat16
