"""What a version is, from what it was made and how: the immutable manifest.

A version is identified by the sha256 of its manifest's canonical JSON. Results of
evaluations and checks are attestations beside it and never edit it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: equal values give equal bytes."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def sha256_of(data: bytes) -> str:
    """`sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BaseDigests(_Record):
    """The identity of a base model; its name and source are hints only.

    weights: a digest over the sorted (file, sha256) pairs of the safetensors files.
    arch: a digest over the canonical configuration and every tensor's name, shape and dtype.
    """

    weights: str
    arch: str
    tokenizer: str
    chat_template: str | None = None


class BaseRecord(_Record):
    """A base model as the registry keeps it."""

    name: str
    source: str
    """What the user gave: a Hugging Face id, `pkg:NAME`, or a path."""
    path: str
    """The directory that transformers and vLLM load. Never part of a manifest."""
    digests: BaseDigests
    architecture: str
    """The first entry of `architectures` in config.json, such as `LlamaForCausalLM`."""
    parameters: int
    dtype: str
    """The commonest tensor dtype, as safetensors writes it: `F32`, `BF16`, ..."""
    derivation: dict[str, Any] | None = None
    """How a stored base was made from another one (dequantised, quantised), if it was."""
    created: str
    """UTC, ISO 8601."""


class BaseLink(_Record):
    """What is known about an adapter's base.

    recorded: we trained or merged it. asserted: a user said so, and names and shapes were
    checked. unknown: neither served nor merged; `digests` is then None.
    """

    status: Literal["recorded", "asserted", "unknown"]
    name: str | None = None
    digests: BaseDigests | None = None


class FileRecord(_Record):
    """One stored file. `sha256` is `sha256:hex`, `size` is in bytes."""

    sha256: str
    size: int


class Parent(_Record):
    """A version that this one was made from. `role` is `operand`, `source`, ..."""

    name: str
    version: int
    digest: str
    role: str = "operand"
    weight: float | None = None


class Manifest(_Record):
    """The immutable description of a version. `files` and `payload` are filled at commit."""

    format: Literal[1] = 1
    name: str
    version: int = 0
    """1, 2, 3, ...; filled at commit, 0 before."""
    method: str
    """The method's name, such as `lora`; a merge's is the method of its result."""
    storage: Literal["peft", "own"] = "peft"
    made_by: Literal["train", "merge", "import", "convert"]
    base: BaseLink
    quantizer: str | None = None
    """How the base was held while training (QLoRA is lora with quantizer nf4)."""
    objective: str | None = None
    prompt_format: Literal["plain", "chat"] | None = None
    adapter: dict[str, Any] = Field(default_factory=dict)
    """Facts for listing: `rank`, `alpha`, `modules`, `targets`, `parameters`, `dtype`."""
    recipe: dict[str, Any] = Field(default_factory=dict)
    """The resolved recipe that reproduces the run."""
    parents: tuple[Parent, ...] = ()
    data: tuple[dict[str, Any], ...] = ()
    """The data sets: `file` (base name), `sha256`, `rows`, `format`."""
    metrics: dict[str, Any] = Field(default_factory=dict)
    """Figures of the making itself: losses, tokens per second, merge error."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Versions of Python, the libraries and every plugin that took part."""
    created: str = ""
    """UTC, ISO 8601; filled at commit."""
    files: dict[str, FileRecord] = Field(default_factory=dict)
    """The payload: what PEFT opens."""
    artifacts: dict[str, FileRecord] = Field(default_factory=dict)
    """Kept beside the payload: training metrics, loss curve, recipe."""
    payload: str = ""
    """The digest over the sorted (file, sha256) pairs of `files`."""

    def canonical(self) -> bytes:
        """The bytes that are stored, and whose sha256 identifies the version."""
        return canonical_json(self.model_dump(mode="json", exclude_none=True))

    def digest(self) -> str:
        """The version's identity, `sha256:hex`."""
        return sha256_of(self.canonical())


def payload_digest(files: dict[str, FileRecord]) -> str:
    """The digest of a payload: over the sorted (file, sha256) pairs, not over names or times."""
    return sha256_of(canonical_json({name: record.sha256 for name, record in files.items()}))


@dataclass(frozen=True, slots=True)
class Version:
    """A committed version as the registry returns it."""

    name: str
    number: int
    digest: str
    manifest: Manifest
    aliases: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """`name@number`: always this version, whatever aliases do."""
        return f"{self.name}@{self.number}"
