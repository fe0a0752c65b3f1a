"""The base with the adapter folded in, as one GGUF file for llama.cpp: tensor by tensor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from adapterhub.bases.sources.gguf import read_model
from adapterhub.errors import AdzError
from adapterhub.export import k_quants
from adapterhub.export.base import StoredBase
from adapterhub.export.compare import compare_logits
from adapterhub.export.fold import FoldedModel, Loss, fold_model
from adapterhub.export.llama_cpp import LlamaCppModel
from adapterhub.export.llama_cpp_vocabulary import write_vocabulary
from adapterhub.export.merged import check_new, staged
from adapterhub.export.ollama import Modelfile
from adapterhub.export.result import Exported
from adapterhub.export.subject import find_subject
from adapterhub.protocols import Progress, Registry

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

_ROWS = 4096


def default_gguf(reference: str, kind: str) -> Path:
    """Where an export goes that names no file: `team-sql-3-q8_0.gguf`, here."""
    return Path(f"{reference.replace('@', '-').replace('/', '-')}-{kind}.gguf")


def export_gguf(
    registry: Registry,
    reference: str,
    file: Path | None = None,
    *,
    kind: str,
    ollama: bool = False,
    data: Path | None = None,
    compare: bool = True,
    progress: Progress,
) -> Exported:
    """Write the base of `reference` with the adapter folded in into the new GGUF `file`.

    kind: one of `mixtures.KINDS`, of the matrices; vectors are float32. A base's own name writes
    the base as it is. ollama: a Modelfile beside it. The comparison reads the file with
    transformers. Raises AdzError; the file appears whole or not at all.
    """
    subject = find_subject(registry, reference, progress)
    target = file or default_gguf(subject.reference, kind)
    check_new_file(target)
    base = StoredBase(subject.base)
    layout = LlamaCppModel(base.config)
    modelfile = Modelfile(subject, target.parent) if ollama else None
    model = fold_model(base, subject.version, subject.directory, progress)
    with staged(target, target.name) as made:
        loss = _write(model, layout, made, kind, subject.reference, progress)
        comparison = None
        if compare and layout.has_permuted_biases:
            progress.note("not compared: transformers reads no biases of q and k from GGUF")
        elif compare:
            with progress.task("comparing the logits", None):
                comparison = compare_logits(
                    subject, lambda: _read_back(made, model, layout), data, kind
                )
        size = made.stat().st_size
        files = (modelfile.write(f"./{target.name}"),) if modelfile else ()
        made.rename(target)
    return Exported(
        subject.reference, "gguf", target, kind, size, model.changed, model.untied,
        {kind: loss}, comparison, files,
    )  # fmt: skip


def check_new_file(path: Path) -> None:
    """A usage error where there is something at `path`."""
    check_new(path)
    if path.is_dir():
        raise AdzError(f"{path} is a directory", "name a file in it")


def write_tensors(
    writer: GGUFWriter, tensors: list[tuple[str, GGMLQuantizationType, tuple[int, ...]]], path: Path
) -> None:
    """Announce every tensor and write all that stands before their data."""
    import numpy as np
    from gguf import quant_shape_to_byte_shape

    for name, kind, shape in tensors:
        size = int(np.prod(quant_shape_to_byte_shape(shape, kind)))
        writer.add_tensor_info(name, shape, np.dtype(np.float32), size, raw_dtype=kind)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()


def encoded(tensor: torch.Tensor, kind: GGMLQuantizationType, name: str) -> tuple[Any, Any]:
    """The tensor as `kind` stores it, and as it is read back in float32; both arrays of numpy."""
    import numpy as np
    from gguf.quants import dequantize

    array = tensor.float().contiguous().numpy()
    with np.errstate(over="ignore"):
        # Rows at a time: quantising takes several copies.
        blocks = [_quantised(array[i : i + _ROWS], kind) for i in range(0, len(array), _ROWS)]
    data = np.concatenate(blocks)
    back = dequantize(data, kind).reshape(array.shape)
    if not np.isfinite(back).all():
        raise AdzError(f"{name} is too large for {kind.name}", "write it as bf16")
    return data, back


def _quantised(array: Any, kind: GGMLQuantizationType) -> Any:
    from gguf.quants import quantize

    # gguf reads the k-quants and cannot make them.
    if kind.name.endswith("_K"):
        return k_quants.quantize(torch.from_numpy(array), kind.name.lower()).numpy()
    return quantize(array, kind)


def _write(
    model: FoldedModel,
    layout: LlamaCppModel,
    path: Path,
    kind: str,
    reference: str,
    progress: Progress,
) -> Loss:
    from gguf import GGMLQuantizationType as Kind
    from gguf import GGUFWriter

    writer = GGUFWriter(path, layout.name)
    writer.add_type("model")
    writer.add_name(reference)
    layout.write_parameters(writer, kind)
    write_vocabulary(writer, model.base.directory, int(model.base.config["vocab_size"]))
    names = [name for shard in model.shards for name in shard]
    # A head that is one with the embedding is not written: llama.cpp takes the embedding.
    if not model.untied:
        names = [name for name in names if name not in model.base.tied]
    ours = {name: layout.tensor_name(name) for name in names}
    mixture = layout.mixture(kind, tied="output.weight" not in ours.values())
    kinds = {name: mixture.type_of(ours[name], model.shapes[name]) for name in names}
    tensors = [(ours[name], kinds[name], model.shapes[name]) for name in names]
    factors = layout.rope_factors()
    if factors is not None:
        tensors.append(("rope_freqs.weight", Kind.F32, tuple(factors.shape)))
    loss = Loss()
    write_tensors(writer, tensors, path)
    with progress.task("folding tensors", len(names)) as task:
        for name in names:
            before, after = model.read(name)
            before, after = layout.reorder(name, before), layout.reorder(name, after)
            data, back = encoded(after, kinds[name], name)
            loss.add(before, after, torch.from_numpy(back))
            writer.write_tensor_data(data)
            task.advance(1, name)
    if factors is not None:
        writer.write_tensor_data(factors.numpy())
    writer.close()
    return loss


def _read_back(path: Path, model: FoldedModel, layout: LlamaCppModel) -> Any:
    from transformers import AutoConfig

    if layout.rope_factors() is None:
        return read_model(path)
    # transformers reads everything but the factors of the rotation from the file.
    config = AutoConfig.from_pretrained(model.base.directory, local_files_only=True)
    config.tie_word_embeddings = config.tie_word_embeddings and not model.untied
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return read_model(path, config=config)
