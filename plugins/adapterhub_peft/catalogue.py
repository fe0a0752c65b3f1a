"""What we know of PEFT's types: the name and summary of each as a method, its defaults and facts.

Learning rates are those of PEFT's own comparison (method_comparison/MetaMathQA in its
repository) where it names one, else those of the method's paper. Tests hold every fact against
PEFT. A type that is not listed is a method all the same, with no fact claimed for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from adapterhub_peft.schema import peft_types

ALL = {"targets": "all-linear"}
AUTO = {"targets": "auto"}
TOKENS = {"tokens": 16}
LORA = {"r": 16, "alpha": 32, "targets": "all-linear", "parameters": "auto"}
FOUR_BITS = ("nf4", "fp4")
BITS_AND_BYTES = (*FOUR_BITS, "int8")
OVER_LINEAR = (*BITS_AND_BYTES, "torchao")
OVER_ANY_LAYER = (*OVER_LINEAR, "hqq")
ANY_QUANTIZER = (*OVER_ANY_LAYER, "gptq", "awq")
UNTRIED = "PEFT's layers of it were not seen to train over that"
PLAIN_FLOATS = "it computes with the base's weights, which must be plain floats"

NO_TASKS = "every row of its data has a task, and rows here have none"

LEFT_OUT: Mapping[str, str] = {
    "CARTRIDGE": "the registry does not know the shapes of the cache that it stores",
    "CPT": "its loss is its own and needs the labels in every forward pass",
    "FROD": "it stores integers beside floats, and the registry keeps floats only",
    "MULTITASK_PROMPT_TUNING": NO_TASKS,
    "POLY": NO_TASKS,
    "SHADOW": "a part of it gets no gradient, so the gate before training stops the run",
    "XLORA": "it mixes adapters that are trained already; adz merge combines them",
}
"""Types of which `adz train` makes no adapter of a causal language model, and why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One method.

    type: PEFT's. defaults: of options, by our names, where they are not PEFT's; `...` is an
    option that must be given. fixed: fields that the method sets, by PEFT's names. lr: the
    suggested peak learning rate, None for the general default. impl: `module:class` of this
    package. quantizers: those that it was seen to train over, unchanged at the start where it
    changes nothing over plain floats; the others are refused for the reason. forecast: a function
    of `forecast` that tells what it would train.
    """

    type: str
    summary: str
    lr: float | None = None
    defaults: Mapping[str, Any] = field(default_factory=lambda: ALL)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    impl: str = "methods:PeftMethod"
    facts: Mapping[str, Any] = field(default_factory=dict)
    quantizers: tuple[str, ...] = OVER_LINEAR
    quantizer_reason: str = UNTRIED
    forecast: str | None = None


def _changes(**facts: Any) -> dict[str, Any]:
    """The facts of a method that is an update of weights."""
    return {"mergeable": True, "convertible": True, **facts}


@cache
def entries() -> Mapping[str, Entry]:
    """Every method by its name, the best known first."""
    listed = dict(_LISTED)
    known = {entry.type for entry in listed.values()} | set(LEFT_OUT)
    for kind in peft_types():
        if kind not in known:
            listed[kind.lower()] = Entry(
                kind, f"PEFT's {kind}", defaults={}, quantizers=(), quantizer_reason="it is new"
            )
    return listed


_LISTED: Mapping[str, Entry] = {
    "lora": Entry(
        "LORA", "Low-rank updates of linear layers", 5e-4, LORA, impl="lora:Lora",
        facts=_changes(vllm=True),
        quantizers=ANY_QUANTIZER,
        forecast="lora",
    ),
    "rslora": Entry(
        "LORA", "LoRA scaled by alpha / sqrt(r), for high ranks", 2e-4, LORA | {"alpha": 16},
        {"use_rslora": True}, "lora:Lora", _changes(vllm=True),
        quantizers=ANY_QUANTIZER,
        forecast="lora",
    ),
    "dora": Entry(
        "LORA", "LoRA with the magnitude of each weight learnt apart", 5e-4, LORA,
        {"use_dora": True}, "lora:Lora", _changes(), (*FOUR_BITS, "torchao", "hqq"),
        "PEFT and bitsandbytes lose the scales of 8-bit weights after the first step",
        forecast="lora",
    ),
    "pissa": Entry(
        "LORA", "LoRA that begins at the largest singular values of the weights", 2e-4,
        LORA | {"alpha": 16}, {"init_lora_weights": "pissa"}, "lora:Lora", _changes(vllm=True),
        (), "its beginning is taken out of the weights, in plain floats",
    ),
    "eva": Entry(
        "LORA", "LoRA that begins at the main directions of the activations on the data", 5e-4,
        LORA, {"init_lora_weights": "eva"}, "lora:Eva", _changes(vllm=True), OVER_ANY_LAYER,
        forecast="lora",
    ),
    "loftq": Entry(
        "LORA", "LoRA that begins at what a 4-bit quantizer loses", 5e-4, LORA,
        {"init_lora_weights": True}, "lora:LoftQ", {"needs_quantizer": True}, FOUR_BITS,
        "it makes up for what 4 bits of bitsandbytes lose",
        forecast="lora",
    ),
    "adalora": Entry(
        "ADALORA", "LoRA that moves rank to the layers that need it", 1e-3,
        ALL | {"init_r": 24, "target_r": 16, "alpha": 32}, impl="adalora:AdaLora",
        facts=_changes(),
        forecast="adalora",
    ),
    "ia3": Entry(
        "IA3", "One learnt scale an activation: few parameters", 1e-2,
        AUTO | {"feedforward": "auto"}, impl="methods:Ia3", facts=_changes(),
    ),
    "prefix": Entry(
        "PREFIX_TUNING", "Learnt keys and values before every layer's own", 1e-2, TOKENS,
        quantizers=OVER_ANY_LAYER,
    ),
    "prompt": Entry(
        "PROMPT_TUNING", "Learnt embeddings before the prompt", 3e-2,
        TOKENS | {"init": "SAMPLE_VOCAB"}, facts={"vllm": True}, quantizers=OVER_ANY_LAYER,
    ),
    "p_tuning": Entry(
        "P_TUNING", "Learnt embeddings before the prompt, made by a small network", 1e-3, TOKENS,
        facts={"vllm": True}, quantizers=OVER_ANY_LAYER,
    ),
    "adaption_prompt": Entry(
        "ADAPTION_PROMPT", "LLaMA-Adapter: a gated prompt within the attention of each layer",
        5e-3, AUTO | {"adapter_len": 10}, impl="methods:AdaptionPrompt",
        quantizers=OVER_ANY_LAYER,
    ),
    "adamss": Entry("ADAMSS", "Updates in clustered subspaces of the weights", 1e-3,
                    facts={"mergeable": True, "requires": ("sklearn",)},
        quantizers=(), quantizer_reason=PLAIN_FLOATS,
    ),
    "beft": Entry("BEFT", "Learnt biases of chosen layers", 1e-3, AUTO),
    "boft": Entry("BOFT", "Orthogonal updates in butterfly factors", 1e-3, facts=_changes(),
        quantizers=OVER_ANY_LAYER,
    ),
    "c3a": Entry("C3A", "Block-circular convolutions", 3e-1, facts=_changes()),
    "deft": Entry("DEFT", "A projection taken away and another injected", 1e-4, facts=_changes(),
        quantizers=(), quantizer_reason=PLAIN_FLOATS,
    ),
    "delora": Entry(
        "DELORA", "Low-rank updates with angle and strength apart", 1e-3, facts=_changes(),
        quantizers=(), quantizer_reason=PLAIN_FLOATS,
    ),
    "fourierft": Entry("FOURIERFT", "A few learnt Fourier coefficients", 1e-3, facts=_changes()),
    "glora": Entry("GLORA", "Weights and biases scaled and shifted", 5e-4, facts=_changes(),
        quantizers=(), quantizer_reason=PLAIN_FLOATS,
    ),
    "gralora": Entry("GRALORA", "LoRA in blocks of each weight", 2e-4, facts=_changes()),
    "hira": Entry(
        "HIRA", "The weight times a low-rank matrix, element by element", 4.5e-3, facts=_changes(),
        quantizers=BITS_AND_BYTES, quantizer_reason="it multiplies weights that know no product",
    ),
    "hra": Entry("HRA", "A chain of learnt reflections", 1e-3, facts=_changes(),
        quantizers=(), quantizer_reason=PLAIN_FLOATS,
    ),
    "lily": Entry("LILY", "LoRA with factors shared between layers", 1e-3),
    "ln_tuning": Entry(
        "LN_TUNING", "The scales of the normalisation layers", 1e-3, AUTO, impl="methods:LnTuning",
        facts={"mergeable": True}, quantizers=OVER_ANY_LAYER,
    ),
    "loha": Entry("LOHA", "Element-wise products of low-rank updates", 1e-3, facts=_changes(),
        quantizers=("int8", "torchao"), quantizer_reason=PLAIN_FLOATS,
    ),
    "lokr": Entry("LOKR", "Kronecker products of small factors", 3e-3, facts=_changes(),
        quantizers=("int8", "torchao"), quantizer_reason=PLAIN_FLOATS,
    ),
    "miss": Entry("MISS", "One small matrix repeated along each weight", 1e-4, facts=_changes(),
        quantizers=OVER_ANY_LAYER,
    ),
    "oft": Entry("OFT", "Orthogonal rotations in blocks", 1e-4, facts=_changes(),
        quantizers=OVER_ANY_LAYER,
    ),
    "osf": Entry(
        "OSF", "The small singular values, orthogonal to the large ones", 5e-5, facts=_changes(),
        quantizers=(), quantizer_reason=PLAIN_FLOATS,
    ),
    "peanut": Entry("PEANUT", "Updates computed from the weight by a small network", 1e-4,
                    facts=_changes(),
        quantizers=(), quantizer_reason=PLAIN_FLOATS,
    ),
    "psoft": Entry("PSOFT", "Rotations within the main subspace", 1e-3, facts=_changes(),
        quantizers=(), quantizer_reason=PLAIN_FLOATS,
    ),
    "pvera": Entry("PVERA", "VeRA with a learnt distribution", 3e-3, facts=_changes()),
    "randlora": Entry("RANDLORA", "Full-rank sums of random bases", 1e-3, facts=_changes()),
    "road": Entry("ROAD", "Rotations of pairs of activations", 1e-3, facts=_changes()),
    "shira": Entry(
        "SHIRA", "One in a hundred weights, chosen at random", 3e-4,
        ALL | {"random_seed": 0}, facts=_changes(), quantizers=OVER_ANY_LAYER,
    ),
    "supertuning": Entry("SUPERTUNING", "The largest weights only", 3e-4, facts=_changes(),
        quantizers=(), quantizer_reason=PLAIN_FLOATS,
    ),
    "tinylora": Entry("TINYLORA", "Few learnt numbers, through random projections", 1e-3,
                      facts=_changes(),
        quantizers=(), quantizer_reason=PLAIN_FLOATS,
    ),
    "trainable_tokens": Entry(
        "TRAINABLE_TOKENS", "The embeddings of a few tokens", 1e-2,
        AUTO | {"token_indices": ...}, facts=_changes(), quantizers=OVER_ANY_LAYER,
    ),
    "unilora": Entry("UNILORA", "LoRA from one short shared vector", 1e-3, facts=_changes(),
        quantizers=(), quantizer_reason=PLAIN_FLOATS,
    ),
    "vblora": Entry("VBLORA", "LoRA from a shared bank of vectors", 1e-3, facts=_changes()),
    "vera": Entry("VERA", "Scales of frozen random factors", 1e-3, facts=_changes(),
        quantizers=OVER_ANY_LAYER,
    ),
    "waveft": Entry("WAVEFT", "A few learnt wavelet coefficients", 1e-3, facts=_changes()),
}  # fmt: skip
