"""What vLLM can serve: LoRA up to a rank, without what it ignores or refuses, and soft prompts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from adapterhub import specs
from adapterhub.bases.headers import TensorInfo, read_header
from adapterhub.bases.quantise import stored_quantizer
from adapterhub.errors import AdzError
from adapterhub.manifest import BaseRecord, Version
from adapterhub.plugins import is_installed, load_plugins
from adapterhub.serve.models import why_not_servable
from adapterhub_vllm.contract import is_cpu_build, vllm_release
from adapterhub_vllm.soft_prompts import METHODS, TYPES

LEGAL_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
DEFAULT_RANK = 16

_TENSOR = re.compile(r"base_model\.model\..+\.lora_(A|B|embedding_A|embedding_B)(\.weight)?")

# From lora/peft_helper.py: what changes the adapter's meaning and is not implemented there.
# The last two are read by nobody in vLLM, which would silently leave them out.
_FEATURES = {
    "use_dora": "DoRA",
    "lora_bias": "a bias in its factors",
    "modules_to_save": "fully trained modules (modules_to_save)",
    "alora_invocation_tokens": "invocation tokens (aLoRA)",
    "layer_replication": "replicated layers",
    "use_bdlora": "block-diagonal factors",
    "use_qalora": "QALoRA",
    "trainable_token_indices": "trained token embeddings",
    "arrow_config": "Arrow routing",
}
_PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")


def check_base(base: BaseRecord) -> None:
    """Raise AdzError for a base that is stored in a way that vLLM does not read."""
    stored = stored_quantizer(base)
    # Out of vLLM since 0.28; its plugin brings bitsandbytes back (not tried).
    of_plugin = stored in ("nf4", "fp4", "int8") and not is_installed("vllm_bnb_plugin")
    if of_plugin or stored == "hqq":
        raise AdzError(
            f"{vllm_release()} does not read {base.name}, which is stored by {stored}",
            f"adz serve {base.name} --engine transformers",
        )


def why_not_vllm(version: Version, base: BaseRecord, max_rank: int) -> str | None:
    """Why vLLM does not serve a version, as far as its manifest tells; None when it does."""
    rank = int(version.manifest.adapter.get("rank") or 0)
    return (
        why_not_servable(version, base)
        or why_not_method(version)
        or _why_not_rank(version, rank, max_rank)
    )


def why_not_method(version: Version) -> str | None:
    """Why vLLM does not serve the version's method as it is; None when it does."""
    name = version.manifest.method
    method = load_plugins().components(specs.Method).get(name)
    on_gpu = name in METHODS and not is_cpu_build()
    if method is not None and method.vllm and not on_gpu:
        return None
    where = " on a GPU" if on_gpu else ""
    return (
        f"vLLM cannot serve {version.reference}{where}: its method is {name}; "
        "use adz serve --engine transformers"
    )


def why_not_files(version: Version, directory: Path, max_rank: int) -> str | None:
    """Why vLLM would refuse the adapter in `directory`, or silently leave a part of it out."""
    config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("peft_type") in TYPES:
        return None
    rank = max(map(int, _ranks(config)))
    return why_not_as_it_is(version, directory) or _why_not_rank(version, rank, max_rank)


def why_not_as_it_is(version: Version, directory: Path) -> str | None:
    """`why_not_files`, the rank aside: what a conversion to LoRA may cure."""
    config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("peft_type") in TYPES:
        return None
    feature = next(_unsupported(config), None)
    if feature:
        return f"vLLM cannot serve {version.reference}: it has {feature}"
    names = read_header(directory / "adapter_model.safetensors")
    strange = next((name for name in names if not _TENSOR.fullmatch(name)), None)
    return (
        f"vLLM would leave out {strange} of {version.reference}, which is not a LoRA factor"
        if strange
        else None
    )


def unserved(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Iterator[str]:
    """What vLLM would refuse in an adapter, or silently leave out; for `specs.Engine`."""
    if config.get("peft_type") in TYPES:
        if not is_cpu_build():
            yield f"refuses it on a GPU: its method is {config['peft_type']}"
        return
    if config.get("peft_type") != "LORA":
        yield f"refuses it: its method is {config.get('peft_type')}"
        return
    for feature in _unsupported(config):
        yield f"refuses {feature}"
    ranks = [rank for rank in _ranks(config) if type(rank) is int]
    highest = max(ranks, default=0)
    if highest > LEGAL_RANKS[-1]:
        yield f"refuses rank {highest}, at most {LEGAL_RANKS[-1]} are served"
    elif highest > 0 and highest not in LEGAL_RANKS:
        yield f"has no rank {highest}: every slot is padded to {smallest_legal_rank([highest])}"
    strange = [name for name in tensors if not _TENSOR.fullmatch(name)]
    if strange:
        yield f"leaves out {len(strange)} tensors that are no LoRA factors, such as {strange[0]}"
    convolution = next((name for name, info in tensors.items() if len(info.shape) == 4), None)
    if convolution:
        yield f"adapts no convolution, such as {convolution}"


def smallest_legal_rank(ranks: Iterable[int]) -> int:
    """The smallest rank that vLLM allows and that holds all of `ranks`; larger ones are left
    out. Every slot is padded to it."""
    servable = [rank for rank in ranks if rank <= LEGAL_RANKS[-1]]
    wanted = max(servable, default=DEFAULT_RANK)
    return next(legal for legal in LEGAL_RANKS if legal >= wanted)


def _ranks(config: Mapping[str, Any]) -> list[Any]:
    return [config["r"], *(config.get("rank_pattern") or {}).values()]


def _unsupported(config: Mapping[str, Any]) -> Iterator[str]:
    for key, words in _FEATURES.items():
        if config.get(key):
            yield words
    if config.get("bias", "none") != "none":
        yield "trained biases"
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in _PLAIN_INITS:
        yield f"a changed base (init_lora_weights {init}); convert it to plain LoRA with PEFT"


def _why_not_rank(version: Version, rank: int, max_rank: int) -> str | None:
    if rank <= max_rank:
        return None
    if rank > LEGAL_RANKS[-1]:
        return f"vLLM cannot serve {version.reference}: rank {rank}, at most {LEGAL_RANKS[-1]}"
    return (
        f"{version.reference} has rank {rank}, this server takes up to {max_rank}: "
        f"restart it with --max-rank {smallest_legal_rank([rank])}"
    )
