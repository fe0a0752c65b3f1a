"""The base with the adapter folded in, as a Hugging Face directory: shard by shard."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from adapterhub.bases.digests import INDEX, identity_files, weight_files
from adapterhub.bases.tensors import TensorWriter, tensor_bytes
from adapterhub.errors import usage_error
from adapterhub.export.base import FLOATS, StoredBase
from adapterhub.export.compare import compare_logits
from adapterhub.export.fold import FoldedModel, Loss, fold_model
from adapterhub.export.result import Exported
from adapterhub.export.subject import Subject, find_subject
from adapterhub.protocols import Progress, Registry
from adapterhub.staging import staging_folder

DTYPES = {
    "f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16
}  # fmt: skip
_SHORT = {dtype: name for name, dtype in DTYPES.items()}
# Beside what loading needs: how it answers, and under which terms.
_ALONGSIDE = ("generation_config.json", "LICENSE*", "NOTICE*")


def export_merged(
    registry: Registry,
    reference: str,
    directory: Path,
    *,
    dtype: str | None = None,
    data: Path | None = None,
    compare: bool = True,
    progress: Progress,
) -> Exported:
    """Write the base of `reference` with the adapter folded in into the new `directory`.

    dtype: `f32`, `f16` or `bf16`; None: what the base is stored in. Memory is bounded by the
    largest tensor, but for a method that only merges whole models. `compare` loads both
    models, one after the other, and refuses a difference of their logits above what the dtype
    explains; `data` are the rows for it. Raises AdzError; the directory appears whole or not at
    all.
    """
    check_new(directory)
    subject = find_subject(registry, reference, progress)
    base = StoredBase(subject.base)
    model = fold_model(base, subject.version, subject.directory, progress)
    name = dtype or _SHORT[base.dtype]
    with staged(directory, "merged") as made:
        made.mkdir()
        losses = _write_weights(model, made, DTYPES[name], progress)
        _write_rest(subject, model, made, name)
        comparison = None
        if compare:
            with progress.task("comparing the logits", None):
                comparison = compare_logits(subject, lambda: _load(made), data, name)
        size = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
        made.rename(directory)
    return Exported(
        subject.reference, "merged", directory, name, size, model.changed, model.untied,
        losses, comparison,
    )  # fmt: skip


def check_new(path: Path) -> None:
    """A usage error where something is at `path` already; an empty directory may be."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise usage_error(f"{path} exists already", "give another path")
    if path.is_dir() and any(path.iterdir()):
        raise usage_error(f"{path} is not empty", "give a new directory")


@contextmanager
def staged(target: Path, name: str) -> Iterator[Path]:
    """A path that is not there yet, in a folder beside `target` that vanishes with the block."""
    with staging_folder(target.parent, f".{target.name}.adz-") as staging:
        yield staging / name


def _write_weights(
    model: FoldedModel, directory: Path, dtype: torch.dtype, progress: Progress
) -> dict[str, Loss]:
    rounding, packing = Loss(), Loss()
    count = len(model.shards)
    index: dict[str, str] = {}
    size = 0
    with progress.task("folding tensors", len(model.shapes)) as task:
        for number, names in enumerate(model.shards, 1):
            many = f"model-{number:05}-of-{count:05}.safetensors"
            file = "model.safetensors" if count == 1 else many
            dtypes = {name: _dtype_of(model, name, dtype) for name in names}
            header = {name: (dtypes[name], model.shapes[name]) for name in names}
            with TensorWriter(directory / file, header) as writer:
                for name in names:
                    if model.is_stored(name, dtypes[name]):
                        writer.write(model.base.raw(name))
                    else:
                        writer.write([_fold(model, name, dtypes[name], rounding, packing)])
                    task.advance(1, name)
            index |= dict.fromkeys(names, file)
            size += writer.size
    if count > 1:
        content = {"metadata": {"total_size": size}, "weight_map": dict(sorted(index.items()))}
        _write_json(directory / INDEX, content)
    losses = {_SHORT[dtype]: rounding}
    return losses | ({model.base.packing.name: packing} if model.base.packing else {})


def _dtype_of(model: FoldedModel, name: str, dtype: torch.dtype) -> torch.dtype:
    stored = model.stored_dtype(name)
    return stored if stored is not None and stored not in FLOATS else dtype


def _fold(
    model: FoldedModel, name: str, dtype: torch.dtype, rounding: Loss, packing: Loss
) -> bytes:
    before, after = model.read(name)
    stored = after.to(dtype)
    if model.is_changed(name):
        rounding.add(before, after, stored)
        if model.base.packing and model.stored_dtype(name) is None:
            packing.add(before, after, model.base.packing.repack(after))
    return tensor_bytes(stored)


def _write_rest(subject: Subject, model: FoldedModel, directory: Path, dtype: str) -> None:
    source = model.base.directory
    weights = set(weight_files(source))
    files = [file for file in identity_files(source) if file not in weights]
    for pattern in _ALONGSIDE:
        files += [file for file in sorted(source.glob(pattern)) if file.is_file()]
    for file in files:
        if file.name != INDEX:
            target = directory / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    config: dict[str, Any] = dict(model.base.config)
    config.pop("quantization_config", None)
    config.pop("torch_dtype", None)
    config["dtype"] = str(DTYPES[dtype]).removeprefix("torch.")
    if model.untied:
        config["tie_word_embeddings"] = False
    _write_json(directory / "config.json", config)
    if subject.version:
        manifest = subject.version.manifest.model_dump(mode="json", exclude_none=True)
        _write_json(directory / "manifest.json", manifest)


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    path.write_text(text, encoding="utf-8")
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _load(directory: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
