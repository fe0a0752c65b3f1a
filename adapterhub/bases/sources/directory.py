"""A base in a directory, as `save_pretrained` writes it."""

from __future__ import annotations

from pathlib import Path

from adapterhub.errors import AdzError, usage_error


def check_directory(path: Path) -> Path:
    """Return `path` when it can hold a base; what is in it is checked when it is hashed."""
    if not path.exists():
        raise usage_error(f"there is no {path}", "give a directory that holds a base model")
    if not path.is_dir():
        raise usage_error(f"{path} is not a directory", "give a directory or a .gguf file")
    if (path / "adapter_config.json").exists():
        # transformers would silently load the adapter on top of the base.
        raise AdzError(f"{path} holds an adapter, not a base", "adz import it, and add its base")
    return path
