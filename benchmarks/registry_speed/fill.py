"""A registry of many versions, written through the package's own tables, without their blobs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapterhub.manifest import BaseDigests, BaseRecord, FileRecord, Manifest, payload_digest
from adapterhub_registry.database import Change
from adapterhub_registry.store import LocalRegistry

VERSIONS_OF_LARGE = 10
BASES = 5
METHODS = ("lora", "lora", "lora", "lora", "dora", "rslora", "ia3", "oft")
ENVIRONMENT = {
    "accelerate": "1.15.0", "adapterhub": "0.1.0", "bitsandbytes": "0.50.2", "peft": "0.21.2",
    "python": "3.11.7", "safetensors": "0.8.0", "torch": "2.13.0", "transformers": "5.19.0",
    "trl": "1.16.0",
}  # fmt: skip
TRAINING = {
    "accumulation": 1, "batch_size": 16, "clip": 1.0, "epochs": 3.0, "eval_every": None,
    "eval_rows": 200, "gradient_checkpointing": False, "lr": 0.001, "max_length": 1024,
    "max_steps": None, "save_every": 50, "schedule": "linear", "seed": 0, "warmup": 0.05,
    "weight_decay": 0.0,
}  # fmt: skip


def fill(home: Path, count: int) -> tuple[LocalRegistry, list[str]]:
    """A registry with `count` versions in one transaction, and its adapters' names.

    Half of the versions are the only one of their name; the other half are ten of a name. Each
    name has the alias `prod` at its first version, each version is of one of five bases and has
    the manifest of a training run, of 2.5 kB. The bytes of weights and manifests are not written
    as blobs: nothing that is timed reads them.
    """
    registry = LocalRegistry(home)
    bases = [_base(index) for index in range(BASES)]
    with registry.database.changing() as change:
        # Random digests go to all places of an index.
        change.connection.execute("PRAGMA cache_size = -1000000")
        for base in bases:
            change.record("add-base", base.name, body=base.model_dump(mode="json"))
        names = []
        for index, (name, versions) in enumerate(_names(count)):
            names.append(name)
            for number in range(1, versions + 1):
                _commit(change, name, number, bases[index % BASES], seed=index)
            change.record("tag", name, version=1, alias="prod")
    return registry, names


def _names(count: int) -> Iterator[tuple[str, int]]:
    large = count // 2 // VERSIONS_OF_LARGE
    for index in range(large):
        yield f"team-{index % 40}/task-{index}", VERSIONS_OF_LARGE
    for index in range(count - large * VERSIONS_OF_LARGE):
        yield f"team-{index % 40}/once-{index}", 1


def _commit(change: Change, name: str, number: int, base: BaseRecord, *, seed: int) -> None:
    manifest = _manifest(name, number, base, seed, change.time)
    body = manifest.canonical()
    digest = _digest(body)
    change.record("commit", name, version=number, body={"digest": digest}, manifest=body)


def _manifest(name: str, number: int, base: BaseRecord, seed: int, created: str) -> Manifest:
    files = {
        "adapter_config.json": _file(f"{name} config", 1163),
        "adapter_model.safetensors": _file(f"{name} {number}", 19_593_064),
    }
    artifacts = {
        "loss.png": _file(f"{name} {number} plot", 33_854),
        "metrics.jsonl": _file(f"{name} {number} metrics", 13_075),
        "recipe.yaml": _file(f"{name} recipe", 544),
    }
    rank = 2 ** (seed % 6 + 2)
    method = METHODS[seed % len(METHODS)]
    values: dict[str, Any] = {
        "name": name,
        "version": number,
        "method": method,
        "made_by": "train",
        "base": {"status": "recorded", "name": base.name, "digests": base.digests},
        "objective": "sft",
        "prompt_format": "plain",
        "adapter": {
            "alpha": 2.0 * rank, "dtype": "float32", "modules": 210,
            "parameters": 305_280 * rank, "rank": rank,
        },
        "recipe": {
            "base": base.name, "name": name, "quantizer": None, "objective": {"name": "sft"},
            "data": {"format": "prompt_completion", "holdout": 0.02, "train": f"{name}.jsonl"},
            "method": {"name": method, "r": rank, "alpha": 2.0 * rank, "targets": "all-linear"},
            "training": TRAINING,
        },
        "data": [{"file": f"{name}.jsonl", "format": "prompt_completion", "rows": 3000,
                  "sha256": _digest(name.encode())}],
        "metrics": {
            "holdout_loss": 0.1 + (seed * 7919 % 1000) / 1000, "holdout_loss_base": 11.5,
            "merge_difference": 2.9e-06, "resumed": False, "seconds": 148.9, "steps": 90,
            "tokens": 24_411, "tokens_per_second": 163.9, "train_loss": 0.83,
        },
        "environment": ENVIRONMENT,
        "created": created,
        "files": files,
        "artifacts": artifacts,
        "payload": payload_digest(files),
    }  # fmt: skip
    return Manifest.model_validate(values)


def _base(index: int) -> BaseRecord:
    parts = {
        part: _digest(f"{part} {index}".encode())
        for part in ("weights", "arch", "tokenizer", "chat_template")
    }
    return BaseRecord(
        name=f"base-{index}",
        source=f"org/base-{index}",
        path=f"/models/base-{index}",
        digests=BaseDigests(**parts),
        architecture="LlamaForCausalLM",
        parameters=134_515_008,
        dtype="F32",
        created="2026-01-01T00:00:00Z",
    )


def _file(seed: str, size: int) -> FileRecord:
    return FileRecord(sha256=_digest(seed.encode()), size=size)


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
