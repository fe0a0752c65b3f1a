"""A base in a GGUF file, dequantised once to float32 safetensors below ADZ_HOME."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from adapterhub.bases.digests import hash_file, weights_digest
from adapterhub.errors import AdzError, usage_error
from adapterhub.home import adz_home
from adapterhub.plugins import is_installed
from adapterhub.protocols import Progress
from adapterhub.staging import home_staging, staging_folder

_DERIVATION = "derivation.json"
_NEEDED = ("torch", "transformers", "gguf", "safetensors")


def dequantise(file: Path, progress: Progress) -> tuple[Path, dict[str, Any]]:
    """Return the directory with the dequantised model, and how it was derived.

    The directory is named by the file's sha256, so a second call finds the first one's
    result; it is written beside it and renamed, so it is there whole or not at all.
    """
    if not file.is_file():
        raise usage_error(f"there is no {file}")
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise AdzError(f"{file} is not a GGUF file", "fetch it again")
    digest = hash_file(file)
    slug = re.sub(r"[^a-z0-9._-]+", "-", file.stem.lower())[:64]
    target = adz_home() / "bases" / f"{slug}-{digest.removeprefix('sha256:')[:12]}"
    finished = _finished(target)
    if finished is not None:
        return target, finished
    missing = [module for module in _NEEDED if not is_installed(module)]
    if missing:
        raise AdzError(f"a GGUF file needs {', '.join(missing)}", "pip install 'adapterhub[train]'")
    target.parent.mkdir(parents=True, exist_ok=True)
    with staging_folder(home_staging()) as folder:
        staging = folder / "base"
        with progress.task(f"dequantising {file.name}", None):
            derivation = _convert(file, digest, staging)
        # Another process may have finished the same meanwhile.
        if _finished(target) is None:
            shutil.rmtree(target, ignore_errors=True)
            staging.rename(target)
    return target, derivation


def _convert(file: Path, digest: str, directory: Path) -> dict[str, Any]:
    import transformers

    model, tokenizer, tensor_type = _read(file)
    _write(model, tokenizer, directory)
    derivation = {
        "kind": "dequantised",
        "file": file.name,
        "sha256": digest,
        "tensor_type": tensor_type,
        "dtype": "float32",
        "weights": weights_digest(directory),
        "transformers": transformers.__version__,
    }
    (directory / _DERIVATION).write_text(json.dumps(derivation, indent=2), encoding="utf-8")
    return derivation


def read_model(file: Path, **arguments: Any) -> Any:
    """The model in a GGUF file, in float32, as transformers reads it. `arguments` are more for
    `from_pretrained`."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, GgufConfig

    # Our own bar stands in their place.
    transformers.utils.logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
        **arguments,
    )


def _read(file: Path) -> tuple[Any, Any, str]:
    """The model in float32, its tokenizer, and the commonest type of the file's tensors."""
    from gguf import GGUFReader
    from transformers import AutoTokenizer

    try:
        types = Counter(tensor.tensor_type.name for tensor in GGUFReader(file).tensors)
        model = read_model(file)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        return model, tokenizer, types.most_common(1)[0][0]
    # The parsers of foreign files raise whatever they stumble over.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise AdzError(
            f"{file} cannot be read: {type(error).__name__}: {reason}",
            "is its architecture one that transformers reads from GGUF?",
        ) from error


def _write(model: Any, tokenizer: Any, directory: Path) -> None:
    from safetensors import SafetensorError

    try:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    # safetensors has an exception of its own for a full disk.
    except (OSError, SafetensorError) as error:
        raise AdzError(
            f"the base cannot be written to {adz_home() / 'bases'}: {error}",
            "free some space, or set ADZ_HOME to another disk",
        ) from error


def _finished(directory: Path) -> dict[str, Any] | None:
    """How an earlier call derived `directory`; None where its result is not there unchanged."""
    try:
        value = json.loads((directory / _DERIVATION).read_text(encoding="utf-8"))
        unchanged = value["weights"] == weights_digest(directory)
    except (OSError, ValueError, TypeError, KeyError, AdzError):
        return None
    return value if unchanged else None
