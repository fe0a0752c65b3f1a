"""Random work on a registry, and what a registry says as plain values to compare."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapterhub.errors import AdzError
from adapterhub.manifest import BaseDigests, BaseLink, BaseRecord, Manifest
from adapterhub.protocols import Finding, LogEntry
from adapterhub_registry.store import LocalRegistry

NAMES = ("sql", "team/french", "other")
BASES = ("llama", "qwen")
ALIASES = ("prod", "beta")
# Each kind of change once, in an order in which each has something to do.
EVERYTHING = (
    "base", "commit", "commit", "tag", "commit", "attest", "view", "heal", "remove",
    "restore", "remove", "gc", "rollback", "lease", "reopen", "rebuild", "untag", "commit",
    "remove name", "remove base",
)  # fmt: skip
HOLDER = "workload"

# Name -> how often it is done, and what it is.
Steps = dict[str, tuple[int, Callable[[], object]]]


def manifest(name: str) -> Manifest:
    """The manifest of an adapter whose base is unknown."""
    return Manifest(name=name, method="lora", made_by="import", base=BaseLink(status="unknown"))


def base(name: str) -> BaseRecord:
    """The record of a base; its files are never looked at."""
    digests = BaseDigests(weights=f"sha256:{name}", arch="sha256:a", tokenizer="sha256:t")
    return BaseRecord(
        name=name, source=name, path=f"/nowhere/{name}", digests=digests,
        architecture="LlamaForCausalLM", parameters=64, dtype="F32",
        created="2026-01-01T00:00:00Z",
    )  # fmt: skip


def snapshot(registry: LocalRegistry) -> dict[str, Any]:
    """All that a registry acknowledges, as values that JSON keeps."""
    return {
        "versions": [[v.name, v.number, v.digest, sorted(v.aliases)] for v in registry.versions()],
        "log": {
            name: [[e.time, e.actor, e.action, e.version, e.alias, e.previous] for e in entries]
            for name in NAMES
            if (entries := _log(registry, name))
        },
        "bases": [record.name for record in registry.bases()],
        "attested": {
            v.reference: [dict(a) for a in registry.attestations(v)] for v in registry.versions()
        },
        # A push takes one too, which it gives back.
        "leased": [lease.version for lease in registry.leases() if lease.holder == HOLDER],
    }


def wrong(registry: LocalRegistry) -> list[Finding]:
    """What fsck finds, but for the bases, which are made up here."""
    return [f for f in registry.check() if not f.subject.startswith("base ")]


def _log(registry: LocalRegistry, name: str) -> list[LogEntry]:
    try:
        return registry.log(name)
    except AdzError:
        # It was never there.
        return []


class Workload:
    """Does one random thing at a time. The same seed on an equal registry does the same.

    payloads: directories that may be committed.
    """

    def __init__(self, registry: LocalRegistry, payloads: Path, seed: int) -> None:
        self.registry = registry
        self._payloads = sorted(payloads.iterdir())
        self._random = random.Random(seed)
        self._turn = 0

    def step(self) -> str:
        """Do something; return what it was. A refusal of the registry is fine."""
        steps = self._steps()
        weights = [weight for weight, _ in steps.values()]
        return self.run(self._random.choices(list(steps), weights)[0])

    def run(self, name: str) -> str:
        """Do one kind of thing; `EVERYTHING` names them all."""
        self._turn += 1
        try:
            self._steps()[name][1]()
        except AdzError as error:
            if error.__cause__ is not None:
                raise
        return name

    def _steps(self) -> Steps:
        registry, pick = self.registry, self._random.choice
        return {
            "commit": (5, lambda: registry.commit(manifest(pick(NAMES)), pick(self._payloads))),
            "tag": (3, lambda: registry.tag(self._version(), pick(ALIASES))),
            "rollback": (1, lambda: registry.rollback(pick(NAMES), pick(ALIASES))),
            "untag": (1, lambda: registry.untag(pick(NAMES), pick(ALIASES))),
            "remove": (2, lambda: registry.remove(self._version())),
            "remove name": (1, lambda: registry.remove(pick(NAMES))),
            "restore": (2, self._restore),
            "gc": (2, lambda: registry.collect(grace_seconds=0, retention_seconds=0)),
            "attest": (1, self._attest),
            "base": (1, lambda: registry.add_base(base(pick(BASES)))),
            "remove base": (1, lambda: registry.remove_base(pick(BASES))),
            "view": (2, lambda: registry.path(registry.resolve(self._version()))),
            "rebuild": (1, self._rebuild),
            "heal": (1, self._heal),
            "lease": (1, self._lease),
            "reopen": (1, self._reopen),
        }

    def _version(self) -> str:
        versions = self.registry.versions()
        return self._random.choice(versions).reference if versions else "sql@1"

    def _restore(self) -> None:
        name = self._random.choice(NAMES)
        removed = [e.version for e in self.registry.log(name) if e.action == "remove"]
        if removed:
            self.registry.restore(f"{name}@{self._random.choice(removed)}")

    def _rebuild(self) -> None:
        """Lose the end of the journal, and make it from the database."""
        with self.registry.database.journal.path.open("r+b") as file:
            file.truncate(file.seek(0, os.SEEK_END) // 2)
            os.fsync(file.fileno())
        list(self.registry.mend(wrong(self.registry)))

    def _heal(self) -> None:
        manifest = self.registry.resolve(self._version()).manifest
        record = manifest.files["adapter_model.safetensors"]
        self.registry.heal(record, self.registry.blobs.path(record.sha256))

    def _lease(self) -> None:
        self.registry.lease([self.registry.resolve(self._version())], HOLDER, 1e6)

    def _reopen(self) -> None:
        """As every command ends: what SQLite's log holds goes into the database."""
        with self.registry.database.reading() as connection:
            pass
        connection.close()
        self.registry = LocalRegistry(self.registry.home)

    def _attest(self) -> None:
        version = self.registry.resolve(self._version())
        self.registry.attest(version, "eval", {"turn": self._turn})
