"""A LoRA alone as a GGUF file, which llama.cpp puts over a GGUF of the base."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch

from adapterhub import specs
from adapterhub.bases.adapter_files import CONFIG, WEIGHTS, lora_scale
from adapterhub.bases.digests import read_config
from adapterhub.bases.headers import TensorInfo, read_header
from adapterhub.bases.modules import split_key
from adapterhub.bases.tensors import read_tensor
from adapterhub.errors import AdzError
from adapterhub.export.fold import ALONE
from adapterhub.export.gguf import check_new_file, default_gguf, encoded, write_tensors
from adapterhub.export.llama_cpp import LlamaCppModel
from adapterhub.export.merged import staged
from adapterhub.export.ollama import Modelfile
from adapterhub.export.result import Exported
from adapterhub.export.subject import Subject, find_subject
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Progress, Registry

_FACTORS = {"lora_A.weight": "a", "lora_B.weight": "b", "lora_embedding_A": "a",
            "lora_embedding_B": "b"}  # fmt: skip
# What makes an adapter more than B A.
_REFUSED = (
    "alora_invocation_tokens", "layer_replication", "lora_bias", "modules_to_save",
    "target_parameters", "trainable_token_indices", "use_bdlora", "use_dora", "use_qalora",
)  # fmt: skip


def export_lora_gguf(
    registry: Registry,
    reference: str,
    file: Path | None = None,
    *,
    kind: str = "f16",
    ollama_base: str | None = None,
    progress: Progress,
) -> Exported:
    """Write the LoRA of `reference` into the new GGUF `file`, without its base.

    kind: `f16`, `bf16` or `f32`. ollama_base: also a Modelfile beside it, over this model: a
    GGUF file of the base, or a name that Ollama knows. Raises AdzError for what llama.cpp cannot
    put over a base; the file appears whole or not at all.
    """
    subject = find_subject(registry, reference, progress)
    target = file or default_gguf(subject.reference, f"lora-{kind}")
    check_new_file(target)
    layout = LlamaCppModel(read_config(Path(subject.base.path)))
    modules = _read_modules(subject, layout)
    modelfile = Modelfile(subject, target.parent) if ollama_base else None
    with staged(target, target.name) as made:
        _write(modules, layout, made, kind, subject.reference)
        size = made.stat().st_size
        files: tuple[Path, ...] = ()
        if modelfile and ollama_base:
            files = (modelfile.write(ollama_base, f"./{target.name}"),)
        made.rename(target)
    return Exported(subject.reference, "lora-gguf", target, kind, size, len(modules), files=files)


@dataclass(frozen=True, slots=True)
class _Module:
    """One adapted weight; the update is scale B A, with A (r, n) and B (m, r)."""

    name: str
    file: Path
    a: TensorInfo
    b: TensorInfo
    scale: float

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def is_embedding(self) -> bool:
        return self.name.endswith("embed_tokens.weight")


def _read_modules(subject: Subject, layout: LlamaCppModel) -> list[_Module]:
    version, directory = subject.require_version()
    config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    method = load_plugins().get(specs.Method, version.manifest.method)
    hint = "adz export REF --gguf folds it into the base" if method.mergeable else ALONE
    if config.get("peft_type") != "LORA":
        raise AdzError(f"{version.reference} is {method.name}, not a LoRA", hint)
    for option in _REFUSED:
        if config.get(option):
            raise AdzError(f"llama.cpp has no {option}, which {version.reference} uses", hint)
    found: dict[str, dict[str, TensorInfo]] = defaultdict(dict)
    for name, info in read_header(directory / WEIGHTS).items():
        key = split_key(name)
        if key is None or key.parameter not in _FACTORS or len(info.shape) != 2:
            raise AdzError(f"{version.reference}: {name} is no factor of a matrix", hint)
        found[key.module][_FACTORS[key.parameter]] = info
    # llama.cpp has one tensor for both, and would change both.
    if layout.config.get("tie_word_embeddings") and "lm_head" in found:
        raise AdzError(
            f"{version.reference} changes lm_head, which is one with the embedding", hint
        )
    return [
        _Module(
            f"{module}.weight", directory / WEIGHTS, parts["a"], parts["b"],
            lora_scale(config, module, parts["a"].shape[0]),
        )
        for module, parts in found.items()
    ]  # fmt: skip


def _write(
    modules: list[_Module], layout: LlamaCppModel, path: Path, kind: str, reference: str
) -> None:
    from gguf import GGMLQuantizationType, GGUFType, GGUFWriter, Keys

    # llama.cpp multiplies by alpha / r. One alpha is written; a module whose scale is another
    # one carries the difference in B.
    alpha = modules[0].scale * modules[0].rank
    stored = GGMLQuantizationType[kind.upper()]
    writer = GGUFWriter(path, layout.name)
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, alpha)
    writer.add_name(reference)
    factors: dict[str, tuple[_Module, str]] = {}
    for module in modules:
        for side in "ab":
            factors[f"{layout.tensor_name(module.name)}.lora_{side}"] = (module, side)
    announced = []
    for name, (module, side) in factors.items():
        info = module.a if side == "a" else module.b
        shape = info.shape[::-1] if module.is_embedding and side == "a" else info.shape
        announced.append((name, stored, shape))
    write_tensors(writer, announced, path)
    for name, (module, side) in factors.items():
        writer.write_tensor_data(encoded(_factor(module, side, alpha, layout), stored, name)[0])
    writer.close()


def _factor(module: _Module, side: str, alpha: float, layout: LlamaCppModel) -> torch.Tensor:
    if side == "a":
        a = read_tensor(module.file, module.a).float()
        # llama.cpp looks the token up among the rows.
        return a.T if module.is_embedding else a
    b = layout.reorder(module.name, read_tensor(module.file, module.b).float())
    scale = module.scale * module.rank / alpha
    return b if scale == 1 else b * scale
