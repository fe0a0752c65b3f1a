"""The base and the adapters as GGUF files, written once and kept by digest.

Below `ADZ_HOME/cache/adz-llama-cpp/VERSION`, where VERSION is that of adapterhub, which writes
them: `bases/HEX-KIND.gguf` and `adapters/HEX.gguf`. All of it can be deleted at any time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock

import adapterhub
from adapterhub import Hub
from adapterhub.manifest import BaseRecord, Version, canonical_json, sha256_of
from adapterhub.protocols import Progress, Registry

# A LoRA is small: nothing is lost to a format of its numbers.
_ADAPTER_KIND = "f32"


class GgufFiles:
    """Used from any thread. kind: how the base's matrices are stored."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        # Nobody looks at bars while requests are answered.
        self._hub = Hub()
        self._folder = self._hub.home / "cache" / "adz-llama-cpp" / adapterhub.__version__
        self._lock = Lock()

    def base(self, record: BaseRecord, progress: Progress) -> Path:
        """The base's file. Raises AdzError for a base that cannot be written as GGUF."""
        identity = sha256_of(canonical_json(record.digests.model_dump(mode="json")))
        path = self._folder / "bases" / f"{_hex(identity)}-{self._kind}.gguf"

        def write(target: Path) -> None:
            progress.note(f"writing {record.name} as GGUF ({self._kind}), which is done once")
            Hub(progress=progress).export_gguf(record.name, target, kind=self._kind, compare=False)

        return self._kept(path, write)

    def adapter(self, version: Version) -> Path:
        """The version's file. Raises AdzError for what llama.cpp cannot put over a base."""

        def write(target: Path) -> None:
            reference = f"{version.name}@{version.digest}"
            self._hub.export_lora_gguf(reference, target, kind=_ADAPTER_KIND)

        return self._kept(self._adapter_path(version.digest), write)

    def sweep(self, registry: Registry) -> None:
        """Delete the files of adapters that the registry has no longer."""
        known = {self._adapter_path(version.digest) for version in registry.versions()}
        for path in (self._folder / "adapters").glob("*.gguf"):
            if path not in known:
                path.unlink(missing_ok=True)

    def _adapter_path(self, digest: str) -> Path:
        return self._folder / "adapters" / f"{_hex(digest)}.gguf"

    def _kept(self, path: Path, write: Callable[[Path], None]) -> Path:
        with self._lock:
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                # Another server may be writing the same one.
                unfinished = path.with_name(f".{path.name}.{os.getpid()}")
                unfinished.unlink(missing_ok=True)
                write(unfinished)
                unfinished.replace(path)
        return path


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
