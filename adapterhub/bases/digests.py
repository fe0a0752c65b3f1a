"""The identity of a base model: digests of its weights, architecture, tokenizer, chat template."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapterhub.bases.headers import BASE, TensorInfo, read_header
from adapterhub.errors import AdzError
from adapterhub.manifest import BaseDigests, canonical_json, sha256_of

INDEX = "model.safetensors.index.json"

# What config.json says beside the architecture: where it came from, how it was saved, and
# which tokens generation uses. Two models that differ only here compute the same function.
_NOT_ARCHITECTURE = frozenset({
    "_name_or_path", "_attn_implementation", "_attn_implementation_autoset", "auto_map",
    "bos_token_id", "dtype", "eos_token_id", "pad_token_id", "torch_dtype",
    "transformers_version", "use_cache",
})  # fmt: skip
_TOKENIZER_FILES = (
    "added_tokens.json", "merges.txt", "special_tokens_map.json", "spiece.model",
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt",
)  # fmt: skip
_TOKENIZER_CONFIG = "tokenizer_config.json"
# The template has a digest of its own; the rest says how the tokenizer was loaded and saved.
_NOT_TOKENIZER = frozenset({
    "chat_template", "is_local", "local_files_only", "name_or_path", "processor_class",
    "tokenizer_file",
})  # fmt: skip
_CHUNK = 2**22


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files that loading `directory` would read, sorted by name.

    With an index these are its shards; transformers prefers a `model.safetensors` beside it,
    so that one counts too. Without an index vLLM reads every safetensors file.
    """
    if not (directory / INDEX).is_file():
        files = sorted(directory.glob("*.safetensors"))
    else:
        names = set(_index_shards(directory))
        if (directory / "model.safetensors").exists():
            names.add("model.safetensors")
        files = [directory / name for name in sorted(names)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise AdzError(f"{directory} lacks {', '.join(missing[:3])}", "fetch the base again")
    if not files:
        raise AdzError(f"there are no safetensors in {directory}", _no_weights_hint(directory))
    return files


def identity_files(directory: Path) -> list[Path]:
    """Every file that the digests depend on, sorted by name."""
    names = ("config.json", INDEX, _TOKENIZER_CONFIG, "chat_template.json", *_TOKENIZER_FILES)
    files = [directory / name for name in names if (directory / name).is_file()]
    return sorted({*files, *weight_files(directory), *_template_files(directory)})


def copy_companions(source: Path, target: Path) -> None:
    """Copy what the digests of the base in `source` depend on, and its generation settings, but
    for the weights and config.json: who makes a base of another one writes these itself."""
    own = {*weight_files(source), source / "config.json", source / INDEX}
    for file in [*identity_files(source), source / "generation_config.json"]:
        if file.is_file() and file not in own:
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)


def read_tensors(directory: Path) -> dict[str, TensorInfo]:
    """Every tensor of a base by name, from the headers of all its files."""
    tensors: dict[str, TensorInfo] = {}
    for file in weight_files(directory):
        tensors.update(read_header(file, BASE))
    return tensors


def compute_digests(
    directory: Path, hashed: Callable[[int], None] = lambda count: None
) -> BaseDigests:
    """Hash a base in full. `hashed` is told of every piece, in bytes."""
    return BaseDigests(
        weights=weights_digest(directory, hashed),
        arch=arch_digest(directory),
        tokenizer=_tokenizer_digest(directory),
        chat_template=_chat_template_digest(directory),
    )


def weights_digest(directory: Path, hashed: Callable[[int], None] = lambda count: None) -> str:
    """A digest over the sorted (file, sha256) pairs of the safetensors files."""
    pairs = [(file.name, hash_file(file, hashed)) for file in weight_files(directory)]
    return sha256_of(canonical_json(pairs))


def arch_digest(directory: Path) -> str:
    """A digest over the canonical configuration and every tensor's name, shape and dtype."""
    config = read_config(directory)
    subset = {key: value for key, value in config.items() if key not in _NOT_ARCHITECTURE}
    tensors = [(n, list(t.shape), t.dtype) for n, t in sorted(read_tensors(directory).items())]
    return sha256_of(canonical_json({"config": subset, "tensors": tensors}))


def read_config(directory: Path) -> dict[str, Any]:
    """config.json of a base; raises AdzError when it is missing or malformed."""
    return _read_json(directory / "config.json", "a base needs the config.json of transformers")


def describe_tensors(tensors: dict[str, TensorInfo]) -> tuple[int, str]:
    """The number of parameters, and the commonest dtype."""
    dtypes = Counter(info.dtype for info in tensors.values())
    return sum(info.elements for info in tensors.values()), dtypes.most_common(1)[0][0]


def hash_file(path: Path, hashed: Callable[[int], None] = lambda count: None) -> str:
    """`sha256:hex` of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
            hashed(len(piece))
    return "sha256:" + digest.hexdigest()


def _index_shards(directory: Path) -> list[str]:
    index = _read_json(directory / INDEX, "fetch the base again")
    shards = index.get("weight_map")
    names = set(shards.values()) if isinstance(shards, dict) else set()
    if not names or not all(isinstance(n, str) and n == Path(n).name for n in names):
        raise AdzError(f"{directory / INDEX} is malformed", "fetch the base again")
    return sorted(names)


def _no_weights_hint(directory: Path) -> str:
    if any(directory.glob("*.bin")) or any(directory.glob("*.pt")):
        return "pickle weights can run code when loaded: save the model as safetensors"
    if any(directory.glob("*.gguf")):
        return "give the .gguf file itself"
    return "give a directory with config.json and *.safetensors"


def _tokenizer_digest(directory: Path) -> str:
    present = [directory / name for name in _TOKENIZER_FILES if (directory / name).is_file()]
    if not present:
        raise AdzError(f"there is no tokenizer in {directory}", "save it beside the weights")
    pairs = [(file.name, hash_file(file)) for file in present]
    config = _tokenizer_config(directory)
    subset = {key: value for key, value in config.items() if key not in _NOT_TOKENIZER}
    return sha256_of(canonical_json({"files": pairs, "config": subset}))


def _chat_template_digest(directory: Path) -> str | None:
    """Over what transformers would use: template files first, then the tokenizer's own."""
    files = _template_files(directory)
    if files:
        names = {str(file.relative_to(directory)): file.read_text("utf-8") for file in files}
        templates: Any = names.get("chat_template.jinja") if len(names) == 1 else names
    elif (directory / "chat_template.json").is_file():
        legacy = _read_json(directory / "chat_template.json", "fetch the base again")
        templates = legacy.get("chat_template")
    else:
        templates = _tokenizer_config(directory).get("chat_template")
    return sha256_of(canonical_json(templates)) if templates else None


def _template_files(directory: Path) -> list[Path]:
    own = [directory / "chat_template.jinja"]
    extra = sorted((directory / "additional_chat_templates").glob("*.jinja"))
    return [file for file in [*own, *extra] if file.is_file()]


def _tokenizer_config(directory: Path) -> dict[str, Any]:
    path = directory / _TOKENIZER_CONFIG
    return _read_json(path, "fetch the base again") if path.is_file() else {}


def _read_json(path: Path, hint: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AdzError(f"there is no {path.name} in {path.parent}", hint) from None
    except (ValueError, RecursionError) as error:
        raise AdzError(f"{path} is malformed: {error}", hint) from error
    if not isinstance(value, dict):
        raise AdzError(f"{path} is malformed: not a JSON object", hint)
    return value
