"""The directory that a user imports: what is taken from it, and what it says about itself."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adapterhub.bases.adapter_files import CONFIG, MAX_PAYLOAD, PAYLOAD, README, WEIGHTS
from adapterhub.bases.digests import hash_file
from adapterhub.bases.strict_json import parse_object
from adapterhub.errors import EXIT_VERIFICATION, AdzError, usage_error
from adapterhub.manifest import Manifest

EXPORTED = "manifest.json"
MAX_JSON = 2**20
_OTHERS = {
    "adapters.safetensors": "MLX",
    "pytorch_adapter.bin": "the library adapters",
    "pytorch_lora_weights.safetensors": "diffusers",
}
PICKLES = ("adapter_model.bin", "adapter_model.pt", "pytorch_model.bin")


def check_source(directory: Path, *, convert: bool = False) -> Path | None:
    """Raise AdzError when `directory` holds no adapter that can be imported.

    convert: whether pickled weights will do; then their file is returned where there are no
    others.
    """
    if not directory.is_dir():
        raise usage_error(f"there is no directory {directory}", "give the adapter's directory")
    _check_format(directory)
    if not (directory / CONFIG).exists():
        is_base = (directory / "config.json").exists()
        raise usage_error(
            f"{directory} holds no adapter: there is no {CONFIG}",
            "it looks like a base: adz base add" if is_base else "",
        )
    if (directory / WEIGHTS).exists():
        return None
    pickles = [directory / name for name in PICKLES if (directory / name).exists()]
    if not pickles:
        raise usage_error(f"{directory} holds no adapter: there is no {WEIGHTS}")
    if not convert:
        raise AdzError(
            f"{pickles[0]} is a pickle, which can run code when it is loaded",
            "only safetensors are stored: --convert reads it in a locked-down process and "
            "stores safetensors",
            exit_code=EXIT_VERIFICATION,
        )
    return pickles[0]


def _check_format(directory: Path) -> None:
    """Refuse adapters of other libraries by their name."""
    if (directory / WEIGHTS).exists():
        return
    for file, library in _OTHERS.items():
        if (directory / file).exists():
            raise AdzError(
                f"{directory} holds an adapter of {library} ({file})",
                f"only PEFT's format is imported: {CONFIG} beside {WEIGHTS}",
            )


def copy_payload(directory: Path, target: Path) -> list[str]:
    """Copy the adapter's own files and return the names of the rest. Reads only."""
    for name in PAYLOAD:
        source = directory / name
        if source.is_symlink() and not _is_hub_cache(source):
            raise AdzError(
                f"{source} is a symbolic link",
                "copy the file that it points to",
                exit_code=EXIT_VERIFICATION,
            )
        if source.exists():
            _take(source, target / name)
    rest = [p for p in directory.iterdir() if p.name not in (*PAYLOAD, EXPORTED)]
    return sorted(p.name + "/" * p.is_dir() for p in rest)


def read_adapter_config(directory: Path) -> dict[str, Any]:
    """The adapter's configuration; the registry's gates check it in full."""
    try:
        return parse_object(_read_small(directory / CONFIG))
    except ValueError as error:
        raise AdzError(
            f"{CONFIG} is malformed: {error}", "save the adapter again", exit_code=EXIT_VERIFICATION
        ) from error


def method_name(config: Mapping[str, Any]) -> str:
    """The method in our words: `lora`, `rslora`, `dora`, `ia3`, `prefix`, `prompt`, or PEFT's
    own name in lower case."""
    kind = str(config.get("peft_type", ""))
    if kind == "LORA":
        if config.get("use_dora"):
            return "dora"
        return "rslora" if config.get("use_rslora") else "lora"
    known = {"PREFIX_TUNING": "prefix", "PROMPT_TUNING": "prompt"}
    return known.get(kind, kind.lower())


def read_exported(directory: Path, staged: Path) -> Manifest | None:
    """The manifest that `adz export` wrote, when the staged files are exactly those that it
    names; None otherwise."""
    path = directory / EXPORTED
    if not path.is_file() or path.is_symlink():
        return None
    try:
        manifest = Manifest.model_validate(parse_object(_read_small(path)))
    except (ValueError, ValidationError):
        return None
    digests = {file.name: hash_file(file) for file in staged.iterdir()}
    # Where the version has no README, the export wrote a card, which is no part of it.
    card = digests.pop(README, None) if README not in manifest.files else None
    if digests != {name: record.sha256 for name, record in manifest.files.items()}:
        return None
    if card:
        (staged / README).unlink()
    return manifest


def _take(source: Path, target: Path) -> None:
    """A second name for a file on the same file system, or a copy: what is stored is another
    copy, made when the registry reads it."""
    if not source.is_file():
        raise AdzError(f"{source} is not a plain file", exit_code=EXIT_VERIFICATION)
    size = source.stat().st_size
    if size > MAX_PAYLOAD:
        raise AdzError(
            f"{source} has {size} bytes, at most {MAX_PAYLOAD} are stored",
            exit_code=EXIT_VERIFICATION,
        )
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)


def _is_hub_cache(link: Path) -> bool:
    """Whether a link is the Hugging Face cache's own: snapshots/<revision>/x -> blobs/<hash>."""
    target = link.resolve()
    repository = link.absolute().parent.parent.parent.resolve()
    return target.parent == repository / "blobs" and target.is_file()


def _read_small(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAX_JSON:
        raise ValueError(f"it has {size} bytes, at most {MAX_JSON} are read")
    return path.read_bytes()
