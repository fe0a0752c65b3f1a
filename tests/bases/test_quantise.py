"""`adz base quantize`: a stored quantised base that trains, answers and serves its adapters."""

from __future__ import annotations

import json
import re
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedModel,
    TorchAoConfig,
)

from adapterhub.models import cpu_has_bf16
from adapterhub.plugins import open_registry

FAST = ("-o", "training.max_steps=3", "-o", "training.batch_size=4", "-o", "training.lr=1e-2")
IDS = torch.tensor([[3, 70, 80, 90, 100]])


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "double.jsonl"
    made = [{"prompt": f"Word: {n}\nTwice:", "completion": f" {n}{n}"} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def stored(adz, *flags):
    done = adz("base", "quantize", "tiny", *flags)
    assert done.code == 0, done.err
    return open_registry().bases()


def check_holds(made, base, config):
    """The stored base answers as transformers does that quantises while loading, and is smaller."""
    wanted = AutoModelForCausalLM.from_pretrained(
        base.path, dtype=torch.float32, quantization_config=config
    )
    found = AutoModelForCausalLM.from_pretrained(made.path, dtype=torch.float32)
    assert torch.equal(found(IDS).logits, wanted(IDS).logits)
    size = Path(made.path, "model.safetensors").stat().st_size
    assert size < Path(base.path, "model.safetensors").stat().st_size


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int8"])
@torch.no_grad()
def test_it_is_what_transformers_makes_while_loading(kind, adz, tiny_base):
    stored(adz, "--with", kind)
    made = open_registry().base(f"tiny-{kind}")
    assert made.derivation["kind"] == "quantised"
    assert made.derivation["quantizer"] == kind
    assert made.derivation["from"] == "tiny"
    config = (
        BitsAndBytesConfig(load_in_8bit=True)
        if kind == "int8"
        else BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if cpu_has_bf16() else torch.float32,
        )
    )  # fmt: skip
    check_holds(made, tiny_base, config)
    assert made.digests.tokenizer == tiny_base.digests.tokenizer
    text = adz("base", "show", f"tiny-{kind}").out
    assert f"quantised from tiny by {kind}" in text


def test_adapters_of_the_original_answer_on_it(adz, tiny_base, commit_adapter, rows):
    commit_adapter("sql")
    stored(adz, "--with", "nf4")
    scored = adz("eval", "sql", "--base", "tiny-nf4", "--data", rows, "--limit", "4", "--json")
    assert scored.code == 0, scored.err


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_adapters_are_trained_over_it(kind, adz, tiny_base, rows):
    stored(adz, "--with", kind, "--name", "small")
    done = adz("train", "--base", "small", "--name", "sql", "--data", rows, *FAST)
    assert done.code == 0, done.err
    version = open_registry().resolve("sql")
    assert version.manifest.base.name == "small"
    assert version.manifest.quantizer is None
    answer = adz("run", "sql", "Word: 3", "--max-tokens", "4")
    assert answer.code == 0, answer.err
    lines = adz("lineage", "sql").out.splitlines()
    assert "base small  LlamaForCausalLM, quantised" in lines[1]
    assert "base tiny  LlamaForCausalLM" in lines[2]


def test_options_of_the_quantizer(adz, tiny_base):
    stored(adz, "--with", "nf4", "-o", "double_quant=false")
    made = open_registry().base("tiny-nf4")
    assert made.derivation["options"] == {"double_quant": False}
    names = load_file(Path(made.path, "model.safetensors"))
    assert not [name for name in names if "nested" in name]


def refused(adz, *command):
    done = adz(*command)
    assert done.code == 2
    assert done.err.rstrip().count("\n") == 0
    return done.err


def test_refusals(adz, tiny_base, rows, commit_adapter):
    commit_adapter("sql")
    assert "sql is taken by an adapter" in refused(
        adz, "base", "quantize", "tiny", "--with", "nf4", "--name", "sql")  # fmt: skip
    assert "tiny is taken by a base" in refused(
        adz, "base", "quantize", "tiny", "--with", "nf4", "--name", "tiny")  # fmt: skip
    assert "unknown option quantizer.bits" in refused(
        adz, "base", "quantize", "tiny", "--with", "nf4", "-o", "bits=3")  # fmt: skip
    assert "nf5" in refused(adz, "base", "quantize", "tiny", "--with", "nf5")
    assert [base.name for base in open_registry().bases()] == ["tiny"]
    stored(adz, "--with", "nf4")
    assert "stored by nf4 already" in refused(adz, "base", "quantize", "tiny-nf4", "--with", "int8")
    train = ("train", "--base", "tiny-nf4", "--data", rows, "--name", "new")
    assert "stored by nf4 already" in refused(adz, *train, "--quantizer", "nf4")
    assert "pissa does not work over nf4" in refused(adz, *train, "--method", "pissa")
    assert "full does not work over nf4" in refused(adz, *train, "--method", "full")


def no_space(self, directory, **options):
    Path(directory).mkdir()
    raise OSError(28, "No space left on device", str(directory))


def no_more_than_a_page(self, directory, kept=PreTrainedModel.save_pretrained, **options):
    """The system refuses to write on, and safetensors reports it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        kept(self, directory, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("save", [no_space, no_more_than_a_page])
def test_a_full_disk_is_told_with_what_was_needed(save, adz, tiny_base, home, monkeypatch):
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", save)
    done = adz("base", "quantize", "tiny", "--with", "nf4")
    assert done.code == 1
    (line,) = [line for line in done.err.splitlines() if line.startswith("adz: ")]
    found = re.fullmatch(
        rf"adz: no space left on the disk of {re.escape(str(home))}/staging: the quantised base "
        r"needs about ([\d.]+) MB, [\d,.]+ MB were free; nothing is kept "
        r"\(free some space \('adz gc' helps\), or move ADZ_HOME to another disk\)",
        line,
    )
    assert found, line
    # 115,008 parameters: between 4 bits each and the 4 bytes that they were.
    assert 0.05 < float(found[1]) < 0.5
    assert [base.name for base in open_registry().bases()] == ["tiny"]
    assert list((home / "staging").iterdir()) == []


@pytest.mark.extras
@torch.no_grad()
def test_torchao_stores_what_it_holds_while_loading(adz, tiny_base):
    quantization = pytest.importorskip("torchao.quantization")
    stored(adz, "--with", "torchao")
    made = open_registry().base("tiny-torchao")
    config = TorchAoConfig(quant_type=quantization.Int8WeightOnlyConfig(set_inductor_config=False))
    check_holds(made, tiny_base, config)


def test_what_stores_no_base_says_so(adz, tiny_base, rows, monkeypatch):
    monkeypatch.setattr("adapterhub.plugins.is_installed", lambda module: True)
    assert "hqq cannot store a base: it quantises one that is loaded" in refused(
        adz, "base", "quantize", "tiny", "--with", "hqq")  # fmt: skip
    assert "gptq quantises with data" in refused(adz, "base", "quantize", "tiny", "--with", "gptq")
    train = ("train", "--base", "tiny", "--data", rows, "--name", "new")
    assert "awq quantises with data" in refused(adz, *train, "--quantizer", "awq")
    assert [base.name for base in open_registry().bases()] == ["tiny"]
