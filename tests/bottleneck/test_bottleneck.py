"""Bottleneck adapters: against blocks computed by hand, and through the whole tool."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from adapterhub.errors import AdzError
from adapterhub.models import share_weights
from adapterhub.plugins import open_registry
from adapterhub_bottleneck.method import Bottleneck
from adapterhub_bottleneck.options import BottleneckOptions

SMALL = {
    "vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
    "max_position_embeddings": 32,
}  # fmt: skip
FAMILIES = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**SMALL)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SMALL)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    ),
}
STYLES = ("houlsby", "pfeiffer", "parallel")
IDS = torch.tensor([[3, 7, 11, 19, 23], [2, 4, 8, 16, 32]])


def make(family):
    torch.manual_seed(0)
    return FAMILIES[family]().eval()


def filled(model, **options):
    """The model with layers of random weights in it."""
    torch.manual_seed(1)
    model = Bottleneck().attach(model, BottleneckOptions(size=3, **options), prepared=False)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model


class ByHand:
    """The forward pass block by block, from the base's own parts, and the adapters in numpy."""

    ACTIVATIONS = {
        "relu": lambda x: np.maximum(x, 0),
        "silu": lambda x: x / (1 + np.exp(-x)),
    }

    def __init__(self, base, tensors, style, activation, scale):
        self.base, self.tensors, self.style = base, tensors, style
        self.f, self.scale = self.ACTIVATIONS[activation], scale
        self.gpt2 = isinstance(base, GPT2LMHeadModel)

    def added(self, place, x):
        w = {n: self.tensors[f"{place}.bottleneck.{n}"].double().numpy()
             for n in ("down.weight", "down.bias", "up.weight", "up.bias")}  # fmt: skip
        inner = self.f(x.double().numpy() @ w["down.weight"].T + w["down.bias"])
        return torch.from_numpy(self.scale * (inner @ w["up.weight"].T + w["up.bias"])).float()

    def logits(self):
        if self.gpt2:
            core, blocks, place = self.base.transformer, self.base.transformer.h, "transformer.h"
            x = core.wte(IDS) + core.wpe(torch.arange(IDS.shape[1]))
            rotary, end = {}, core.ln_f
        else:
            core, blocks, place = self.base.model, self.base.model.layers, "model.layers"
            x = core.embed_tokens(IDS)
            positions = torch.arange(IDS.shape[1])[None]
            rotary = {"position_embeddings": core.rotary_emb(x, positions)}
            end = core.norm
        for number, block in enumerate(blocks):
            x = self.block(block, f"{place}.{number}", x, rotary)
        logits = self.base.lm_head(end(x))
        cap = getattr(self.base.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def block(self, block, place, x, rotary):
        names = ("ln_1", "attn", "ln_2") if self.gpt2 else (
            "input_layernorm", "self_attn", "post_attention_layernorm")  # fmt: skip
        attention = getattr(block, names[1])
        y = attention(getattr(block, names[0])(x), attention_mask=self.mask(attention), **rotary)[0]
        if self.style == "houlsby":
            y = y + self.added(f"{place}.{names[1]}", y)
        if hasattr(block, "pre_feedforward_layernorm"):
            x = x + block.post_attention_layernorm(y)
            given = block.pre_feedforward_layernorm(x)
        else:
            x = x + y
            given = getattr(block, names[2])(x)
        y = block.mlp(given)
        if self.style == "houlsby":
            y = y + self.added(f"{place}.mlp", y)
        if self.style == "parallel":
            y = y + self.added(f"{place}.mlp", given)
        if hasattr(block, "post_feedforward_layernorm"):
            y = block.post_feedforward_layernorm(y)
        x = x + y
        return x + self.added(place, x) if self.style == "pfeiffer" else x

    def mask(self, attention):
        length = IDS.shape[1]
        return torch.full((length, length), -torch.inf).triu(1)[None, None]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_blocks_computed_by_hand(family, style, tmp_path):
    base = make(family)
    activation = "silu" if family == "qwen3" else "relu"
    model = filled(share_weights(base), style=style, activation=activation)
    Bottleneck().save(model, tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    scale = 4.0 if style == "parallel" else 1.0
    wanted = ByHand(base, tensors, style, activation, scale).logits()
    plain = base(IDS).logits
    assert (wanted - plain).abs().max() > 0.01 * plain.abs().max()
    torch.testing.assert_close(model(IDS).logits, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_fresh_it_changes_nothing_and_a_copy_has_layers_of_its_own(family):
    base = make(family)
    plain = base(IDS).logits
    model = share_weights(base)
    Bottleneck().attach(model, BottleneckOptions(), prepared=False)
    assert torch.equal(model(IDS).logits, plain)
    other = copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        if "bottleneck" in name:
            parameter.fill_(0.3)
    assert not torch.equal(model(IDS).logits, plain)
    assert torch.equal(base(IDS).logits, plain)
    assert torch.equal(other(IDS).logits, plain)


@torch.no_grad()
def test_text_is_generated_with_a_cache_as_without():
    model = filled(make("llama"), style="pfeiffer")
    cached, anew = (
        model.generate(IDS, max_new_tokens=6, do_sample=False, use_cache=use, pad_token_id=0)
        for use in (True, False)
    )
    assert torch.equal(cached, anew)


def test_a_model_without_parts_that_are_known_is_refused_or_takes_pfeiffer():
    """OPT's blocks have no module for the feed-forward part."""
    config = OPTConfig(vocab_size=50, hidden_size=16, ffn_dim=32, num_hidden_layers=2,
                       num_attention_heads=2, word_embed_proj_dim=16)  # fmt: skip
    for style in ("houlsby", "parallel"):
        with pytest.raises(AdzError, match="block 0 of OPTForCausalLM has 0 modules") as caught:
            filled(OPTForCausalLM(config), style=style)
        assert "pfeiffer" in caught.value.hint
    assert filled(OPTForCausalLM(config), style="pfeiffer")(IDS).logits.isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 5}, "is not in both the adapter and pfeiffer"),
        ({"style": "houlsby"}, "is not in both the adapter and houlsby"),
        ({"size": 10**9}, "size"),
        ({"adapter_type": "other"}, "is not that of a bottleneck adapter"),
    ],
)
def test_an_adapter_that_is_not_what_it_says_is_refused(tmp_path, change, message):
    Bottleneck().save(filled(make("llama")), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(AdzError, match=message):
        Bottleneck().load(make("llama"), tmp_path)


def test_another_bases_layers_are_refused(tmp_path):
    Bottleneck().save(filled(make("llama")), tmp_path)
    with pytest.raises(AdzError, match="is not in both"):
        Bottleneck().load(make("gpt2"), tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    tensors = load_file(weights)
    tensors.pop("model.layers.0.bottleneck.up.bias")
    save_file(tensors, weights)
    with pytest.raises(AdzError, match=r"layers\.0\.bottleneck\.up\.bias"):
        Bottleneck().load(make("llama"), tmp_path)


@pytest.fixture
def trained(adz, tiny_base, tmp_path):
    """Trains the version `sql`, and returns the file of its rows."""
    rows = tmp_path / "rows.jsonl"
    made = [{"prompt": f"Word: {n}\nTwice:", "completion": f" {n}{n}"} for n in range(40)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in made))
    done = adz("train", "--method", "bottleneck", "--data", rows, "--name", "sql",
               "-o", "method.style=houlsby", "-o", "training.max_steps=6",
               "-o", "training.lr=1e-2", "-o", "data.holdout=0.2")  # fmt: skip
    assert done.code == 0, done.err
    assert "adapted: mlp x2, self_attn x2" in done.err
    return rows


def test_it_is_trained_scored_and_run(adz, trained):
    version = open_registry().resolve("sql")
    assert version.manifest.storage == "own"
    facts = version.manifest.metrics
    assert facts["holdout_loss"] < facts["holdout_loss_base"]
    assert facts["quickened"]
    scored = adz("eval", "sql", "--data", trained, "--limit", "4", "--json")
    assert scored.code == 0, scored.err
    answer = adz("run", "sql", "Word: 3", "--max-tokens", "4")
    assert answer.code == 0, answer.err
    assert answer.out != adz("run", "tiny", "Word: 3", "--max-tokens", "4").out


def test_what_it_is_not_made_for_is_refused(adz, trained, commit_adapter, tmp_path):
    commit_adapter("other")
    alone = "adz serve answers with it, adz export NAME DIR writes it alone"
    for command, message in {
        ("merge", "sql", "other", "--name", "both"): "a form of its own",
        ("convert", "sql", "--name", "plain"): "bottleneck",
        ("export", "sql", "--merged", tmp_path / "out"): alone,
        ("export", "sql", "--gguf", "q8_0", tmp_path / "out"): alone,
        ("export", "sql", "--lora-gguf", tmp_path / "out"): alone,
    }.items():
        done = adz(*command)
        assert done.code in (1, 2, 3)
        assert message in done.err.splitlines()[-1]
        assert "Traceback" not in done.err
    assert open_registry().names() == ["other", "sql"]
    assert not (tmp_path / "out").exists()


def test_the_layers_of_a_list_are_reported_by_the_lists_name():
    from adapterhub.train.gates import adapted_layers
    from adapterhub.train.targets import report_targets

    model = make("llama").requires_grad_(False)
    modules = set(model.modules())
    options = BottleneckOptions(size=3, style="pfeiffer")
    adapted = Bottleneck().attach(model, options, prepared=False)
    layers = set(adapted_layers(adapted, modules).values())
    assert report_targets(adapted, layers).adapted == {"layers": 2}
