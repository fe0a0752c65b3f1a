"""`adz export --merged`: the written model answers as the adapter over its base does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from adapterhub import Hub
from adapterhub.bases.tensors import TensorWriter
from adapterhub.errors import AdzError

from .conftest import LINEAR, Commit, loaded_logits, unmerged_logits

IDS = [5, 17, 99, 42, 77, 120, 200, 31]
LORA = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=LINEAR)


def config(method: str) -> Any:
    if method == "ia3":
        return IA3Config(
            task_type="CAUSAL_LM", target_modules=["k_proj", "v_proj", "down_proj"],
            feedforward_modules=["down_proj"],
        )  # fmt: skip
    return LoraConfig(
        task_type="CAUSAL_LM", r=4, target_modules=LINEAR,
        use_rslora=method == "rslora", use_dora=method == "dora",
    )  # fmt: skip


@pytest.fixture(scope="module")
def other_bases(tiny_base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base in shards of bfloat16, with tied embeddings, and quantised by bitsandbytes."""
    folder = tmp_path_factory.mktemp("bases")
    tokenizer = AutoTokenizer.from_pretrained(tiny_base_dir)
    model = AutoModelForCausalLM.from_pretrained(tiny_base_dir, dtype=torch.bfloat16)
    model.save_pretrained(folder / "shards", max_shard_size="60KB")
    from transformers import LlamaForCausalLM

    tied = LlamaForCausalLM(
        type(model.config)(**{**model.config.to_dict(), "tie_word_embeddings": True})
    )
    tied.float().save_pretrained(folder / "tied")
    for name in ("nf4", "int8"):
        settings = BitsAndBytesConfig(
            load_in_4bit=name == "nf4", load_in_8bit=name == "int8",
            bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )  # fmt: skip
        packed = AutoModelForCausalLM.from_pretrained(
            tiny_base_dir, quantization_config=settings, dtype=torch.float32
        )
        packed.save_pretrained(folder / name)
    for name in ("shards", "tied", "nf4", "int8"):
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize("method", ["lora", "rslora", "dora", "ia3"])
def test_every_mergeable_method(
    method: str, commit: Commit, adz: Any, tiny_base_dir: Path, tmp_path: Path
) -> None:
    commit("one", tiny_base_dir, config(method), method=method)
    done = adz("export", "one", "--merged", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["comparison"]["relative"] < 1e-5
    assert result["comparison"]["source"] == "fixed prompts"
    expected = unmerged_logits("one", IDS)
    torch.testing.assert_close(loaded_logits(tmp_path / "out", IDS), expected, rtol=1e-4, atol=1e-5)
    base = AutoModelForCausalLM.from_pretrained(tiny_base_dir)
    assert (base(input_ids=torch.tensor([IDS])).logits[0] - expected).abs().max() > 1e-2


def test_shards_dtype_and_what_stands_beside(
    commit: Commit, other_bases: Path, tmp_path: Path
) -> None:
    commit("one", other_bases / "shards", LORA)
    result = Hub().export_merged("one", tmp_path / "out")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) == len(list((other_bases / "shards").glob("*.safetensors"))) > 2
    assert {p.name for p in (tmp_path / "out").glob("*.safetensors")} == files
    for file in files:
        with safe_open(tmp_path / "out" / file, framework="pt") as opened:
            names = list(opened.keys())
            assert {opened.get_tensor(name).dtype for name in names} == {torch.bfloat16}
    assert result.dtype == "bf16"
    assert 0 < (result.losses["bf16"].of_update or 0) < 0.1
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["name"] == "one"
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    exact = Hub().export_merged("one", tmp_path / "exact", dtype="f32")
    assert exact.comparison is not None
    assert exact.comparison.relative < 1e-5
    assert result.comparison is not None
    assert exact.comparison.relative < result.comparison.relative < 0.2


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_one_of_two_tied_matrices_alone(
    target: str, commit: Commit, other_bases: Path, tmp_path: Path
) -> None:
    commit("one", other_bases / "tied", LoraConfig(task_type="CAUSAL_LM", target_modules=[target]))
    result = Hub().export_merged("one", tmp_path / "out")
    assert result.untied
    assert not json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"]
    expected = unmerged_logits("one", IDS)
    torch.testing.assert_close(loaded_logits(tmp_path / "out", IDS), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("packing", ["nf4", "int8"])
def test_a_base_that_is_stored_quantised(
    packing: str, commit: Commit, other_bases: Path, tmp_path: Path
) -> None:
    from bitsandbytes.nn import Linear4bit, Linear8bitLt
    from peft.utils.integrations import dequantize_module_weight

    version = commit("one", other_bases / packing, LORA)
    result = Hub().export_merged("one", tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    packed = AutoModelForCausalLM.from_pretrained(other_bases / packing)
    factors = load_file(Hub().path(version.reference) / "adapter_model.safetensors")
    seen = 0
    for name, module in packed.named_modules():
        if isinstance(module, Linear4bit | Linear8bitLt):
            a, b = (factors[f"base_model.model.{name}.lora_{f}.weight"] for f in "AB")
            expected = dequantize_module_weight(module).float() + (8 / 4) * b @ a
            torch.testing.assert_close(written[f"{name}.weight"], expected, rtol=1e-5, atol=1e-6)
            seen += 1
    assert seen == 14
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    lost = result.losses[packing]
    assert 1e-3 < lost.of_weights < 0.2
    assert (lost.of_update or 0) > lost.of_weights


def test_an_adapter_that_cannot_be_folded_by_tensors_is_merged_whole(
    commit: Commit, tiny_base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adz: Any
) -> None:
    from adapterhub_peft.lora import Lora

    commit("one", tiny_base_dir, LORA)
    Hub().export_merged("one", tmp_path / "streamed")
    monkeypatch.setattr(Lora, "fold", lambda *_: None)
    done = adz("export", "one", "--merged", tmp_path / "whole")
    assert done.code == 0, done.err
    assert "the whole model is loaded, 0.0 GB" in done.err
    streamed = load_file(tmp_path / "streamed" / "model.safetensors")
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    assert streamed.keys() == whole.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(streamed[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_wrong_fold_is_refused_and_leaves_nothing(
    commit: Commit, tiny_base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adz: Any
) -> None:
    from adapterhub_peft.lora import Lora

    commit("one", tiny_base_dir, LORA)
    right = Lora.fold

    def one_left_out(self: Any, directory: Path, shapes: Any) -> Any:
        folds = dict(right(self, directory, shapes) or {})
        del folds["model.layers.1.self_attn.q_proj.weight"]
        return folds

    monkeypatch.setattr(Lora, "fold", one_left_out)
    target = tmp_path / "parent" / "out"
    done = adz("export", "one", "--merged", target)
    assert done.code == 3
    assert "differs from one@1 over its base" in done.err
    assert list(target.parent.iterdir()) == []


def test_an_error_while_writing_leaves_nothing(
    commit: Commit, tiny_base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit("one", tiny_base_dir, LORA)

    def full(self: Any, pieces: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorWriter, "write", full)
    target = tmp_path / "parent" / "out"
    with pytest.raises(OSError, match="No space"):
        Hub().export_merged("one", target)
    assert list(target.parent.iterdir()) == []


def test_refusals(commit: Commit, tiny_base_dir: Path, tmp_path: Path, adz: Any) -> None:
    from peft import PrefixTuningConfig

    soft = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    commit("soft", tiny_base_dir, soft, method="prefix")
    done = adz("export", "soft", "--merged", tmp_path / "out")
    assert done.code == 1
    assert "soft@1 is prefix, which cannot be folded into a base" in done.err
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    done = adz("export", "soft", "--merged", tmp_path / "full")
    assert done.code == 2
    assert "is not empty" in done.err


def test_rows_of_the_recorded_data_where_they_are_here(
    commit: Commit, tiny_base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapterhub.data import read_examples

    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "2 + 2 =", "completion": " 4"}\n')
    commit("one", tiny_base_dir, LORA, data=(read_examples(file).record(),))
    elsewhere = Hub().export_merged("one", tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    here = Hub().export_merged("one", tmp_path / "b")
    file.write_text('{"prompt": "3 + 3 =", "completion": " 6"}\n')
    changed = Hub().export_merged("one", tmp_path / "c")
    given = Hub().export_merged("one", tmp_path / "d", data=file)
    found = [e.comparison.source for e in (elsewhere, here, changed, given) if e.comparison]
    assert found == ["fixed prompts", "rows.jsonl", "fixed prompts", "rows.jsonl"]


_MEASURE = """
import resource, sys
from pathlib import Path
from adapterhub import Hub
import adapterhub.export.merged, adapterhub_peft.methods
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
Hub().export_merged("one", Path(sys.argv[1]), compare=False)
print(peak() - before)
"""


def test_memory_stays_below_the_model(
    commit: Commit, tiny_base_dir: Path, tmp_path: Path, home: Path
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=320, hidden_size=640, intermediate_size=1792, num_hidden_layers=6,
            num_attention_heads=8, num_key_value_heads=8,
        )
    )  # fmt: skip
    model.save_pretrained(tmp_path / "large", max_shard_size="40MB")
    AutoTokenizer.from_pretrained(tiny_base_dir).save_pretrained(tmp_path / "large")
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    assert len(list((tmp_path / "large").glob("*.safetensors"))) > 3
    commit("one", tmp_path / "large", LORA)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    grown = int(done.stdout.split()[-1])
    # The largest tensor has 4.6 MB; twelve of them are room for temporaries and libraries.
    assert grown < 12 * 640 * 1792 * 4 < size / 2


def test_the_bound_is_a_number_that_refuses_nan(
    commit: Commit, tiny_base_dir: Path, tmp_path: Path
) -> None:
    from adapterhub.export.compare import compare_logits
    from adapterhub.export.subject import find_subject
    from adapterhub.hub.home import Quiet
    from adapterhub.plugins import open_registry

    commit("one", tiny_base_dir, LORA)
    subject = find_subject(open_registry(), "one", Quiet())

    def broken() -> Any:
        model = AutoModelForCausalLM.from_pretrained(tiny_base_dir)
        model.lm_head.weight.data[0, 0] = float("nan")
        return model

    with pytest.raises(AdzError, match="differs from one@1"):
        compare_logits(subject, broken, None, "f32")
