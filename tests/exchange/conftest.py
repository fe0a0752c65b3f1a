"""Two registries, adapters without torch, and a remote in memory that can be made to lie."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from adapterhub.exchange.bounds import Bounds
from adapterhub.manifest import BaseLink, FileRecord, Manifest, Version, sha256_of
from adapterhub.merge.silent import Silent
from adapterhub.plugins import load_plugins, open_registry
from adapterhub.protocols import Registry, RemoteFile, RemoteVersion

MODULE = "base_model.model.model.layers.0.self_attn.q_proj"


@dataclass
class MemoryRemote:
    """A `protocols.Remote`. `answer` replaces what `read` gives: file, offset, right bytes."""

    url: str = "memory-of-test://"
    blobs: dict[str, bytes] = field(default_factory=dict)
    published: dict[tuple[str, str], RemoteVersion] = field(default_factory=dict)
    cards: dict[str, str] = field(default_factory=dict)
    reads: list[tuple[str, int]] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    answer: Callable[[RemoteFile, int, bytes], Iterator[bytes]] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def names(self) -> list[str]:
        return sorted({name for name, _ in self.published})

    def tags(self, name: str) -> list[str]:
        return [tag for found, tag in self.published if found == name]

    def find(self, name: str, tag: str) -> RemoteVersion | None:
        return self.published.get((name, tag))

    def contains(self, name: str, file: RemoteFile) -> bool:
        return file.record.sha256 in self.blobs

    def read(
        self, name: str, version: RemoteVersion, file: RemoteFile, offset: int
    ) -> Iterator[bytes]:
        with self.lock:
            self.reads.append((file.name, offset))
        data = self.blobs[file.record.sha256][offset:]
        if self.answer is not None:
            yield from self.answer(file, offset, data)
            return
        for at in range(0, len(data), 65536):
            yield data[at : at + 65536]

    def write(self, name: str, file: RemoteFile, source: Path, sent: Callable[[int], None]) -> None:
        data = source.read_bytes()
        sent(len(data))
        with self.lock:
            self.writes.append(file.name)
            self.blobs[sha256_of(data)] = data

    def publish(self, name: str, version: RemoteVersion, tags: Sequence[str], card: str) -> None:
        self.published |= {(name, tag): version for tag in tags}
        self.cards[name] = card


@pytest.fixture
def remote() -> MemoryRemote:
    return MemoryRemote()


@pytest.fixture
def open_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Registry]:
    """The registry of a home with this name, which is then the ADZ_HOME."""
    load_plugins.cache_clear()

    def use(name: str) -> Registry:
        monkeypatch.setenv("ADZ_HOME", str(tmp_path / name))
        return open_registry()

    return use


@pytest.fixture
def sender(open_home: Callable[[str], Registry]) -> Registry:
    """The registry of whoever pushes; it is the ADZ_HOME until another one is opened."""
    return open_home("sender")


@pytest.fixture
def commit(tmp_path: Path) -> Callable[..., Version]:
    """Commit a LoRA whose A and B have `width` columns and rows; `seed` differs the bytes."""

    def run(
        registry: Registry, name: str = "sql", *, seed: int = 0, width: int = 8, **changes: Any
    ) -> Version:
        payload = tmp_path / f"payload-{seed}-{width}"
        if not payload.exists():
            payload.mkdir()
            random = np.random.default_rng(seed)
            tensors = {
                f"{MODULE}.lora_A.weight": random.normal(size=(2, width)).astype(np.float32),
                f"{MODULE}.lora_B.weight": random.normal(size=(width, 2)).astype(np.float32),
            }
            save_file(tensors, payload / "adapter_model.safetensors", metadata={"format": "pt"})
            config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none"}
            config |= {"target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
            (payload / "adapter_config.json").write_text(json.dumps(config))
        values = {
            "name": name,
            "method": "lora",
            "made_by": "import",
            "base": BaseLink(status="unknown"),
            "adapter": {"rank": 2},
        }
        artifacts = tmp_path / "artifacts"
        if not artifacts.exists():
            (artifacts / "deep").mkdir(parents=True)
            (artifacts / "deep" / "metrics.json").write_text('{"loss": 1.5}')
        return registry.commit(Manifest.model_validate(values | changes), payload, artifacts)

    return run


@pytest.fixture
def quick() -> Bounds:
    """Bounds that do not make a test wait."""
    return Bounds(pause=0.001, patience=0.2)


@pytest.fixture
def silent() -> Silent:
    return Silent()


@pytest.fixture
def make_file() -> Callable[[bytes], RemoteFile]:
    """The description of a file with these bytes."""

    def make(data: bytes, name: str = "adapter_model.safetensors") -> RemoteFile:
        return RemoteFile(name, FileRecord(sha256=sha256_of(data), size=len(data)))

    return make
