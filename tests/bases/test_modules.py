"""Names of an adapter's tensors against the modules of a base."""

from __future__ import annotations

import pytest

from adapterhub.bases.headers import TensorInfo
from adapterhub.bases.modules import AdapterKey, BaseModules, split_key

P = "base_model.model."


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (P + "a.q_proj.lora_A.weight", AdapterKey("a.q_proj", "lora_A.weight", True)),
        (P + "a.q.lora_magnitude_vector", AdapterKey("a.q", "lora_magnitude_vector", True)),
        (P + "a.q.base_layer.lora_B.weight", AdapterKey("a.q", "lora_B.weight", True)),
        (P + "a.ia3_l", AdapterKey("a", "ia3_l", True)),
        (P + "embed.token_adapter.trainable_tokens_delta",
         AdapterKey("embed", "token_adapter.trainable_tokens_delta", True)),
        (P + "lm_head.weight", AdapterKey("lm_head", "weight", False)),
        (P + "lm_head.base_layer.weight", AdapterKey("lm_head", "weight", False)),
    ],
)  # fmt: skip
def test_takes_a_name_apart(name: str, key: AdapterKey) -> None:
    assert split_key(name) == key


@pytest.mark.parametrize("name", ["a.q.lora_A.weight", "model.a.q.lora_A.weight", "base_model.x"])
def test_a_name_that_peft_ignores_is_none(name: str) -> None:
    assert split_key(name) is None


def test_every_prefix_of_peft_is_known() -> None:
    peft = pytest.importorskip("peft.mapping")
    from peft import PeftType

    virtual = {
        "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING",
        "PROMPT_TUNING",
    }  # fmt: skip
    prefixes = {
        PeftType(kind).value: prefix for kind, prefix in peft.PEFT_TYPE_TO_PREFIX_MAPPING.items()
    }
    assert len(prefixes) > 40
    for kind, prefix in prefixes.items():
        if kind not in virtual:
            assert split_key(f"{P}q.{prefix}x") == AdapterKey("q", f"{prefix}x", True), kind


def modules(*names: str, dtype: str = "F32") -> BaseModules:
    return BaseModules({name: TensorInfo(dtype, (4, 2), 0, 0) for name in names}, {})


def test_finds_modules_and_their_shapes() -> None:
    base = modules("model.layers.0.q.weight", "model.layers.0.q.bias", "model.embed_tokens.weight")
    assert base.weight_shape("model.layers.0.q") == (4, 2)
    assert "model.layers.0" in base
    assert base.weight_shape("model.layers.0") is None
    assert "layers.0.q" not in base
    assert "model.model.layers.0.q" not in base
    assert "model.layers.1" not in base


def test_a_packed_weight_has_no_shape() -> None:
    base = modules("q.weight", dtype="U8")
    assert "q" in base
    assert base.weight_shape("q") is None


def test_a_file_saved_from_the_inner_model_lacks_its_name() -> None:
    assert "transformer.h.0.c_attn" in modules("h.0.c_attn.weight")
    assert "other.h.0.c_attn" not in modules("h.0.c_attn.weight")
    assert "transformer.h.0.c_attn" not in modules("h.0.c_attn.weight", "transformer.x.weight")


def test_a_tied_head_has_the_shape_of_the_embedding() -> None:
    assert modules("model.embed_tokens.weight").weight_shape("lm_head") == (4, 2)
    assert "lm_head" not in modules("model.layers.0.q.weight")


@pytest.mark.parametrize(
    ("loaded", "stored"),
    [
        ("model.language_model.layers.0.q", "language_model.model.layers.0.q"),
        ("model.language_model.layers.0.q", "model.layers.0.q"),
        ("model.visual.blocks.0.qkv", "visual.blocks.0.qkv"),
        ("model.vision_tower.layers.0.q", "vision_tower.layers.0.q"),
        ("model.multi_modal_projector.linear_1", "multi_modal_projector.linear_1"),
        ("language_model.model.layers.0.q", "model.language_model.layers.0.q"),
        ("visual.blocks.0.qkv", "model.visual.blocks.0.qkv"),
    ],
)
def test_transformers_renames_models_that_see_and_read(loaded: str, stored: str) -> None:
    base = modules(f"{stored}.weight")
    assert loaded in base
    assert base.weight_name(loaded) == f"{stored}.weight"
    assert f"{loaded}x" not in base
